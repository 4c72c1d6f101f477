"""Stripe's bad days, as asked for: answers lost or garbled, events that never come to be, clocks that jump."""

import time
from typing import Any

import httpx
import pytest
import stripe

from tests.sandbox.conftest import START, Receiver, RunningSandbox

DAY_SECONDS = 86_400
CARD = "pm_card_visa"
AUTH = {"Authorization": "Bearer sk_test_sandbox"}


def pay(sandbox: RunningSandbox, key: str | None = None) -> stripe.PaymentIntent:
    params: Any = {"amount": 500, "currency": "usd", "payment_method": CARD, "confirm": True}
    options: Any = {"idempotency_key": key} if key else {}
    return sandbox.client().v1.payment_intents.create(params, options)


def payments(sandbox: RunningSandbox) -> set[str]:
    return set(sandbox.control("GET", "truth"))


@pytest.mark.parametrize("garbage", ["html", "truncated", "empty", "array", "bytes"])
def test_garbage_comes_with_a_200_and_the_effect_stands_if_asked_for(
    sandbox: RunningSandbox, garbage: str
) -> None:
    before = payments(sandbox)
    rule = {"status": "garbage", "garbage": garbage, "count": 2, "after_effect": True}
    sandbox.control("POST", "outage", {**rule, "method": "POST", "path": "^/v1/payment_intents$"})
    form = {"amount": "500", "currency": "usd"}
    answer = httpx.post(f"{sandbox.url}/v1/payment_intents", data=form, headers=AUTH)
    assert answer.status_code == 200
    try:
        told = answer.json()
    except ValueError:
        told = []
    assert told == []
    assert len(payments(sandbox) - before) == 1


@pytest.mark.parametrize("after_effect", [True, False])
def test_a_closed_connection_is_no_answer_whether_or_not_it_was_done(
    sandbox: RunningSandbox, after_effect: bool
) -> None:
    before = payments(sandbox)
    sandbox.control(
        "POST", "outage", {"status": "disconnect", "count": 1, "after_effect": after_effect}
    )
    with pytest.raises(stripe.APIConnectionError):
        pay(sandbox, f"lost-{after_effect}")
    assert len(payments(sandbox) - before) == int(after_effect)
    again = pay(sandbox, f"lost-{after_effect}")
    assert payments(sandbox) - before == {again.id}


def test_rules_choose_their_calls_and_let_some_pass_first(sandbox: RunningSandbox) -> None:
    refunds = {"status": 429, "count": 1, "skip": 1, "path": "/refunds", "retry_after_seconds": 7}
    busy = {"status": 409, "count": 1, "method": "GET", "path": "payment_intents/pi_"}
    sandbox.control("POST", "outages", {"outages": [refunds, busy]})
    client = sandbox.client().v1
    paid = pay(sandbox)

    client.refunds.list()
    with pytest.raises(stripe.RateLimitError) as limited:
        client.refunds.list()
    assert limited.value.headers is not None
    assert limited.value.headers["Retry-After"] == "7"
    client.refunds.list()
    with pytest.raises(stripe.StripeError) as in_use:
        client.payment_intents.retrieve(paid.id)
    assert in_use.value.http_status == 409
    left = sandbox.control("GET", "outages")["outages"]
    assert [(rule["count"], rule["skip"]) for rule in left] == [(0, 0), (0, 0)]


def test_a_key_is_forgotten_after_a_day_of_the_clock(sandbox: RunningSandbox) -> None:
    sandbox.control("POST", "clock", {"now": START})
    first = pay(sandbox, "a-day")
    sandbox.control("POST", "clock", {"now": START + DAY_SECONDS - 1})
    assert pay(sandbox, "a-day").id == first.id
    sandbox.control("POST", "clock", {"now": START + DAY_SECONDS})
    assert pay(sandbox, "a-day").id != first.id


def test_a_clock_stands_still_ticks_or_is_the_walls(sandbox: RunningSandbox) -> None:
    sandbox.control("POST", "clock", {"now": "2030-02-28T23:59:59Z"})
    assert pay(sandbox).created == pay(sandbox).created == 1_898_553_599
    ticking = sandbox.control("POST", "clock", {"now": START, "ticking": True})
    assert START <= ticking["now"] <= pay(sandbox).created < START + 60
    assert abs(sandbox.control("POST", "clock", {"now": None})["now"] - time.time()) < 5
    with pytest.raises(httpx.HTTPStatusError):
        sandbox.control("POST", "clock", {"now": "2030-02-28T23:59:59"})


def test_the_list_of_events_goes_back_as_far_as_told(sandbox: RunningSandbox) -> None:
    sandbox.control("POST", "clock", {"now": START + 300 * DAY_SECONDS})
    paid = pay(sandbox)
    last_day = {"now": START + 330 * DAY_SECONDS, "events_kept_days": 30}
    for late_seconds, seen in ((0, True), (1, False)):
        sandbox.control("POST", "clock", {**last_day, "now": last_day["now"] + late_seconds})
        listed = sandbox.client().v1.events.list({"limit": 100}).auto_paging_iter()
        told = {event.data.object.to_dict()["id"] for event in listed}
        assert (paid.id in told) == seen


def test_an_event_that_was_never_made_is_nowhere_and_its_effect_is_there(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_a"]}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    silence = {"fate": "never_made", "count": 1, "types": ["payment_intent.succeeded"]}
    sandbox.control("POST", "silence", silence)
    paid = pay(sandbox)
    sandbox.control("POST", "drain", {"timeout_seconds": 20})

    assert paid.status == "succeeded"
    told = {event["type"] for event in receiver.events}
    assert "charge.succeeded" in told
    assert "payment_intent.succeeded" not in told
    listed = sandbox.client().v1.events.list({"limit": 100}).auto_paging_iter()
    types = {each.type for each in listed if each.data.object.to_dict().get("id") == paid.id}
    assert types == {"payment_intent.created"}


def test_an_undelivered_event_is_in_the_list_alone(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_a"]}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    sandbox.control("POST", "silence", {"fate": "undelivered", "count": 1})
    asked = sandbox.client().v1.payment_intents.create({"amount": 900, "currency": "usd"})
    counts = sandbox.control("POST", "drain", {"timeout_seconds": 20})

    assert (receiver.bodies, counts["drained"]) == ([], True)
    missed = sandbox.client().v1.events.list({"delivery_success": False, "limit": 1}).data[0]
    assert (missed.type, missed.data.object.to_dict()["id"]) == ("payment_intent.created", asked.id)


def test_a_play_leaves_out_what_was_never_made_by_its_seed(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_a"]}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    asked = [{"amount_minor": 900, "currency": "USD", "lifecycle": "dispute_won"}] * 10
    faults = {"never_made": 0.3, "drop": 0.2}
    order = {"seed": 4, "start_at": START, "payments": asked, "faults": faults}
    played = sandbox.control("POST", "play", order)
    ids = {each["stripe_id"] for each in played["payments"]}
    sandbox.control("POST", "drain", {"timeout_seconds": 30})

    listed = {
        event.id
        for event in sandbox.client().v1.events.list({"limit": 100}).auto_paging_iter()
        if payment_of(event.to_dict()) in ids
    }
    delivered = {event["id"] for event in receiver.events}
    assert 0 < len(delivered) < len(listed) < played["events"]
    assert delivered < listed


def payment_of(event: Any) -> str:
    told = event["data"]["object"]
    return str(told.get("payment_intent", told["id"]))
