"""Stories of one subscription: what is charged, what is said, and what becomes of its period."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.events import derived_id
from tests.payments.renewals.conftest import World, pausing

PERIOD = [
    datetime(2026, 1, 31, 9, tzinfo=UTC),
    datetime(2026, 2, 28, 9, tzinfo=UTC),
    datetime(2026, 3, 31, 9, tzinfo=UTC),
    datetime(2026, 4, 30, 9, tzinfo=UTC),
]


async def test_a_period_is_charged_when_it_begins_and_begins_when_it_is_paid(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    await world.at(PERIOD[1] - timedelta(seconds=1))
    assert await world.renewals() == []
    await world.at(PERIOD[1])
    [renewal] = await world.renewals()
    row = await world.subscription(subscription)
    assert renewal["status"] == "paid"
    assert (row["period_start"], row["period_end"]) == (PERIOD[1], PERIOD[2])
    [intent] = [
        i for i in world.intents() if i["metadata"].get("farebox_renewal") == str(renewal["id"])
    ]
    assert intent["amount"] == renewal["total_minor"] == row["total_minor"]
    assert intent["metadata"]["price_version"] == str(row["price_version"])
    assert intent["metadata"]["cost_history_id"] == str(renewal["cost_history_id"])
    # Whoever forgot it, as a database that was restored, asks under the same key, and Stripe charges nobody again.
    assert renewal["order_id"] == derived_id("renewal order", renewal["id"], 1)
    assert [fact["status"] for fact in await world.told(subscription)] == ["paid"]
    await world.at(PERIOD[3] - timedelta(seconds=1))
    assert [r["period_start"] for r in await world.renewals()] == PERIOD[1:3]


async def test_a_refused_charge_is_tried_again_and_recovered(world: World) -> None:
    card = ("insufficient_funds", "insufficient_funds", "success")
    subscription = await world.subscribe(await world.customer(*card))
    await world.at(PERIOD[1])
    [renewal] = await world.renewals()
    assert (renewal["status"], renewal["failure_code"]) == ("past_due", "insufficient_funds")
    assert renewal["next_attempt_at"] == PERIOD[1] + timedelta(days=1)
    assert (await world.subscription(subscription))["period_end"] == PERIOD[1]
    await world.pass_(days=1)
    await world.pass_(days=1)
    assert [fact["status"] for fact in await world.told(subscription)] == ["past_due"] * 2
    await world.pass_(days=1)
    told = await world.told(subscription)
    assert [fact["status"] for fact in told] == ["past_due", "past_due", "recovered"]
    assert [fact["revision"] for fact in told] == [1, 2, 3]
    assert (told[-1]["attempts"], told[-1]["failure_code"]) == (3, None)
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]
    # Of its three payments one was paid and no other can be.
    own = [i for i in world.intents() if i["metadata"].get("farebox_renewal") == str(renewal["id"])]
    assert sorted(each["status"] for each in own) == ["canceled", "canceled", "succeeded"]


@pytest.mark.parametrize("pause", [False, True])
async def test_who_never_pays_is_given_up(world: World, pause: bool) -> None:
    if pause:
        pausing(world)
    subscription = await world.subscribe(await world.customer("do_not_honor"))
    for day in range(9):
        await world.at(PERIOD[1] + timedelta(days=day))
    told = await world.told(subscription)
    assert [fact["status"] for fact in told] == ["past_due"] * 4 + ["given_up"]
    assert (told[-1]["attempts"], told[-1]["pause"]) == (5, pause)
    row = await world.subscription(subscription)
    assert row["status"] == ("paused" if pause else "active")
    assert row["period_end"] == PERIOD[1]
    assert "succeeded" not in {
        i["status"]
        for i in world.intents()
        if i["metadata"].get("subscription_id") == str(subscription)
    }


async def test_a_hard_decline_stops_at_once(world: World) -> None:
    subscription = await world.subscribe(await world.customer("stolen_card", "success"))
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    assert (told["status"], told["failure_code"], told["attempts"]) == (
        "given_up",
        "stolen_card",
        1,
    )
    for day in range(1, 9):
        await world.at(PERIOD[1] + timedelta(days=day))
    assert len(await world.told(subscription)) == 1


async def test_an_expired_card_waits_for_another_one(world: World) -> None:
    user = await world.customer("expired_card", "success")
    subscription = await world.subscribe(user)
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    assert (told["status"], told["needs_new_method"], told["next_attempt_at"]) == (
        "past_due",
        True,
        None,
    )
    await world.pass_(days=5)
    assert len(await world.told(subscription)) == 1
    await world.give_card(user, "success")
    await world.settle()
    assert [fact["status"] for fact in await world.told(subscription)] == ["past_due", "recovered"]


async def test_without_a_method_it_waits_for_one_and_is_given_up_in_the_end(world: World) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    assert (told["status"], told["failure_code"], told["attempts"]) == (
        "past_due",
        "no_payment_method",
        0,
    )
    await world.pass_(days=7)
    assert (await world.told(subscription))[-1]["status"] == "given_up"
    # The period still runs: with a card it is charged after all, once.
    await world.give_card(user, "success")
    await world.settle()
    assert (await world.told(subscription))[-1]["status"] == "recovered"
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]


async def test_who_gives_a_card_long_after_begins_a_period_then(world: World) -> None:
    user = await world.customer("stolen_card")
    subscription = await world.subscribe(user)
    await world.at(PERIOD[1])
    await world.at(datetime(2026, 5, 10, 12, tzinfo=UTC))
    await world.give_card(user, "success")
    await world.settle()
    row = await world.subscription(subscription)
    assert row["period_start"] == world.now
    assert row["period_end"] == datetime(2026, 6, 10, 12, tzinfo=UTC)
    assert [r["status"] for r in await world.renewals()] == ["given_up", "paid"]


async def test_a_bank_that_wants_the_customer_gets_no_other_attempt(world: World) -> None:
    subscription = await world.subscribe(await world.customer("authentication_required"))
    await world.at(PERIOD[1])
    await world.pass_(days=6)
    [told] = await world.told(subscription)
    assert (told["failure_code"], told["next_attempt_at"]) == ("authentication_required", None)
    [renewal] = await world.renewals()
    # The customer comes and confirms that very payment.
    await world.client.post(
        f"/v1/payment_intents/{renewal['stripe_payment_id']}/confirm",
        {"payment_method": "pm_card_visa"},
        "by-the-customer",
        None,
    )
    await world.hear_stripe()
    assert (await world.told(subscription))[-1]["status"] == "recovered"
    assert len(world.charges()[str(renewal["id"])]) == 1


async def test_a_bank_debit_is_waited_for(world: World) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    await world.give_card(user, "pm_success_sepaDebit")
    await world.at(PERIOD[1])
    [renewal] = await world.renewals()
    assert renewal["status"] == "charging"
    await world.pass_(days=4)
    await world.hear_stripe()
    assert [fact["status"] for fact in await world.told(subscription)] == ["paid"]
    assert (await world.subscription(subscription))["period_end"] == PERIOD[2]


async def test_a_bank_debit_that_fails_is_past_due(world: World) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    await world.give_card(user, "pm_fail_sepaDebit")
    await world.at(PERIOD[1])
    await world.pass_(days=4)
    await world.hear_stripe()
    [told] = await world.told(subscription)
    assert told["status"] == "past_due"
    assert told["failure_code"]


async def test_nothing_to_pay_is_paid_without_stripe(world: World) -> None:
    subscription = await world.subscribe(await world.customer())
    await world.settle()
    await world.by_storefront(subscription, "loyalty_discount_minor = 100000")
    await world.settle()
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    assert (told["status"], told["total_minor"], told["attempts"]) == ("paid", 0, 0)
