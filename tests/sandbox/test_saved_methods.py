"""Customers are charged off-session with what they saved, and every outcome is one that was chosen."""

from typing import Any

import httpx
import pytest
import stripe

from tests.sandbox.conftest import START, RunningSandbox

DAY_SECONDS = 86_400


def saved(sandbox: RunningSandbox, *outcomes: str) -> dict[str, str]:
    named: dict[str, str] = sandbox.control("POST", "customers", {"outcomes": list(outcomes)})
    return named


def charge(sandbox: RunningSandbox, who: dict[str, str], **more: object) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 1_900,
        "currency": "eur",
        "confirm": True,
        "off_session": True,
        **who,
        **more,
    }
    return sandbox.client().v1.payment_intents.create(params)


def truth(sandbox: RunningSandbox, intent: stripe.PaymentIntent) -> Any:
    return sandbox.control("GET", f"truth?stripe_id={intent.id}&details=true")


@pytest.mark.parametrize(
    ("outcome", "code", "decline_code"),
    [
        ("insufficient_funds", "card_declined", "insufficient_funds"),
        ("lost_card", "card_declined", "lost_card"),
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("expired_card", "expired_card", "expired_card"),
        ("incorrect_number", "incorrect_number", "incorrect_number"),
        ("processing_error", "processing_error", None),
        ("authentication_required", "authentication_required", "authentication_required"),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_charge_off_session_ends_as_the_saved_method_says(
    sandbox: RunningSandbox, outcome: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as declined:
        charge(sandbox, saved(sandbox, outcome), metadata={"user_id": "u"})

    assert declined.value.error is not None
    intent = declined.value.error.payment_intent
    assert intent is not None
    assert (declined.value.http_status, declined.value.code) == (402, code)
    assert intent.status == "requires_payment_method"
    assert intent.metadata.to_dict() == {"user_id": "u"}
    assert truth(sandbox, intent)["decline_code"] == decline_code


def test_outcomes_are_taken_one_after_another_and_the_last_one_stays(
    sandbox: RunningSandbox,
) -> None:
    who = saved(sandbox, "insufficient_funds", "success")
    with pytest.raises(stripe.CardError):
        charge(sandbox, who)
    assert [charge(sandbox, who).status for _ in range(2)] == ["succeeded", "succeeded"]

    again = sandbox.control(
        "POST", "customers", {"customer": who["customer"], "outcomes": ["lost_card"]}
    )
    assert again == who
    with pytest.raises(stripe.CardError):
        charge(sandbox, who)


def test_a_saved_method_is_its_customers_alone(sandbox: RunningSandbox) -> None:
    mine, other = saved(sandbox, "success"), saved(sandbox, "success")
    for customer in ({"customer": other["customer"]}, {}):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            charge(sandbox, {"payment_method": mine["payment_method"], **customer})
        assert refused.value.param == "payment_method"
    with pytest.raises(stripe.InvalidRequestError) as nobody:
        charge(sandbox, {**mine, "customer": "cus_nobody"})
    assert (nobody.value.code, nobody.value.param) == ("resource_missing", "customer")


def test_a_token_attached_to_a_customer_becomes_a_method_of_its_own(
    sandbox: RunningSandbox,
) -> None:
    client = sandbox.client().v1
    customer = client.customers.create({"metadata": {"user_id": "u-9"}})
    method = client.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    assert (method.customer, method.type) == (customer.id, "card")
    client.customers.update(
        customer.id, {"invoice_settings": {"default_payment_method": method.id}}
    )
    found = client.customers.retrieve(customer.id)
    assert found.invoice_settings is not None
    assert found.invoice_settings.default_payment_method == method.id
    listed = client.customers.payment_methods.list(customer.id).data
    assert [each.id for each in listed] == [method.id]

    paid = charge(sandbox, {"customer": customer.id, "payment_method": method.id})
    assert (paid.status, paid.customer) == ("succeeded", customer.id)
    client.payment_methods.detach(method.id)
    with pytest.raises(stripe.InvalidRequestError):
        charge(sandbox, {"customer": customer.id, "payment_method": method.id})


@pytest.mark.parametrize(
    ("outcome", "status", "received"),
    [("sepa_debit", "succeeded", 1_900), ("sepa_debit_fails", "requires_payment_method", 0)],
)
def test_a_saved_bank_debit_settles_by_itself_when_its_days_are_over(
    sandbox: RunningSandbox, outcome: str, status: str, received: int
) -> None:
    sandbox.control("POST", "clock", {"now": START})
    debit = charge(sandbox, saved(sandbox, outcome))
    told = truth(sandbox, debit)
    assert (told["status"], told["payment_method_type"]) == ("processing", "sepa_debit")
    assert told["mandate_id"].startswith("mandate_")

    sandbox.control("POST", "clock", {"now": START + 3 * DAY_SECONDS - 1})
    assert truth(sandbox, debit)["status"] == "processing"
    sandbox.control("POST", "clock", {"now": START + 30 * DAY_SECONDS})
    settled = truth(sandbox, debit)
    assert (settled["status"], settled["received_minor"]) == (status, received)
    then = {"created": START + 3 * DAY_SECONDS, "limit": 100}
    told_then = sandbox.client().v1.events.list(then).data  # type: ignore[arg-type]
    assert debit.id in {event.data.object.to_dict()["id"] for event in told_then}


def test_a_refund_to_the_card_for_it_fails_some_days_later(sandbox: RunningSandbox) -> None:
    sandbox.control("POST", "clock", {"now": START})
    who = {"payment_method": "pm_card_refundFail"}
    paid = charge(sandbox, who)
    made = sandbox.client().v1.refunds.create({"payment_intent": paid.id})
    assert made.status == "succeeded"
    sandbox.control("POST", "clock", {"now": START + 5 * DAY_SECONDS})
    assert sandbox.client().v1.refunds.retrieve(made.id).status == "failed"
    assert truth(sandbox, paid)["refunded_minor"] == 0


def test_an_unknown_outcome_or_customer_is_refused(sandbox: RunningSandbox) -> None:
    for body, status in (
        ({"outcomes": ["luck"]}, 422),
        ({"outcomes": ["success", "pm_card_chargeDeclinedBadLuck"]}, 422),
        ({"outcomes": ["success"], "customer": "cus_nobody"}, 404),
    ):
        answer = httpx.post(f"{sandbox.url}/_sandbox/customers", json=body)
        assert answer.status_code == status


def test_a_payment_can_be_changed_until_it_is_final_and_no_event_tells_of_it(
    sandbox: RunningSandbox,
) -> None:
    intents = sandbox.client().v1.payment_intents
    asked = intents.create({"amount": 500, "currency": "usd", "metadata": {"a": "1", "b": "2"}})
    before = sandbox.client().v1.events.list({"limit": 1}).data[0].id

    changed = intents.update(asked.id, {"amount": 700, "metadata": {"b": "", "c": "3"}})

    assert (changed.amount, changed.metadata.to_dict()) == (700, {"a": "1", "c": "3"})
    assert sandbox.client().v1.events.list({"limit": 1}).data[0].id == before
    intents.confirm(asked.id, {"payment_method": "pm_card_visa"})
    with pytest.raises(stripe.InvalidRequestError) as final:
        intents.update(asked.id, {"amount": 800})
    assert final.value.code == "payment_intent_unexpected_state"
