"""Periods that are paid through the API, moved by the storefront, or left: paid once, for what was said, to their end."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.payments.orders.periods import NoRunningPeriod, PeriodOrdered, UnknownPeriod
from services.payments.orders.place import Order
from services.payments.renewals import work
from tests.payments.renewals.conftest import World, pausing
from tests.payments.renewals.test_changes import order_period, taken_for
from tests.payments.renewals.test_stories import PERIOD


async def statuses(world: World, subscription: UUID) -> list[str]:
    return [fact["status"] for fact in await world.told(subscription)]


def metadata(order: Order) -> dict[str, str]:
    said = order.parameters["metadata"]
    assert isinstance(said, dict)
    return said


async def rests(world: World) -> bool:
    """Whether the renewals' worker has nothing more to do, and knows it."""
    turn = work.Renewals(world.pool, world.payments, world.rules, "test")
    return await work.run_once(turn, world.clock) == 0


@pytest.mark.parametrize(
    "off",
    [timedelta(days=10), timedelta(days=-4_000), timedelta(days=40_000), timedelta(seconds=2)],
)
async def test_only_a_period_of_its_own_is_paid(world: World, off: timedelta) -> None:
    subscription = await world.subscribe(await world.customer())
    await world.settle()
    with pytest.raises(UnknownPeriod) as refused:
        await order_period(world, subscription, PERIOD[1] + off)
    assert refused.value.data["period_starts"] == [each.isoformat() for each in PERIOD[:2]]


async def test_a_period_said_to_the_millisecond_is_the_same_period(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    order = await order_period(world, subscription, PERIOD[1] + timedelta(microseconds=999))
    assert metadata(order)["period_start"] == PERIOD[1].isoformat()
    with pytest.raises(PeriodOrdered):
        await order_period(world, subscription, PERIOD[1] - timedelta(microseconds=1))


async def test_who_is_given_up_pays_the_period_that_waits_and_not_the_one_before(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("stolen_card"))
    await world.at(PERIOD[1])
    assert await statuses(world, subscription) == ["given_up"]
    # Long after anybody would look for late payments.
    await world.at(PERIOD[1] + timedelta(days=100))
    await order_period(world, subscription, None)
    await world.settle()
    # The period that runs by now is due as well.
    assert await statuses(world, subscription) == ["given_up", "recovered", "given_up"]
    row = await world.subscription(subscription)
    assert (row["period_start"], row["period_end"]) == (PERIOD[1], PERIOD[2])
    assert await rests(world)


async def test_a_period_that_is_over_is_not_paid_by_default(world: World) -> None:
    subscription = await world.subscribe(await world.customer())
    await world.settle()
    world.clock.now = PERIOD[1]
    with pytest.raises(NoRunningPeriod):
        await order_period(world, subscription, None)


async def test_what_is_authorised_waits_for_its_capture(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    await order_period(world, subscription, PERIOD[1], capture="manual")
    await world.at(PERIOD[1])
    await world.pass_(days=3)
    [renewal] = await world.renewals(subscription)
    assert renewal["status"] == "charging"
    [intent] = [i for i in world.intents() if i["status"] == "requires_capture"]
    await world.client.post(f"/v1/payment_intents/{intent['id']}/capture", {}, "shop", None)
    await world.hear_stripe()
    assert await statuses(world, subscription) == ["paid"]
    assert taken_for(world, subscription) == 1


async def test_a_customer_who_types_another_card_is_not_interrupted(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    declined = "pm_card_chargeDeclined"
    order = await order_period(world, subscription, PERIOD[1], payment_method=declined)
    await world.at(PERIOD[1])
    await world.pass_(minutes=10)
    [renewal] = await world.renewals(subscription)
    assert (renewal["status"], renewal["order_id"]) == ("charging", order.id)
    [intent] = [i for i in world.intents() if i["metadata"].get("farebox_order") == str(order.id)]
    confirmed = {"payment_method": "pm_card_visa"}
    await world.client.post(f"/v1/payment_intents/{intent['id']}/confirm", confirmed, "c", None)
    await world.hear_stripe()
    assert await statuses(world, subscription) == ["paid"]
    assert taken_for(world, subscription) == 1


async def test_who_leaves_the_screen_is_charged_with_the_saved_card_a_day_later(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    await order_period(world, subscription, PERIOD[1], payment_method="pm_card_chargeDeclined")
    await world.at(PERIOD[1])
    await world.pass_(hours=25)
    assert await statuses(world, subscription) == ["past_due"]
    await world.pass_(days=1)
    assert await statuses(world, subscription) == ["past_due", "recovered"]
    assert taken_for(world, subscription) == 1


async def test_a_payment_made_ahead_keeps_what_the_customer_was_told(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    order = await order_period(world, subscription, PERIOD[1])
    await world.pass_(days=1)
    await world.publish("50")
    await world.settle()
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    said = metadata(order)
    assert (told["status"], told["total_minor"]) == ("paid", order.amount_minor)
    assert str(told["price_version"]) == said["price_version"] == "1"
    assert str(told["cost_history_id"]) == said["cost_history_id"]


async def test_a_period_whose_predecessor_was_prolonged_meanwhile_begins_and_goes_on(
    world: World,
) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    await world.give_card(user, "pm_success_sepaDebit")
    await world.at(PERIOD[1])
    await world.by_storefront(subscription, "period_end = period_end + interval '3 days'")
    await world.pass_(days=4)
    await world.hear_stripe()
    assert await statuses(world, subscription) == ["paid"]
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]
    await world.at(PERIOD[2] + timedelta(days=1))
    assert len(await world.renewals(subscription)) == 2


async def test_a_period_set_back_after_it_was_paid_holds_nobody_back_for_ever(
    world: World,
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.at(PERIOD[1])
    await world.by_storefront(subscription, f"period_end = '{PERIOD[1] + timedelta(days=3)}'")
    await world.at(PERIOD[2] - timedelta(days=1))
    assert len(await world.renewals(subscription)) == 1
    await world.at(PERIOD[2])
    starts = [renewal["period_start"] for renewal in await world.renewals(subscription)]
    assert starts == [PERIOD[1], PERIOD[2]]


@pytest.mark.parametrize("meanwhile", [None, "resume"])
async def test_who_was_paused_for_not_paying_and_pays_is_resumed(
    world: World, meanwhile: str | None
) -> None:
    pausing(world)
    subscription = await world.subscribe(await world.customer("stolen_card", "success"))
    await world.at(PERIOD[1])
    assert (await world.subscription(subscription))["status"] == "paused"
    if meanwhile:
        # Whoever paused it themselves since then stays paused.
        world.clock.later(60)
        await world.by_storefront(subscription, "status = 'active'")
        await world.by_storefront(subscription, "status = 'paused'")
        await world.settle()
    await order_period(world, subscription, PERIOD[1])
    await world.settle()
    row = await world.subscription(subscription)
    assert row["status"] == ("paused" if meanwhile else "active")
    assert row["period_end"] == PERIOD[2]


async def test_months_without_a_worker_are_not_charged_at_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.at(PERIOD[1])
    await world.at(datetime(2026, 7, 15, tzinfo=UTC))
    starts = [f"{r['period_start']:%m-%d}" for r in await world.renewals(subscription)]
    assert starts == ["02-28", "06-30"]
    assert "periods passed over" in capsys.readouterr().out


async def test_one_that_cannot_be_renewed_holds_up_nobody(world: World) -> None:
    bad = await world.subscribe(await world.customer("success"))
    good = await world.subscribe(await world.customer("success"))
    await world.settle()
    # As no fact could bring it any more: the end of time.
    await world.owner.execute(
        "UPDATE payments.billable_subscriptions SET period_start = NULL, period_end = '0001-01-02'"
        " WHERE subscription_id = $1",
        bad,
    )
    await world.at(PERIOD[1])
    assert await statuses(world, good) == ["paid"]
    assert await world.renewals(bad) == []


async def test_a_zero_time_is_no_period(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.by_storefront(
        subscription, "period_start = '0001-01-01 00:00:00+00', period_end = '0001-02-01'"
    )
    await world.at(PERIOD[1])
    assert await world.renewals(subscription) == []
    assert await rests(world)
