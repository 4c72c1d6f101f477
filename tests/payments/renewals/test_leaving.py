"""Who left before a period began gets back what was charged because the news came late; whoever left later has paid."""

import pytest

from services.payments.renewals.attempts import attempt_due
from services.payments.renewals.due import open_due
from services.pricing.domain import Action
from tests.payments.renewals.conftest import World
from tests.payments.renewals.test_own_periods import rests, statuses
from tests.payments.renewals.test_stories import PERIOD


async def charge_before_the_news(world: World, *, until: str) -> None:
    """Everything but pricing's facts, as far as it comes: asked, or paid and told."""
    _, _, _, renew, order, fold, _ = world.steps()
    turns = (renew, order, fold) if until == "asked" else (renew, order, fold, renew)
    for turn in turns:
        while await turn():
            pass


@pytest.mark.parametrize("until", ["asked", "told"])
@pytest.mark.parametrize("action", ["cancel", "pause"])
async def test_who_left_before_the_period_began_gets_the_money_back(
    world: World, until: str, action: Action
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    await world.act(subscription, action)
    world.clock.later(60)
    await charge_before_the_news(world, until=until)
    await world.settle()
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == ("canceled" if until == "asked" else "paid")
    [payment] = await world.owner.fetch("SELECT * FROM payments.payment_intents")
    assert payment["received_minor"] == payment["refunded_minor"] == renewal["total_minor"]
    truth = world.sandbox.control("GET", "truth")[payment["stripe_id"]]
    assert truth["refunded_minor"] == renewal["total_minor"]
    assert await rests(world)
    await world.pass_(days=2)
    assert await world.owner.fetchval("SELECT count(*) FROM payments.stripe_orders") == 2


async def test_who_left_after_it_began_has_paid_for_it(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    assert await open_due(world.payments, world.rules, world.now) == 1
    assert await attempt_due(world.payments, world.rules, world.now) == 1
    _, _, _, _, order, _, _ = world.steps()
    assert await order() == 1
    world.clock.later(1)
    await world.act(subscription, "cancel")
    await world.settle()
    assert await statuses(world, subscription) == ["paid"]
    kinds = await world.owner.fetch("SELECT kind FROM payments.stripe_orders")
    assert [row["kind"] for row in kinds] == ["create"]


async def test_what_was_given_back_by_hand_is_not_given_back_twice(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    await world.act(subscription, "cancel")
    world.clock.later(60)
    await charge_before_the_news(world, until="asked")
    [payment] = await world.owner.fetch("SELECT * FROM payments.payment_intents")
    by_hand = {"payment_intent": payment["stripe_id"], "amount": 700}
    await world.client.post("/v1/refunds", by_hand, "by hand", None)
    await world.hear_stripe()
    *refused, refund = await world.owner.fetch(
        "SELECT * FROM payments.stripe_orders WHERE kind = 'refund' ORDER BY ended_at, status DESC"
    )
    assert {each["status"] for each in refused} <= {"refused"}
    assert (refund["status"], refund["amount_minor"]) == ("done", payment["received_minor"] - 700)
    truth = world.sandbox.control("GET", "truth")[payment["stripe_id"]]
    assert truth["refunded_minor"] == payment["received_minor"]


async def test_an_order_that_stripe_never_did_is_not_done_for_somebody_who_has_left(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    world.sandbox.control("POST", "clock", {"now": PERIOD[1].isoformat()})
    world.sandbox.control("POST", "outage", {"status": 503, "count": 2, "method": "POST"})
    await world.settle()
    world.clock.later(300)
    await world.act(subscription, "cancel")
    await world.settle()
    assert (await world.renewals(subscription))[0]["status"] == "charging"
    await world.pass_(minutes=15)
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == "canceled"
    assert world.intents() == []


async def test_an_order_that_stripe_did_is_found_though_its_customer_has_left(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    world.sandbox.control("POST", "clock", {"now": PERIOD[1].isoformat()})
    lost = {"status": 503, "count": 2, "method": "POST", "after_effect": True}
    world.sandbox.control("POST", "outage", lost)
    await world.settle()
    world.clock.later(300)
    await world.act(subscription, "cancel")
    await world.pass_(minutes=1)
    assert await statuses(world, subscription) == ["paid"]
    assert len(world.intents()) == 1
