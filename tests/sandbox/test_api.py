"""Stripe's own client cannot tell the sandbox from Stripe, as far as the product calls it."""

import time

import pytest
import stripe

from tests.sandbox.conftest import RunningSandbox

CARD = "pm_card_visa"


def pay(sandbox: RunningSandbox, method: str = CARD, **more: object) -> stripe.PaymentIntent:
    params = {"amount": 5_000, "currency": "usd", "payment_method": method, "confirm": True}
    return sandbox.client().v1.payment_intents.create({**params, **more})  # type: ignore[typeddict-item]


def test_a_card_pays_at_once_and_keeps_its_metadata(sandbox: RunningSandbox) -> None:
    paid = pay(sandbox, metadata={"user_id": "u-1", "subscription_id": "s-1"})

    assert (paid.status, paid.amount_received, paid.currency) == ("succeeded", 5_000, "usd")
    assert paid.metadata.to_dict() == {"user_id": "u-1", "subscription_id": "s-1"}
    assert abs(paid.created - time.time()) < 60
    assert sandbox.client().v1.payment_intents.retrieve(paid.id) == paid


def test_fee_and_net_are_found_through_expansion(sandbox: RunningSandbox) -> None:
    expand = ["latest_charge.balance_transaction"]
    paid = pay(sandbox, expand=expand)

    assert isinstance(paid.latest_charge, stripe.Charge)
    booked = paid.latest_charge.balance_transaction
    assert isinstance(booked, stripe.BalanceTransaction)
    assert (booked.amount, booked.fee, booked.net) == (5_000, 175, 4_825)
    assert sandbox.client().v1.balance_transactions.retrieve(booked.id).fee == 175


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
    ],
)
def test_a_declined_card_is_a_card_error_and_the_intent_can_be_paid_with_another(
    sandbox: RunningSandbox, method: str, code: str, decline_code: str
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        pay(sandbox, method)

    assert (declined.value.http_status, declined.value.code) == (402, code)
    assert declined.value.error is not None
    intent = declined.value.error.payment_intent
    assert intent is not None
    truth = sandbox.control("GET", f"truth?stripe_id={intent.id}")
    assert (truth["status"], truth["failure_code"]) == ("requires_payment_method", decline_code)

    confirm = sandbox.client().v1.payment_intents.confirm
    assert confirm(intent.id, {"payment_method": CARD}).status == "succeeded"


def test_three_d_secure_waits_for_the_customer_and_off_session_declines(
    sandbox: RunningSandbox,
) -> None:
    waiting = pay(sandbox, "pm_card_threeDSecure2Required")
    assert (waiting.status, waiting.next_action is None) == ("requires_action", False)
    sandbox.control("POST", "advance", {"stripe_id": waiting.id, "action": "authenticate"})
    assert sandbox.client().v1.payment_intents.retrieve(waiting.id).status == "succeeded"

    with pytest.raises(stripe.CardError, match="authenticate"):
        pay(sandbox, "pm_card_threeDSecure2Required", off_session=True)


def test_a_bank_debit_is_processing_until_it_settles(sandbox: RunningSandbox) -> None:
    debit = pay(sandbox, "pm_sepaDebit")
    assert (debit.status, debit.amount_received) == ("processing", 0)
    sandbox.control("POST", "advance", {"stripe_id": debit.id, "action": "debit_fail"})
    failed = sandbox.client().v1.payment_intents.retrieve(debit.id)
    assert failed.status == "requires_payment_method"


def test_capture_in_part_releases_the_rest(sandbox: RunningSandbox) -> None:
    intents = sandbox.client().v1.payment_intents
    held = pay(sandbox, capture_method="manual")
    assert (held.status, held.amount_capturable) == ("requires_capture", 5_000)

    with pytest.raises(stripe.InvalidRequestError) as too_much:
        intents.capture(held.id, {"amount_to_capture": 5_001})
    assert too_much.value.code == "amount_too_large"
    taken = intents.capture(held.id, {"amount_to_capture": 3_000})
    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 3_000, 0)
    with pytest.raises(stripe.InvalidRequestError) as twice:
        intents.capture(held.id)
    assert twice.value.code == "payment_intent_unexpected_state"


def test_only_what_is_not_paid_can_be_canceled(sandbox: RunningSandbox) -> None:
    intents = sandbox.client().v1.payment_intents
    held = pay(sandbox, capture_method="manual")
    canceled = intents.cancel(held.id, {"cancellation_reason": "requested_by_customer"})
    assert (canceled.status, canceled.amount_capturable) == ("canceled", 0)
    with pytest.raises(stripe.InvalidRequestError):
        intents.cancel(pay(sandbox).id)


def test_no_more_is_refunded_than_was_received(sandbox: RunningSandbox) -> None:
    refunds = sandbox.client().v1.refunds
    paid = pay(sandbox)
    first = refunds.create({"payment_intent": paid.id, "amount": 3_000})
    assert (first.status, first.amount, first.payment_intent) == ("succeeded", 3_000, paid.id)
    with pytest.raises(stripe.InvalidRequestError) as too_much:
        refunds.create({"payment_intent": paid.id, "amount": 2_001})
    assert too_much.value.code == "amount_too_large"

    rest = refunds.create({"charge": str(paid.latest_charge)})
    assert rest.amount == 2_000
    with pytest.raises(stripe.InvalidRequestError) as again:
        refunds.create({"payment_intent": paid.id})
    assert again.value.code == "charge_already_refunded"
    listed = refunds.list({"payment_intent": paid.id})
    assert [each.id for each in listed.data] == [rest.id, first.id]


def test_what_a_dispute_holds_cannot_be_refunded_as_well(sandbox: RunningSandbox) -> None:
    refunds = sandbox.client().v1.refunds
    paid = pay(sandbox)
    disputed = {"stripe_id": paid.id, "action": "dispute", "amount_minor": 4_000}
    sandbox.control("POST", "advance", disputed)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refunds.create({"payment_intent": paid.id, "amount": 1_000})
    assert refused.value.code == "charge_disputed"
    [dispute] = sandbox.client().v1.disputes.list({"payment_intent": paid.id}).data
    assert [each.amount for each in dispute.balance_transactions] == [-4_000]

    sandbox.control("POST", "advance", {"stripe_id": paid.id, "action": "dispute_win"})
    assert refunds.create({"payment_intent": paid.id}).amount == 5_000


def test_a_pending_refund_can_be_canceled(sandbox: RunningSandbox) -> None:
    refunds = sandbox.client().v1.refunds
    made = refunds.create({"payment_intent": pay(sandbox, "pm_card_pendingRefund").id})
    assert made.status == "pending"
    assert refunds.cancel(made.id).status == "canceled"
    assert refunds.retrieve(made.id).status == "canceled"


def test_one_key_refunds_once(sandbox: RunningSandbox) -> None:
    refunds = sandbox.client().v1.refunds
    paid = pay(sandbox)
    asked: stripe.params.RefundCreateParams = {"payment_intent": paid.id, "amount": 1_000}

    first = refunds.create(asked, {"idempotency_key": f"refund-{paid.id}"})
    replayed = refunds.create(asked, {"idempotency_key": f"refund-{paid.id}"})

    assert replayed.id == first.id
    assert replayed.last_response is not None
    assert replayed.last_response.headers["Idempotent-Replayed"] == "true"
    assert sandbox.control("GET", f"truth?stripe_id={paid.id}")["refunded_minor"] == 1_000
    with pytest.raises(stripe.IdempotencyError) as other:
        refunds.create({**asked, "amount": 999}, {"idempotency_key": f"refund-{paid.id}"})
    assert other.value.http_status == 400


def test_a_declined_attempt_is_replayed_and_a_malformed_one_is_not(
    sandbox: RunningSandbox,
) -> None:
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            sandbox.client().v1.payment_intents.create(
                {
                    "amount": 700,
                    "currency": "usd",
                    "payment_method": "pm_card_chargeDeclined",
                    "confirm": True,
                },
                {"idempotency_key": "declined-once"},
            )
    assert declined.value.headers is not None
    assert declined.value.headers["Idempotent-Replayed"] == "true"

    key: stripe.RequestOptions = {"idempotency_key": "malformed-first"}
    intents = sandbox.client().v1.payment_intents
    with pytest.raises(stripe.InvalidRequestError):
        intents.create({"amount": 700, "currency": "zzz"}, key)
    assert intents.create({"amount": 700, "currency": "usd"}, key).amount == 700


def test_a_lost_answer_and_a_retry_with_its_key_refund_once(sandbox: RunningSandbox) -> None:
    paid = pay(sandbox)
    sandbox.control("POST", "outage", {"status": 500, "count": 1, "after_effect": True})

    made = sandbox.client(retries=2).v1.refunds.create({"payment_intent": paid.id, "amount": 900})

    assert made.amount == 900
    assert sandbox.control("GET", f"truth?stripe_id={paid.id}")["refunded_minor"] == 900


@pytest.mark.parametrize(
    ("status", "error"), [(500, stripe.APIError), (429, stripe.RateLimitError)]
)
def test_an_outage_fails_as_many_calls_as_asked(
    sandbox: RunningSandbox, status: int, error: type[stripe.StripeError]
) -> None:
    sandbox.control("POST", "outage", {"status": status, "count": 2})
    for _ in range(2):
        with pytest.raises(error):
            pay(sandbox)
    assert pay(sandbox).status == "succeeded"


def test_an_outage_may_leave_a_call_without_an_answer(sandbox: RunningSandbox) -> None:
    sandbox.control("POST", "outage", {"status": "timeout", "count": 1, "hang_seconds": 1.5})
    impatient = stripe.StripeClient(
        "sk_test_sandbox",
        base_addresses={"api": sandbox.url},
        http_client=stripe.RequestsClient(timeout=0.3),
        max_network_retries=0,
    )
    with pytest.raises(stripe.APIConnectionError):
        impatient.v1.payment_intents.list()


@pytest.mark.parametrize("key", ["sk_live_real", "nonsense"])
def test_only_test_keys_are_taken(sandbox: RunningSandbox, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError, match="stand-in"):
        sandbox.client(key).v1.payment_intents.list()


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({"amount": 0, "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 10**12, "currency": "usd"}, "amount_too_large", "amount"),
        ({"amount": 1.5, "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 100, "currency": "zzz"}, "parameter_invalid_string", "currency"),
        ({"amount": 1_005, "currency": "kwd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 100, "currency": "usd", "colour": "red"}, "parameter_unknown", "colour"),
        (
            {"amount": 100, "currency": "usd", "payment_method": "pm_nobody"},
            "resource_missing",
            "payment_method",
        ),
    ],
)
def test_a_malformed_payment_is_refused_by_name(
    sandbox: RunningSandbox, params: dict[str, object], code: str, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        sandbox.client().v1.payment_intents.create(params)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == (code, param)


def test_what_is_not_there_is_a_404(sandbox: RunningSandbox) -> None:
    client = sandbox.client().v1
    for get in (client.payment_intents, client.refunds, client.charges, client.disputes):
        with pytest.raises(stripe.InvalidRequestError) as missing:
            get.retrieve("nobody")
        assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


def test_every_event_is_listed_once_newest_first_whatever_the_page(
    sandbox: RunningSandbox,
) -> None:
    played = set(sandbox.play("dispute_won", "partial_refunds", "declined_then_succeeded", seed=77))
    client = sandbox.client().v1

    def about(event: stripe.Event) -> bool:
        told = event.data.object.to_dict()
        return told.get("payment_intent", told["id"]) in played

    pages = [
        [event for event in client.events.list({"limit": size}).auto_paging_iter() if about(event)]
        for size in (7, 100)
    ]
    assert [event.id for event in pages[0]] == [event.id for event in pages[1]]
    assert len({event.id for event in pages[0]}) == len(pages[0]) > 15
    assert [event.created for event in pages[0]] == sorted(
        (event.created for event in pages[0]), reverse=True
    )
    assert client.events.retrieve(pages[0][3].id) == pages[0][3]


def test_events_are_filtered_by_type_and_time_and_paged_backwards(sandbox: RunningSandbox) -> None:
    sandbox.play("full_refund", "dispute_lost", seed=78)
    events = sandbox.client().v1.events
    disputes = events.list({"type": "charge.dispute.*", "limit": 100}).data
    assert {event.type.rpartition(".")[0] for event in disputes} == {"charge.dispute"}
    two = events.list({"types": ["refund.created", "payment_intent.created"], "limit": 100}).data
    assert {event.type for event in two} == {"refund.created", "payment_intent.created"}
    late = events.list({"created": {"gte": two[0].created}, "limit": 100}).data
    assert late
    assert all(event.created >= two[0].created for event in late)

    newest = events.list({"limit": 6}).data
    before = events.list({"limit": 2, "ending_before": newest[5].id})
    assert [event.id for event in before.data] == [event.id for event in newest[3:5]]
    assert before.has_more


def test_a_charge_knows_its_refunds_and_a_payment_its_charges(sandbox: RunningSandbox) -> None:
    [refunded, declined] = sandbox.play("full_refund", "declined_then_succeeded", seed=79)
    client = sandbox.client().v1
    [charge] = client.charges.list({"payment_intent": refunded, "expand": ["data.refunds"]}).data
    assert (charge.amount_refunded, charge.refunded) == (9_000, True)
    assert charge.refunds is not None
    assert [each.amount for each in charge.refunds.data] == [9_000]
    charges = client.charges.list({"payment_intent": declined}).data
    assert charges[0].status == "succeeded"
    assert {each.status for each in charges[1:]} == {"failed"}
