"""What changes while a period is being charged: prices, the subscription itself, and who else has it paid."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.payments.orders.drafts import Wish, create
from services.payments.orders.place import Order, place
from services.payments.orders.shapes import PaymentToCreate
from services.payments.renewals.attempts import attempt_due
from services.payments.renewals.due import open_due
from shared.trace import Cause
from tests.payments.renewals.conftest import World
from tests.payments.renewals.test_stories import PERIOD


async def test_a_price_published_between_writing_down_and_charging_is_not_charged_for_this_period(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    told = (await world.subscription(subscription))["total_minor"]
    world.clock.now = PERIOD[1]
    assert await open_due(world.payments, world.rules, world.now) == 1
    world.clock.later(3_600)
    await world.publish("30")
    await world.settle()
    row = await world.subscription(subscription)
    assert row["total_minor"] > told
    [fact] = await world.told(subscription)
    assert (fact["status"], fact["total_minor"]) == ("paid", told)
    # The next period costs what is told by then.
    await world.at(PERIOD[2])
    assert (await world.told(subscription))[-1]["total_minor"] == row["total_minor"]


async def test_a_cost_of_an_earlier_moment_told_before_the_charge_is_the_one_charged(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    # In force since before the period, announced by its rollout just after the renewal was written down.
    await world.publish("30", PERIOD[1] - timedelta(minutes=1))
    world.clock.now = PERIOD[1]
    assert await open_due(world.payments, world.rules, world.now) == 1
    roll_out, to_payments, *_ = world.steps()
    while await roll_out():
        await to_payments()
    await world.settle()
    [fact] = await world.told(subscription)
    row = await world.subscription(subscription)
    assert (fact["total_minor"], fact["price_version"]) == (row["total_minor"], 2)


async def test_an_amount_that_was_asked_for_stands_through_every_retry(world: World) -> None:
    user = await world.customer("insufficient_funds", "success")
    subscription = await world.subscribe(user)
    await world.at(PERIOD[1])
    [first] = await world.told(subscription)
    await world.publish("40")
    await world.settle()
    await world.pass_(days=1)
    last = (await world.told(subscription))[-1]
    assert (last["status"], last["total_minor"]) == ("recovered", first["total_minor"])
    assert last["cost_history_id"] == first["cost_history_id"]
    assert world.charges()[last["renewal_id"]] == [first["total_minor"]]


@pytest.mark.parametrize("action", ["cancel", "pause"])
async def test_who_leaves_while_past_due_is_charged_no_more(world: World, action: str) -> None:
    subscription = await world.subscribe(await world.customer("insufficient_funds", "success"))
    await world.at(PERIOD[1])
    await world.act(subscription, "cancel" if action == "cancel" else "pause")
    await world.settle()
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == "canceled"
    await world.pass_(days=40)
    assert str(renewal["id"]) not in world.charges()
    assert len(await world.renewals(subscription)) == 1


async def test_who_comes_back_is_charged_from_then_on(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.at(PERIOD[1] - timedelta(days=3))
    await world.act(subscription, "pause")
    await world.at(datetime(2026, 6, 30, 15, tzinfo=UTC))
    assert await world.renewals(subscription) == []
    await world.act(subscription, "resume")
    await world.settle()
    [renewal] = await world.renewals(subscription)
    assert (renewal["period_start"], renewal["period_end"]) == (
        world.now,
        datetime(2026, 7, 30, 15, tzinfo=UTC),
    )
    assert renewal["status"] == "paid"


async def test_an_order_that_stripe_never_saw_is_withdrawn_when_the_customer_leaves(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    world.clock.now = PERIOD[1]
    assert await open_due(world.payments, world.rules, world.now) == 1
    assert await attempt_due(world.payments, world.rules, world.now) == 1
    await world.act(subscription, "cancel")
    for step in world.steps()[1:4]:
        await step()
    await world.settle()
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == "canceled"
    assert str(renewal["id"]) not in world.charges()


async def test_a_storefront_that_bills_by_itself_is_not_billed_beside(world: World) -> None:
    subscription = await world.subscribe(await world.customer("insufficient_funds", "success"))
    await world.at(PERIOD[1])
    await world.by_storefront(
        subscription, f"period_start = '{PERIOD[1]}', period_end = '{PERIOD[2]}'"
    )
    await world.settle()
    await world.pass_(days=2)
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == "canceled"
    await world.at(PERIOD[2])
    assert [r["status"] for r in await world.renewals(subscription)] == ["canceled", "paid"]


async def order_period(
    world: World, subscription: UUID, start: datetime | None, **more: object
) -> Order:
    """As the API has a subscription's period paid."""
    row = await world.subscription(subscription)
    shown = {"amount_minor": row["total_minor"], "currency": "USD", "confirm": True}
    asked = {"payment_method": "pm_card_visa", "period_start": start, **shown, **more}
    async with world.payments.begin() as session:
        wish = Wish(uuid4(), "a key", Cause("test"), world.now)
        order = await create(session, wish, PaymentToCreate(subscription_id=subscription, **asked))
        assert await place(session, order, world.now)
    return order


def taken_for(world: World, subscription: UUID) -> int:
    return sum(
        intent["status"] == "succeeded"
        and intent["metadata"].get("subscription_id") == str(subscription)
        for intent in world.intents()
    )


async def test_a_period_paid_through_the_api_is_not_charged_again_and_begins(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    await order_period(world, subscription, PERIOD[1])
    await world.at(PERIOD[1])
    assert [fact["status"] for fact in await world.told(subscription)] == ["paid"]
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]
    assert taken_for(world, subscription) == 1


async def test_who_was_given_up_may_pay_through_the_api(world: World) -> None:
    subscription = await world.subscribe(await world.customer("stolen_card", "success"))
    await world.at(PERIOD[1])
    await world.pass_(days=3)
    await order_period(world, subscription, PERIOD[1])
    await world.settle()
    assert [f["status"] for f in await world.told(subscription)] == ["given_up", "recovered"]
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]
    assert taken_for(world, subscription) == 1


async def test_periods_from_before_renewals_were_switched_on_are_not_charged(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.at(datetime(2026, 1, 31, 10, tzinfo=UTC))
    world.clock.now = datetime(2026, 9, 15, tzinfo=UTC)
    await world.settle()
    [renewal] = await world.renewals(subscription)
    assert renewal["period_start"] == datetime(2026, 8, 31, 9, tzinfo=UTC)
    assert renewal["period_end"] == datetime(2026, 9, 30, 9, tzinfo=UTC)
