"""Stripe's words become facts by rules: whose word counts, when a payment ended, which way a dispute's money went."""

from dataclasses import replace
from typing import Any

import pytest

from services.payments.domain import (
    ASKED,
    BOOKED,
    TOLD,
    Dispute,
    Fold,
    StripeFact,
    join,
    merge,
    state,
)
from services.payments.gateway import Nothing, Thin, translate
from services.payments.reconcile.compare import Difference, difference
from tests.payments.test_gateway import CREATED, charge, event, fact, intent, refund

ASKED_OF = {"phase": 2, "second": CREATED + 9, "at": CREATED + 500}
USERS = [f"{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-111111111111" for n in range(1, 6)]
Json = dict[str, Any]


def booked(amount: int = 2_000, currency: str = "usd", **more: object) -> Json:
    base: Json = {"id": "txn_1", "object": "balance_transaction", "amount": amount}
    return {**base, "created": CREATED + 5, "currency": currency, **more}


@pytest.mark.parametrize(
    ("content", "head", "ended"),
    [
        (intent(), {}, (TOLD, CREATED + 9)),
        (intent(canceled_at=CREATED + 3, status="canceled"), {}, (TOLD, CREATED + 3)),
        (
            intent(canceled_at=CREATED + 3, status="canceled"),
            {"asked": ASKED_OF},
            (TOLD, CREATED + 3),
        ),
        (intent(), {"asked": ASKED_OF}, (ASKED, CREATED + 9)),
        (
            intent(latest_charge=charge(balance_transaction=booked())),
            {"asked": ASKED_OF},
            (BOOKED, CREATED + 5),
        ),
        (intent(latest_charge=charge()), {"asked": ASKED_OF}, (BOOKED, CREATED)),
        (intent(latest_charge=charge(captured=False)), {"asked": ASKED_OF}, (ASKED, CREATED + 9)),
        (intent(latest_charge=charge(paid=False)), {"asked": ASKED_OF}, (ASKED, CREATED + 9)),
    ],
)
def test_when_a_payment_ended(content: Json, head: Json, ended: tuple[int, int]) -> None:
    told = fact(event(content, **head))
    assert list(told.tells.ended.values()) == [ended]
    assert told.is_answer == bool(head)
    assert told.tells.denied == {}
    [said] = told.tells.told.values()
    assert said.asked_at == (ASKED_OF["at"] if head else 0)


def test_an_event_takes_nothing_back_whatever_came_before() -> None:
    assert fact(event(intent(status="processing"))).tells.denied == {}
    told = fact(event(intent(status="processing"), asked=ASKED_OF))
    assert told.tells.denied == {"processing": ASKED_OF["at"]}


@pytest.mark.parametrize(
    ("changed", "saved"),
    [
        ({}, ("cus_1", "pm_1")),
        ({"status": "processing"}, ()),
        ({"setup_future_usage": "on_session"}, ()),
        ({"customer": None}, ()),
        ({"payment_method": None}, ()),
    ],
)
def test_what_a_payment_saved_for_later(changed: Json, saved: tuple[str, ...]) -> None:
    whole = {"customer": "cus_1", "payment_method": "pm_1", "setup_future_usage": "off_session"}
    assert fact(event(intent(**{**whole, **changed}))).tells.saved == saved


def test_of_the_oldest_shapes_only_what_was_paid_and_captured_was_received() -> None:
    made = [
        charge(id="ch_1", amount=500),
        charge(id="ch_2", amount=70, paid=False),
        charge(id="ch_3", amount=6, captured=False),
    ]
    shape = intent(amount_received=None, charges={"data": made})
    assert fact(event(shape)).tells.received_minor == 500


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((("failed", True), ("succeeded", True)), "card"),
        (((None, False), (None, True)), "card"),
        ((("nobody_knows", True), ("pending", True)), "card"),
        ((("failed", True), ("pending", True)), "card"),
    ],
)
def test_of_two_attempts_in_one_second_the_one_that_went_further_counts(
    statuses: tuple[tuple[str | None, bool], ...], kind: str
) -> None:
    kinds = ("sepa_debit", "card")
    # By name alone the first would win.
    made = [
        charge(id=name, status=status, paid=paid, payment_method_details={"type": each})
        for name, (status, paid), each in zip(("ch_9", "ch_1"), statuses, kinds, strict=True)
    ]
    for some in (made, made[::-1]):
        method = fact(event(intent(charges={"data": some}))).tells.method
        assert method is not None
        assert method.type == kind


def test_an_attempt_without_a_charge_yields_to_one_of_the_same_second() -> None:
    error = {"code": "x", "payment_method": {"type": "sepa_debit"}}
    failed = fact(event(intent(last_payment_error=error, status="requires_payment_method")))
    pending = charge(created=CREATED + 9, status="pending", payment_method_details={"type": "card"})
    of_charge = fact(event({**pending, "id": "aa_1"}, "charge.pending"))
    assert state(join(failed.tells, of_charge.tells)).payment_method_type == "card"


def test_whose_word_on_whom_a_payment_is_of_counts() -> None:
    def invoiced(own: str | None, subscription: str | None, created: int) -> Fold:
        about = {"metadata": {"user_id": subscription} if subscription else {}}
        shape: Json = {"id": "in_1", "object": "invoice", "payment_intent": "pi_1"}
        shape |= {"metadata": {"user_id": own} if own else {}, "subscription_details": about}
        return fact(event(shape, "invoice.paid", created=created)).tells

    of_subscription = invoiced(None, USERS[0], CREATED + 40)
    of_invoice = invoiced(USERS[1], None, CREATED + 30)
    of_charge = fact(event(charge(metadata={"user_id": USERS[2]}), "charge.updated")).tells
    own = fact(event(intent(metadata={"user_id": USERS[3]}))).tells
    whole = fact(event(intent())).tells
    for told, named in (
        ((of_subscription,), 0),
        ((of_subscription, of_invoice), 1),
        ((of_subscription, of_invoice, of_charge), 2),
        ((of_subscription, of_invoice, of_charge, own), 3),
    ):
        joined = whole
        for each in told:
            joined = join(joined, each)
        assert str(state(joined).user_id) == USERS[named]


@pytest.mark.parametrize(
    ("amount", "currency", "withdrawn"),
    [
        (-500, "usd", {"txn_1": 500}),
        (500, "usd", {"txn_1": -500}),
        (-470, "eur", {"txn_1": 700}),
        (-1, "eur", {"txn_1": 700}),
        (470, "eur", {"txn_1": -700}),
        (1, "eur", {"txn_1": -700}),
        (0, "eur", {}),
    ],
)
def test_a_disputes_money_is_told_in_the_payments_currency(
    amount: int, currency: str, withdrawn: dict[str, int]
) -> None:
    shape: Json = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 700,
        "charge": "ch_1",
        "status": "lost",
    }
    shape |= {"created": CREATED, "currency": "usd", "payment_intent": "pi_1"}
    shape["balance_transactions"] = [booked(amount, currency)]
    told = fact(event(shape, "charge.dispute.closed", account="acct_1"))
    moved = told.tells.disputes["dp_1"].moved
    assert {name: each.amount_minor for name, each in moved.items()} == withdrawn
    assert (told.tells.account, told.charges) == ("acct_1", ("ch_1",))


def test_what_names_only_a_charge_does_not_say_whose_it_is() -> None:
    told = fact(event(refund(payment_intent=None, charge="ch_1"), "refund.created"))
    assert (told.payment, told.charge, told.charges) == (None, "ch_1", ())
    assert not told.is_answer
    assert fact(event(refund(), "refund.created", asked=ASKED_OF)).is_answer


def test_zeros_in_a_text_are_written_out_and_nothing_else_is_touched() -> None:
    for code, told in (("a\x00b", "a\\x00b"), ("ab", "ab")):
        shape = intent(status="requires_payment_method", last_payment_error={"code": code})
        [said] = fact(event(shape)).tells.told.values()
        assert said.snapshot.failure_code == told


def test_an_object_without_a_name_is_said_to_be_one() -> None:
    said = translate(event({"id": "x"}))
    assert said == Nothing("nothing of a payment's money is said by a nameless object")
    said = translate(event({"object": "tax_rate"}))
    assert said == Nothing("nothing of a payment's money is said by tax_rate")


def test_a_thin_event_asks_about_no_phase_that_it_cannot_know() -> None:
    thin = event({}, object="v2.core.event", related_object={"url": "/v1/charges/ch_1"})
    said = translate(thin)
    assert isinstance(said, Thin)
    assert (said.question.phase, said.question.second) == (0, CREATED + 9)


def answer(content: Json, second: int = 9) -> StripeFact:
    asked = {"phase": 0, "second": CREATED + second, "at": CREATED + second}
    return fact(event(content, asked=asked, id="farebox_1"))


OPEN = intent(status="requires_payment_method", amount_received=0)
LOST = Dispute((1, "evt_1", "lost"), {})


@pytest.mark.parametrize(
    ("known", "told", "detail"),
    [
        (None, answer(intent()), Difference("nothing is known of it here", True)),
        (
            Fold(refunds=fact(event(refund(), "refund.created")).tells.refunds),
            answer(intent()),
            Difference("nothing is known of it here", True),
        ),
        (fact(event(intent())).tells, answer(intent()), None),
        (
            replace(fact(event(intent())).tells, account="acct_1"),
            answer(intent()),
            Difference("it is of another account or mode here", False),
        ),
        (
            fact(event(intent())).tells,
            answer(OPEN),
            Difference("status: succeeded here, requires_payment_method at Stripe", False),
        ),
        # Of an earlier second it says nothing of what came since.
        (fact(event(intent())).tells, answer(OPEN, 8), None),
        (
            fact(event(OPEN)).tells,
            answer(intent(status="processing", amount_received=0), 10),
            Difference("status: requires_payment_method here, processing at Stripe", True),
        ),
        (
            fact(event(OPEN)).tells,
            answer(intent(), 8),
            Difference(
                "received_minor: 0 here, 2000 at Stripe;"
                " status: requires_payment_method here, succeeded at Stripe",
                True,
            ),
        ),
        (
            fact(event(intent())).tells,
            fact(event(refund(amount=5, status="pending"), asked=ASKED_OF)),
            Difference(
                "refund re_1: None here, pending at Stripe; refunded_minor: 0 here, 5 at Stripe",
                True,
            ),
        ),
        (
            fact(event(intent())).tells,
            replace(answer(intent()), tells=Fold(disputes={"dp_1": LOST})),
            Difference("dispute dp_1: None here, lost at Stripe", True),
        ),
        (
            fact(event(intent())).tells,
            answer(intent(latest_charge=charge(payment_method_details={"type": "card"}))),
            Difference("payment_method_type: None here, card at Stripe", True, is_detail=True),
        ),
    ],
)
def test_an_object_beside_what_is_known(
    known: Fold | None, told: StripeFact, detail: Difference | None
) -> None:
    assert difference(known, told) == detail
    if known is not None and detail is not None and detail.is_mendable and known.is_known:
        assert difference(merge(known, told), told) is None
