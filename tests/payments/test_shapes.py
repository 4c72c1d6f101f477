"""One story in the shape of every year since 2017 is one payment; two shapes of one event are one fact."""

from typing import Any

import orjson
import pytest

from services.payments.domain import Fold, Method, StripeFact, encode, join, state
from services.payments.gateway import Nothing, Thin, open_envelope, translate
from tests.payments.test_gateway import charge, event, fact, intent, listed, refund, without

Json = dict[str, Any]
USER = "11111111-1111-4111-8111-111111111111"
CARD = {"type": "card", "card": {"last4": "4242", "three_d_secure": None, "mandate": None}}
CHARGED = charge(payment_method_details=CARD, balance_transaction="txn_1", amount_captured=2_000)
PAID = intent(metadata={"user_id": USER})

# Each version's way of telling that pi_1 was paid with ch_1 and that 500 of it were given back.
VERSIONS: dict[str, list[tuple[str, Json]]] = {
    "2018-11-08": [
        (
            "payment_intent.succeeded",
            without(PAID, "latest_charge", "amount_capturable", "amount_received")
            | {"charges": listed(without(CHARGED, "amount_captured")), "invoice": "in_1"},
        ),
        (
            "charge.refunded",
            charge(refunds=listed(without(refund(), "payment_intent"))) | {"invoice": "in_1"},
        ),
        ("invoice.paid", {"object": "invoice", "id": "in_1", "payment_intent": "pi_1"}),
    ],
    "2020-08-27": [
        (
            "payment_intent.succeeded",
            without(PAID, "latest_charge") | {"charges": listed(CHARGED), "invoice": "in_1"},
        ),
        ("charge.refunded", CHARGED | {"refunds": listed(refund()), "amount_refunded": 500}),
    ],
    "2022-11-15": [
        ("payment_intent.succeeded", PAID | {"invoice": "in_1"}),
        ("charge.succeeded", CHARGED | {"invoice": "in_1"}),
        ("charge.refunded", CHARGED | {"amount_refunded": 500}),
        ("charge.refund.updated", refund()),
    ],
    "2025-03-31.basil": [
        ("payment_intent.succeeded", PAID),
        ("charge.succeeded", CHARGED),
        ("refund.created", refund()),
        (
            "invoice_payment.paid",
            {
                "object": "invoice_payment",
                "id": "inpay_1",
                "invoice": "in_1",
                "payment": {"type": "payment_intent", "payment_intent": "pi_1"},
            },
        ),
    ],
    "2026-08-26.dahlia": [
        ("payment_intent.succeeded", PAID),
        ("charge.updated", CHARGED),
        ("refund.updated", refund()),
        (
            "invoice.paid",
            {
                "object": "invoice",
                "id": "in_1",
                "payments": listed(
                    {
                        "object": "invoice_payment",
                        "payment": {"type": "payment_intent", "payment_intent": "pi_1"},
                    }
                ),
            },
        ),
    ],
}


def folded(version: str) -> Fold:
    result = Fold()
    for number, (kind, shape) in enumerate(VERSIONS[version]):
        body = event(shape, kind, id=f"evt_{number}", api_version=version)
        assert open_envelope(body).api_version == version
        result = join(result, fact(body).tells)
    return result


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_a_payment_is_the_same_in_every_version(version: str) -> None:
    read = state(folded(version))
    assert (read.status, read.amount_minor, read.received_minor) == ("succeeded", 2_000, 2_000)
    assert (read.refunded_minor, read.anomaly) == (500, None)
    assert (str(read.user_id), read.payment_method_type) == (USER, "card")
    assert (read.invoice_id, folded(version).unsettled) == ("in_1", {"txn_1": "ch_1"})


@pytest.mark.parametrize("older", sorted(VERSIONS))
@pytest.mark.parametrize("newer", sorted(VERSIONS))
def test_two_endpoints_of_two_versions_tell_of_one_payment(older: str, newer: str) -> None:
    one, other = folded(older), folded(newer)
    assert encode(join(one, other)) == encode(join(other, one))
    read = state(join(one, other))
    assert (read.received_minor, read.refunded_minor, read.anomaly) == (2_000, 500, None)
    assert read.invoice_id == "in_1"


def method_of(details: Json | None, **more: object) -> Method | None:
    return fact(
        event(charge(payment_method_details=details, **more), "charge.updated")
    ).tells.method


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, ""),
        ({"result": "authenticated", "version": "2.2.0"}, "authenticated"),
        ({"result": "exempted", "exemption_indicator": "low_risk"}, "exempted"),
        ({"result": None, "version": None}, ""),
        ({"authenticated": True, "succeeded": True, "version": "1.0.2"}, "authenticated"),
        ({"authenticated": False, "succeeded": True}, "attempt_acknowledged"),
        ({"authenticated": False, "succeeded": False}, "failed"),
        ({}, ""),
    ],
)
def test_how_3ds_ended_is_read_in_its_old_and_its_new_words(said: Json | None, meant: str) -> None:
    made = method_of({"type": "card", "card": {"three_d_secure": said}})
    assert made is not None
    assert made.three_d_secure == meant


@pytest.mark.parametrize("kind", ["sepa_debit", "bacs_debit", "acss_debit", "us_bank_account"])
def test_the_mandate_of_a_bank_debit_is_read_whichever_bank(kind: str) -> None:
    made = method_of({"type": kind, kind: {"mandate": "mandate_1", "last4": "3000"}})
    assert made is not None
    assert (made.type, made.mandate_id) == (kind, "mandate_1")
    whole = method_of({"type": kind, kind: {"mandate": {"id": "mandate_1", "object": "mandate"}}})
    assert whole == made


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"object": "card", "last4": "4242"}, "card"),
        ({"object": "source", "type": "sepa_debit"}, "sepa_debit"),
        ({"object": "bank_account"}, "bank_account"),
    ],
)
def test_a_source_of_2017_says_what_was_paid_with(source: Json, kind: str) -> None:
    made = method_of(None, source=source)
    assert made is not None
    assert made.type == kind
    assert method_of(None) is None


def test_a_customer_who_fails_3ds_is_told_without_a_charge() -> None:
    error = {
        "code": "payment_intent_authentication_failure",
        "type": "invalid_request_error",
        "payment_method": {"id": "pm_1", "object": "payment_method", "type": "card"},
    }
    shape = intent(status="requires_payment_method", latest_charge=None, last_payment_error=error)
    read = state(fact(event(shape, "payment_intent.payment_failed")).tells)
    assert (read.payment_method_type, read.three_d_secure) == ("card", "failed")
    with_charge = shape | {"last_payment_error": error | {"charge": "ch_1"}}
    assert fact(event(with_charge, "payment_intent.payment_failed")).tells.method is None


def test_the_issuers_own_reason_stands_beside_the_code() -> None:
    error = {"type": "card_error", "code": "card_declined", "decline_code": "do_not_honor"}
    failed = intent(status="requires_payment_method", last_payment_error=error)
    read = state(fact(event(failed)).tells)
    assert (read.failure_code, read.decline_code) == ("do_not_honor", "do_not_honor")
    coded = intent(status="canceled", last_payment_error={"code": "expired_card"})
    read = state(fact(event(coded)).tells)
    assert (read.failure_code, read.decline_code) == ("expired_card", None)
    assert state(fact(event(intent(last_payment_error=error))).tells).decline_code is None


@pytest.mark.parametrize(
    "shape",
    [
        intent(
            last_payment_error={"code": "x", "payment_method": "pm_1"},
            status="requires_payment_method",
        ),
        intent(
            last_payment_error={"code": "x", "source": "src_1"}, status="requires_payment_method"
        ),
        charge(source="src_1"),
        intent(metadata={"user_id": USER, "boxes": 3, "note": None}),
    ],
)
def test_an_id_in_place_of_a_detail_parks_no_money(shape: Json) -> None:
    read = fact(event(shape)).tells
    whole = {"last_payment_error": {"code": "x"}} if shape.get("last_payment_error") else {}
    plain = without(shape, "source") | whole
    told = shape.get("metadata", {})
    plain["metadata"] = {name: each for name, each in told.items() if isinstance(each, str)}
    assert encode(read) == encode(fact(event(plain)).tells)


REVIEW = {
    "object": "review",
    "id": "prv_1",
    "created": 5,
    "open": True,
    "reason": "rule",
    "charge": "ch_1",
    "payment_intent": "pi_1",
    "ip_address": "203.0.113.9",
}


def test_a_review_is_of_its_payment_or_of_its_charges() -> None:
    opened = fact(event(REVIEW, "review.opened"))
    closed = fact(event(REVIEW | {"open": False, "closed_reason": "approved"}, "review.closed"))
    assert (opened.payment, opened.charges) == ("pi_1", ("ch_1",))
    paid = fact(event(intent()))
    assert state(join(paid.tells, opened.tells)).review == "open"
    assert state(join(join(closed.tells, paid.tells), opened.tells)).review == "approved"
    of_charge = fact(event(without(REVIEW, "payment_intent"), "review.opened"))
    assert (of_charge.payment, of_charge.charge) == (None, "ch_1")
    nobodys = without(REVIEW, "payment_intent", "charge")
    assert isinstance(translate(event(nobodys, "review.opened")), Nothing)


INVOICE = {"object": "invoice", "id": "in_1"}


@pytest.mark.parametrize(
    ("shape", "payment", "charge_id"),
    [
        (INVOICE | {"payment_intent": "pi_1", "charge": "ch_1"}, "pi_1", "ch_1"),
        (INVOICE | {"payment_intent": intent(), "charge": None}, "pi_1", None),
        (INVOICE | {"charge": "ch_1"}, None, "ch_1"),
        (
            INVOICE | {"payments": listed({"payment": {"payment_intent": {"id": "pi_1"}}})},
            "pi_1",
            None,
        ),
    ],
)
def test_an_invoice_names_its_payment_in_every_version(
    shape: Json, payment: str | None, charge_id: str | None
) -> None:
    said = fact(event(shape, "invoice.paid"))
    assert (said.payment, said.charge) == (payment, charge_id)
    assert said.tells == Fold(invoice="in_1")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (INVOICE, "invoice.finalized"),
        (without(INVOICE, "id"), "invoice.upcoming"),
        (
            INVOICE | {"payments": listed(*({"payment": {"payment_intent": p}} for p in "ab"))},
            "invoice.paid",
        ),
        ({"object": "invoice_payment", "payment": {"type": "out_of_band"}}, "invoice_payment.paid"),
        ({"object": "subscription", "id": "sub_1"}, "customer.subscription.updated"),
        ({"object": "payout", "id": "po_1"}, "payout.paid"),
        ({"object": "customer", "id": "cus_1"}, "customer.created"),
        ({"object": "balance_transaction", "id": "t", "amount": 1, "created": 1, "currency": "usd",
          "type": "payout", "source": "po_1"}, "farebox.x"),
    ],
)  # fmt: skip
def test_what_changes_no_payment_is_left_alone_with_a_reason(shape: Json, kind: str) -> None:
    said = translate(event(shape, kind))
    assert isinstance(said, Nothing)
    assert said.reason


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"user_id": USER}},
        {"subscription_details": {"metadata": {"user_id": USER}}},
        {"parent": {"subscription_details": {"metadata": {"user_id": USER}}}},
        {"parent": {"subscription_details": {"metadata": None}}, "metadata": {"user_id": USER}},
    ],
)
def test_a_payment_of_stripes_own_billing_is_linked_by_its_invoice(more: Json) -> None:
    told = fact(event(INVOICE | {"payment_intent": "pi_1"} | more, "invoice.paid")).tells
    paid = fact(event(intent())).tells
    assert str(state(join(paid, told)).user_id) == USER
    other = "22222222-2222-4222-8222-222222222222"
    own = fact(event(intent(metadata={"user_id": other}))).tells
    assert str(state(join(own, told)).user_id) == other


@pytest.mark.parametrize(
    ("head", "account"),
    [
        ({}, None),
        ({"account": "acct_1"}, "acct_1"),
        ({"context": "acct_1"}, "acct_1"),
        ({"context": "org_1/acct_2"}, "acct_2"),
        ({"account": "acct_1", "context": "org_1/acct_2"}, "acct_1"),
    ],
)
def test_whose_account_it_is_about_is_in_either_place(head: Json, account: str | None) -> None:
    body = event(intent(), **head)
    assert open_envelope(body).account == account
    assert fact(body).tells.account == (account or "")
    thin = {
        "object": "v2.core.event",
        "id": "evt_1",
        "type": "t",
        "created": "2026-07-01T12:00:00Z",
        "related_object": {"url": "/v1/reviews/prv_1"},
        **head,
    }
    said = translate(orjson.dumps(thin))
    assert isinstance(said, Thin)
    assert said.question.account == account


def test_what_stripe_kept_is_told_by_its_answer_about_the_transaction() -> None:
    transaction = {
        "object": "balance_transaction",
        "id": "txn_1",
        "amount": 2_000,
        "created": 9,
        "currency": "usd",
        "fee": 88,
        "net": 1_912,
        "source": "ch_1",
        "type": "charge",
    }
    said = fact(event(transaction, "farebox.balance_transaction_retrieved"))
    assert (said.payment, said.charge) == (None, "ch_1")
    both = join(fact(event(intent())).tells, fact(event(CHARGED, "charge.updated")).tells)
    assert state(both).fee_minor is None
    read = state(join(both, said.tells))
    assert (read.fee_minor, read.net_minor) == (88, 1_912)
    # The same, expanded within the payment.
    whole = intent(latest_charge=CHARGED | {"balance_transaction": transaction})
    answered = fact(event(whole, asked={"phase": 2, "second": 5, "at": 9}))
    assert answered.charges == ("ch_1",)
    assert isinstance(answered, StripeFact)
    assert state(join(both, answered.tells)).net_minor == 1_912
