"""A Stripe that does not listen: orders stay open, somebody is told, and they go on once it does."""

from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
import stripe

from services.payments import gauges
from services.payments.gateway import StripeClient
from services.payments.gateway.away import bar_of
from services.payments.orders import held
from shared.db import Sessions
from tests.payments.conftest import Hands, Service
from tests.payments.orders_desk import Caller, adhoc, shop
from tests.payments.test_orders_work import (
    charged,
    client,
    creation,
    order_row,
    put,
    sessions,
    work_all,
)
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["client", "sandbox", "sessions", "shop"]


async def test_orders_wait_for_the_right_key_and_then_go_on_at_once(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    orders = [creation() for _ in range(3)]
    await put(sessions, hands, *orders)
    wrong = StripeClient("sk_live_of_somebody_else", sandbox.url)
    assert await work_all(service, wrong) == 0
    await wrong.close()
    for order in orders:
        row = await order_row(service, order.id)
        assert (row["status"], row["failure_code"]) == ("open", "api_key_refused")
        assert "Invalid API key" in str(row["last_error"])
        # Stripe was not asked for anything: who leaves now is not charged.
        assert (row["first_asked_at"], row["attempts"]) == (None, 0)
    counted = await gauges.count(sessions)
    assert (counted.open, counted.held) == (3, 3)
    assert await work_all(service, client) == 0, "before its time"
    # The worker is started anew, with the right key: one of them is tried, the others follow.
    await held.try_one_each(service.pool, hands)
    assert await work_all(service, client) == 3
    assert await charged(service, sandbox) == 3
    assert (await gauges.count(sessions)).held == 0


async def test_a_key_that_was_mended_at_stripe_is_noticed_by_itself(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    orders = [creation(), creation()]
    await put(sessions, hands, *orders)
    sandbox.control("POST", "outage", {"status": 403, "count": 3})
    assert await work_all(service, client) == 0
    assert (await order_row(service, orders[0].id))["failure_code"] == "permission_refused"
    hands.later(60)
    assert await work_all(service, client) == 0, "one is tried again, in vain"
    hands.later(1)
    assert await work_all(service, client) == 2, "the other not, and the first follows at once"
    assert await charged(service, sandbox) == 2


async def test_a_key_used_for_something_else_leads_to_what_it_was_used_for(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    """As when the database was restored from the day before, and the same order is placed again, a little otherwise."""
    before = creation()
    path, key = "/v1/payment_intents", f"farebox-{before.id}"
    made = orjson.loads(await client.post(path, before.parameters, key, None))
    await put(
        sessions, hands, replace(before, parameters={**before.parameters, "off_session": False})
    )
    assert await work_all(service, client) == 1
    row = await order_row(service, before.id)
    assert (row["status"], row["stripe_payment_id"]) == ("done", made["id"])
    assert await charged(service, sandbox) == 1


async def test_a_key_used_for_nobody_knows_what_is_held_and_told(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    order = creation()
    key = f"farebox-{order.id}"
    await client.post("/v1/payment_intents", {"amount": 999, "currency": "eur"}, key, None)
    await put(sessions, hands, order)
    assert await work_all(service, client) == 0
    row = await order_row(service, order.id)
    assert (row["status"], row["failure_code"]) == ("open", "idempotency_error")
    assert row["first_asked_at"] is not None, "it may have been done"
    # Stripe forgets the key in a day; the order is carried out then.
    hands.later(25 * 3_600)
    sandbox.control("POST", "clock", {"now": hands().timestamp() + 10**8})
    assert await work_all(service, client) == 1
    sandbox.control("POST", "clock", {"now": None})


async def test_a_caller_is_told_what_stands_in_the_way(shop: Caller) -> None:
    shop.sandbox.control("POST", "outage", {"status": 401, "count": 1})
    told = await shop.write("/payments", adhoc())
    assert (told.status_code, told.json()["failure_code"]) == (202, "api_key_refused")
    [listed] = (await shop.http.get("/orders", params={"status": "open"})).json()["items"]
    assert (listed["id"], listed["failure_code"]) == (told.json()["id"], "api_key_refused")
    shop.hands.later(61)
    assert await shop.work() == 1
    done = await shop.order(listed["id"])
    assert (done["status"], done["failure_code"], done["detail"]) == ("done", None, None)


async def test_a_confirmation_that_was_held_too_long_charges_nobody(shop: Caller) -> None:
    created = (await shop.write("/payments", adhoc())).json()
    shown = {"amount_minor": 9_000, "currency": "EUR", "payment_method": "pm_card_visa"}
    shop.sandbox.control("POST", "outage", {"status": 401, "count": 2})
    told = await shop.write(f"/payments/{created['payment_id']}/confirm", shown)
    assert told.json()["failure_code"] == "api_key_refused"
    shop.hands.later(2 * 3_600)
    while await shop.work() == 0:
        shop.hands.later(61)
    ended = await shop.order(told.json()["id"])
    assert (ended["status"], ended["failure_code"]) == ("refused", "confirmation_expired")


def test_an_object_of_the_other_mode_is_no_refusal() -> None:
    """In Stripe's own words, which the stand-in, of test mode alone, never has to say."""
    words = (
        "No such customer: 'cus_1'; a similar object exists in live mode, but a test mode key was"
        " used to make this request."
    )
    assert bar_of(refusal(words)) == "wrong_mode"
    assert bar_of(refusal("No such customer: 'cus_1'")) is None


def refusal(words: str) -> stripe.StripeError:
    body = {"error": {"type": "invalid_request_error", "message": words}}
    return stripe.InvalidRequestError(words, "customer", "resource_missing", None, 400, body)  # type: ignore[no-untyped-call]


async def test_stripe_says_when_to_come_again(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    order = creation()
    await put(sessions, hands, order)
    sandbox.control("POST", "outage", {"status": 429, "count": 1, "retry_after_seconds": 120})
    assert await work_all(service, client) == 0
    asked_again_at = (await order_row(service, order.id))["ask_after"]
    assert asked_again_at == hands() + timedelta(seconds=120)


async def test_nobody_is_charged_days_after_they_stood_before_the_screen(shop: Caller) -> None:
    shop.sandbox.control("POST", "outage", {"status": 500, "count": 2})
    asked = await shop.write("/payments", adhoc(confirm=True, payment_method="pm_card_visa"))
    assert asked.status_code == 202
    shop.hands.later(2 * 3_600)
    assert await shop.work() == 1
    ended = await shop.order(asked.json()["id"])
    assert (ended["status"], ended["failure_code"]) == ("refused", "confirmation_expired")
    assert await shop.service.payments() == {}


async def test_the_card_networks_advice_is_kept(
    service: Service,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
    sandbox: RunningSandbox,
) -> None:
    made = sandbox.control("POST", "customers", {"outcomes": ["call_issuer"]})
    order = creation(made["payment_method"], customer=made["customer"])
    await put(sessions, hands, order)
    assert await work_all(service, client) == 1
    row = await order_row(service, order.id)
    assert (row["failure_code"], row["advice_code"]) == ("call_issuer", "do_not_try_again")


@pytest.mark.parametrize("after_effect", [True, False])
async def test_a_500_that_stripe_keeps_is_looked_behind(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
    after_effect: bool,
) -> None:
    order = creation()
    await put(sessions, hands, order)
    kept = {"status": 500, "count": 1, "kept": True, "after_effect": after_effect}
    sandbox.control("POST", "outage", kept)
    # stripe-python itself asks twice: the second answer is a kept one already.
    assert await work_all(service, client) == int(after_effect)
    if not after_effect:
        hands.later(60)
        assert await work_all(service, client) == 0, "Stripe may still be at it"
        hands.later(600)
        assert await work_all(service, client) == 1
    assert (await order_row(service, order.id))["status"] == "done"
    assert await charged(service, sandbox) == 1


async def test_an_unanswered_refund_is_looked_for_after_some_attempts(shop: Caller) -> None:
    payment_id = await shop.paid()
    lost = {"status": 503, "count": 1_000, "method": "POST", "after_effect": True}
    shop.sandbox.control("POST", "outage", lost)
    asked = await shop.write(f"/payments/{payment_id}/refund", {"amount_minor": 6_000})
    assert asked.status_code == 202
    for _ in range(5):
        shop.hands.later(600)
        await shop.work()
    assert (await shop.order(asked.json()["id"]))["status"] == "done"
    assert (await shop.payment(payment_id))["refunded_minor"] == 6_000
    rest = await shop.write(f"/payments/{payment_id}/refund", {"amount_minor": 3_001})
    assert (rest.status_code, rest.json()["left_minor"]) == (409, 3_000)
