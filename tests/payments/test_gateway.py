"""Stripe's shapes of every year say the same in our words; what cannot be understood says why."""

from typing import Any

import orjson
import pytest

from services.payments.domain import Fee, Payout, Refund, Snapshot, StripeFact, join, state
from services.payments.gateway import Nothing, Thin, translate
from shared.errors import FareboxError

CREATED = 1_650_000_000
Json = dict[str, Any]


def event(content: Json, kind: str = "payment_intent.succeeded", **head: object) -> bytes:
    whole = {"id": "evt_1", "object": "event", "type": kind, "created": CREATED + 9}
    return orjson.dumps({**whole, "livemode": False, "data": {"object": content}, **head})


def fact(body: bytes) -> StripeFact:
    said = translate(body)
    assert isinstance(said, StripeFact)
    return said


def intent(**more: object) -> Json:
    base: Json = {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 2_000,
        "amount_capturable": 0,
        "amount_received": 2_000,
        "created": CREATED,
        "currency": "usd",
        "status": "succeeded",
        "latest_charge": "ch_1",
        "metadata": {},
    }
    return base | more


def charge(**more: object) -> Json:
    base: Json = {
        "id": "ch_1",
        "object": "charge",
        "amount": 2_000,
        "captured": True,
        "paid": True,
        "created": CREATED,
        "currency": "usd",
        "payment_intent": "pi_1",
    }
    return base | more


def refund(**more: object) -> Json:
    base: Json = {
        "id": "re_1",
        "object": "refund",
        "amount": 500,
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "created": CREATED + 5,
        "currency": "usd",
        "status": "succeeded",
        "balance_transaction": "txn_9",
    }
    return base | more


def dispute(**more: object) -> Json:
    base: Json = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 2_000,
        "charge": "ch_1",
        "payment_intent": "pi_1",
        "created": CREATED + 6,
        "currency": "usd",
        "status": "needs_response",
        "balance_transactions": [],
    }
    return base | more


def listed(*items: Json) -> Json:
    return {"object": "list", "data": list(items), "has_more": False}


def without(shape: Json, *names: str) -> Json:
    return {name: value for name, value in shape.items() if name not in names}


OLD = without(intent(), "amount_received", "amount_capturable", "latest_charge")


@pytest.mark.parametrize(
    ("shape", "received_minor", "capturable_minor"),
    [
        (intent(), 2_000, 0),
        (intent(amount_received=1_500), 1_500, 0),
        (OLD, 2_000, 0),
        (OLD | {"charges": None}, 2_000, 0),
        (OLD | {"charges": listed(charge(amount_captured=700))}, 700, 0),
        (OLD | {"charges": listed(charge()), "latest_charge": charge()}, 2_000, 0),
        (OLD | {"charges": listed(charge(paid=False, captured=False))}, 2_000, 0),
        (OLD | {"status": "requires_capture"}, 0, 2_000),
        (OLD | {"status": "requires_source"}, 0, 0),
        (intent(status="requires_capture", amount_received=0, amount_capturable=900), 0, 900),
    ],
)
def test_amounts_of_every_version(shape: Json, received_minor: int, capturable_minor: int) -> None:
    read = state(fact(event(shape)).tells)
    assert (read.received_minor, read.capturable_minor) == (received_minor, capturable_minor)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("requires_source", "requires_payment_method"),
        ("requires_source_action", "requires_action"),
        ("requires_confirmation", "requires_confirmation"),
    ],
)
def test_statuses_of_2018_are_todays(said: str, meant: str) -> None:
    assert state(fact(event(intent(status=said))).tells).status == meant


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [("usd", 1_234, 1_234), ("jpy", 1_234, 1_234), ("kwd", 1_230, 1_230), ("isk", 1_200, 12)],
)
def test_amounts_are_in_the_currencys_own_minor_units(
    currency: str, amount: int, minor: int
) -> None:
    body = event(intent(currency=currency, amount=amount, amount_received=amount))
    read = state(fact(body).tells)
    assert (read.currency, read.amount_minor) == (currency.upper(), minor)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, None),
        ({"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}, "lost_card"),
        ({"type": "card_error", "code": "processing_error"}, "processing_error"),
        ({"type": "api_error"}, "api_error"),
    ],
)
def test_the_failure_code_is_the_issuers_word_where_there_is_one(
    error: Json | None, code: str | None
) -> None:
    failed = intent(status="requires_payment_method", last_payment_error=error)
    assert state(fact(event(failed)).tells).failure_code == code
    assert state(fact(event(intent(last_payment_error=error))).tells).failure_code is None


@pytest.mark.parametrize(
    "shape",
    [
        intent(latest_charge=charge()),
        intent(latest_charge="ch_1"),
        without(intent(), "latest_charge") | {"charges": listed(charge())},
    ],
)
def test_a_charge_is_known_expanded_by_id_or_in_the_old_list(shape: Json) -> None:
    assert fact(event(shape)).charges == ("ch_1",)


def test_refunds_nested_in_an_old_charge_are_the_refunds_themselves() -> None:
    own = fact(event(refund(), "refund.created")).tells.refunds
    nested = fact(event(charge(refunds=listed(refund())), "charge.refunded")).tells.refunds
    within = fact(event(intent(charges=listed(charge(refunds=listed(refund())))))).tells.refunds
    assert own == nested == within == {"re_1": Refund(2, "succeeded", 500, CREATED + 5, True)}


@pytest.mark.parametrize(
    ("more", "claims"),
    [
        ({"amount_refunded": 700}, {str(CREATED + 9): 700}),
        ({"amount_refunded": 700, "captured": False}, {}),
        ({"amount_refunded": 0}, {}),
        ({"amount_refunded": None}, {}),
        ({}, {}),
        ({"amount_refunded": 150, "currency": "isk"}, {}),
    ],
)
def test_what_a_charge_says_was_given_back_is_a_claim_and_moves_nothing(
    more: Json, claims: dict[str, int]
) -> None:
    tells = fact(event(charge(**more), "charge.refunded")).tells
    assert (tells.claims, tells.refunds) == (claims, {})
    nested = fact(event(intent(charges=listed(charge(**more))))).tells
    assert nested.claims == claims
    twice = intent(charges=listed(charge(**more)), latest_charge=charge(**more))
    assert fact(event(twice)).tells.claims == claims


def test_a_list_of_refunds_is_believed_only_as_an_answer() -> None:
    shape = {"object": "list", "data": [refund()]}
    assert isinstance(translate(event(shape, "refund.listed")), Nothing)
    asked = {"second": 5, "at": CREATED, "about": "/v1/refunds?payment_intent=pi_1"}
    said = fact(event(shape, "farebox.refunds_retrieved", asked=asked))
    assert (said.payment, said.charges, said.is_answer) == ("pi_1", ("ch_1",), True)
    assert (said.tells.listed, list(said.tells.refunds)) == (5, ["re_1"])
    elsewhere = asked | {"about": "/v1/payment_intents/pi_1"}
    assert isinstance(translate(event(shape, "farebox.x", asked=elsewhere)), Nothing)


def test_a_released_authorisation_is_no_refund() -> None:
    released = charge(captured=False, refunds=listed(refund()))
    assert fact(event(released, "charge.refunded")).tells.refunds == {}
    within = intent(status="canceled", amount_received=0, charges=listed(released))
    assert fact(event(within, "payment_intent.canceled")).tells.refunds == {}
    canceled = fact(event(intent(status="canceled", amount_received=0), "payment_intent.canceled"))
    with_refund = fact(event(refund(), "refund.created"))
    read = state(join(canceled.tells, with_refund.tells))
    assert (read.refunded_minor, read.movements, read.anomaly) == (0, (), None)


def test_a_refund_that_failed_left_and_came_back() -> None:
    failed = fact(event(refund(status="failed"), "refund.failed")).tells
    paid = fact(event(intent())).tells
    read = state(join(paid, failed))
    assert read.refunded_minor == 0
    assert [(m.id, m.amount_minor, m.at) for m in read.movements] == [
        ("re_1", 500, CREATED + 5),
        ("re_1:returned", -500, CREATED + 9),
    ]


def test_a_refund_that_never_held_money_moves_none() -> None:
    asked = refund(status="canceled", balance_transaction=None)
    refunds = fact(event(asked, "refund.updated")).tells.refunds
    assert not refunds["re_1"].held


TAKEN = {"id": "txn_1", "amount": -2_000, "currency": "usd", "created": CREATED + 7, "fee": 1_500}
GIVEN = {"id": "txn_2", "amount": 2_000, "currency": "usd", "created": CREATED + 8}


@pytest.mark.parametrize(
    ("transactions", "moved"),
    [
        ([], {}),
        ([TAKEN], {"txn_1": Payout(CREATED + 7, 2_000)}),
        (
            [TAKEN, GIVEN],
            {"txn_1": Payout(CREATED + 7, 2_000), "txn_2": Payout(CREATED + 8, -2_000)},
        ),
        ([TAKEN | {"currency": "eur", "amount": -1_870}], {"txn_1": Payout(CREATED + 7, 2_000)}),
    ],
)
def test_a_disputes_money_is_what_its_transactions_moved(
    transactions: list[Json], moved: dict[str, Payout]
) -> None:
    body = event(dispute(balance_transactions=transactions), "charge.dispute.funds_withdrawn")
    assert fact(body).tells.disputes["dp_1"].moved == moved


def test_a_dispute_of_2013_has_the_id_of_its_charge() -> None:
    old = without(dispute(), "id", "payment_intent", "balance_transactions")
    said = fact(event(old, "charge.dispute.closed"))
    assert (said.payment, said.charge, list(said.tells.disputes)) == (None, "ch_1", ["ch_1"])


def test_fees_are_read_where_the_transaction_is_expanded() -> None:
    settled = {
        "id": "txn_1",
        "amount": 2_000,
        "currency": "usd",
        "created": 1,
        "fee": 88,
        "net": 1_912,
    }
    fees = fact(event(charge(balance_transaction=settled), "charge.updated")).tells.fees
    assert fees == {"txn_1": Fee(True, "USD", 88, 1_912)}
    assert fact(event(charge(balance_transaction="txn_1"), "charge.updated")).tells.fees == {}


@pytest.mark.parametrize(
    "settled",
    [
        {"currency": "isk", "fee": 2_950, "net": 97_100},
        {"currency": "isk", "fee": 2_900, "net": 97_050},
        {"currency": "zzz", "fee": 29, "net": 971},
    ],
)
def test_a_fee_that_cannot_be_said_is_left_out_and_the_money_is_not(settled: Json) -> None:
    transaction = settled | {"id": "txn_1", "amount": 100_000, "created": 1}
    whole = charge(amount=100_000, currency="isk", balance_transaction=transaction)
    body = event(intent(currency="isk", amount=100_000, amount_received=100_000, charges=[whole]))
    tells = fact(body).tells
    assert (tells.received_minor, tells.fees) == (1_000, {})
    assert fact(event(whole, "charge.updated")).tells.fees == {}
    taken = transaction | {"amount": -100_000}
    lost = dispute(amount=100_000, currency="isk", balance_transactions=[taken])
    assert fact(event(lost, "charge.dispute.created")).tells.fees == {}


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (charge(payment_intent=None), "charge.succeeded"),
        (refund(payment_intent=None, charge=None), "refund.created"),
        (dispute(payment_intent=None, charge=None), "charge.dispute.created"),
        ({"object": "payout", "id": "po_1"}, "payout.paid"),
        ({"id": "x"}, "mystery"),
    ],
)
def test_what_is_about_no_payment_says_so(shape: Json, kind: str) -> None:
    said = translate(event(shape, kind))
    assert isinstance(said, Nothing)
    assert said.reason


def test_a_charge_of_2015_does_not_say_whose_it_is() -> None:
    said = fact(event(without(charge(), "payment_intent"), "charge.succeeded"))
    assert (said.payment, said.charge) == (None, "ch_1")


@pytest.mark.parametrize("value", ["not-a-uuid", "  ", "", "0" * 400])
def test_metadata_that_is_no_uuid_links_nobody(value: str) -> None:
    read = state(fact(event(intent(metadata={"user_id": value}))).tells)
    assert read.user_id is None


def test_the_payments_own_word_outranks_its_charges() -> None:
    theirs = {"user_id": "11111111-1111-4111-8111-111111111111"}
    own = {"user_id": "22222222-2222-4222-8222-222222222222"}
    both = join(
        fact(event(charge(metadata=theirs), "charge.succeeded", created=CREATED + 99)).tells,
        fact(event(intent(metadata=own))).tells,
    )
    assert str(state(both).user_id) == own["user_id"]


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"[]",
        b'{"object":"event"}',
        event(intent(currency="zzz")),
        event(intent(status="requires_prayer")),
        event(intent(amount=-1)),
        event(intent(amount=2.5)),
        event(intent(amount="many")),
        event(intent(currency="isk", amount=1_234)),
        event(refund(status="lost"), "refund.updated"),
        event(without(intent(), "currency")),
        orjson.dumps({"object": "event", "id": "e", "type": "t", "created": 1, "data": None}),
    ],
)
def test_what_cannot_be_understood_is_an_error_with_a_reason(body: bytes) -> None:
    with pytest.raises(FareboxError) as refused:
        translate(body)
    assert refused.value.detail


@pytest.mark.parametrize(
    "url",
    [None, 5, "/v2/core/accounts/acct_1", "/v1/payment_intents/../refunds", "/v1/customers/cus_1"],
)
def test_only_what_tells_of_money_is_fetched(url: object) -> None:
    thin = {
        "object": "v2.core.event",
        "id": "evt_1",
        "type": "t",
        "created": "2026-07-01T12:00:00Z",
        "related_object": {"url": url},
    }
    assert isinstance(translate(orjson.dumps(thin)), Nothing)


def test_a_thin_event_names_what_to_ask_and_when_it_happened() -> None:
    thin = {
        "object": "v2.core.event",
        "id": "evt_1",
        "type": "v1.refund.created",
        "created": "2026-07-01T12:00:00.750Z",
        "context": "acct_1",
        "livemode": True,
        "related_object": {"url": "/v1/refunds/re_1"},
    }
    said = translate(orjson.dumps(thin))
    assert isinstance(said, Thin)
    asked = said.question
    assert (asked.subject, asked.second) == ("/v1/refunds/re_1", 1_782_907_200)
    assert (asked.account, asked.livemode) == ("acct_1", True)


def test_a_snapshot_carries_everything_that_may_tie() -> None:
    [told] = fact(event(intent())).tells.told.values()
    assert told.snapshot == Snapshot("succeeded", "USD", 2_000, 0, None)
