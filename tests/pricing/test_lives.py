"""Subscriptions that live on while prices change: the real rollouts, the storefront's own changes between their steps."""

from datetime import datetime, timedelta
from uuid import UUID

from services.pricing.rollout import run_once
from shared.db import Sessions
from shared.events import CostBreakdown, SubscriptionCostChanged
from tests.pricing.conftest import START, Shop, Ticking, hear_storefront, publish_config

LONG_AGO = START - timedelta(days=3_000)
RENEWS = START + timedelta(days=20)
AT_RENEWAL: dict[str, object] = {"timing": {"when": "next_renewal"}}
DEARER: dict[str, object] = {"admin_percentage": "20"} | AT_RENEWAL
CALIFORNIANS: dict[str, object] = {
    "scope": {"places": ["US-CA"]},
    "delivery_cost_minor": {"USD": {"standard": 700}},
}
# 1,000 and its fee of 10 %, 500 for delivery, 7.25 % tax
AS_IT_WAS = 1_716
AT_20_PERCENT = 1_823


async def roll_out(sessions: Sessions, clock: Ticking) -> None:
    for _ in range(100):
        if not await run_once(sessions, clock):
            return
    raise AssertionError("the rollouts do not end")


async def subscribed(shop: Shop, sessions: Sessions, clock: Ticking, boxes: int = 1) -> list[UUID]:
    """Boxes of 1,000, priced by a first version that is everywhere, which renew at RENEWS."""
    await publish_config(sessions, LONG_AGO)
    coffee = await shop.variant(1_000)
    made = [await shop.subscription([(coffee, 1)]) for _ in range(boxes)]
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_start = $1, period_end = $2",
        *(RENEWS - timedelta(days=31), RENEWS),
    )
    await hear_storefront(shop, sessions)
    await roll_out(sessions, clock)
    return made


async def cost_of(shop: Shop, subscription: UUID) -> tuple[tuple[int, ...], int]:
    """The versions it is composed of, and its total; row, history and facts must say the same."""
    row = await shop.row(subscription)
    breakdown = CostBreakdown.model_validate_json(row["cost_breakdown"])
    [*_, line] = await shop.history(subscription)
    [*_, fact] = await shop.facts(SubscriptionCostChanged.type, subscription)
    told = SubscriptionCostChanged.model_validate_json(fact["body"])
    assert line["new_total_minor"] == told.new_total_minor == row["total_minor"]
    return breakdown.price_versions, breakdown.total_minor


async def items(shop: Shop, subscription: UUID) -> list[tuple[int, str | None, str | None]]:
    rows = await shop.storefront.fetch(
        "SELECT price_version, outcome, code FROM pricing.rollout_items WHERE subscription_id = $1"
        " ORDER BY price_version",
        subscription,
    )
    return [tuple(row) for row in rows]


async def effective(shop: Shop, subscription: UUID) -> list[tuple[int, datetime]]:
    lines = await shop.history(subscription)
    return [(line["price_version"], line["effective_at"]) for line in lines[1:]]


async def test_two_scopes_that_change_in_one_period_are_both_there_at_the_renewal(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    second = await publish_config(sessions, clock.now, DEARER)
    third = await publish_config(sessions, clock.pass_(days=1), CALIFORNIANS | AT_RENEWAL)
    await roll_out(sessions, clock)
    assert (await cost_of(shop, box))[1] == AS_IT_WAS

    clock.now = RENEWS - timedelta(minutes=30)
    await roll_out(sessions, clock)

    # 1,200 and 700 and the tax
    assert await cost_of(shop, box) == ((second, third), 2_038)
    assert await effective(shop, box) == [(second, RENEWS), (third, RENEWS)]
    assert [item[1] for item in await items(shop, box)][-2:] == ["moved", "moved"]


async def test_of_two_changes_for_one_renewal_the_newer_is_charged_and_the_older_says_why_not(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    second = await publish_config(sessions, clock.now, DEARER)
    await roll_out(sessions, clock)
    third = await publish_config(sessions, clock.pass_(days=1), DEARER | {"admin_percentage": "30"})
    await roll_out(sessions, clock)
    clock.now = RENEWS
    await roll_out(sessions, clock)
    # 1,300 and 500 and the tax
    assert await cost_of(shop, box) == ((third,), 1_930)
    assert await effective(shop, box) == [(third, RENEWS)]
    assert (await items(shop, box))[-2:] == [
        (second, "deferred", "replaced"),
        (third, "moved", None),
    ]


async def test_a_change_now_and_one_for_the_renewal_come_one_after_the_other(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    later = await publish_config(sessions, clock.now, CALIFORNIANS | AT_RENEWAL)
    at_once = clock.pass_(days=1)
    now = await publish_config(sessions, at_once, {"admin_percentage": "20"})
    await roll_out(sessions, clock)
    assert await cost_of(shop, box) == ((now,), AT_20_PERCENT)
    clock.now = RENEWS
    await roll_out(sessions, clock)
    assert await cost_of(shop, box) == ((now, later), 2_038)
    assert await effective(shop, box) == [(now, at_once), (later, RENEWS)]


async def test_who_signs_up_on_the_day_it_takes_effect_knows_no_other_price(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    second = await publish_config(
        sessions, clock.now, {"admin_percentage": "20", "timing": {"when": "grandfathered"}}
    )
    coffee = await shop.variant(1_000)
    moments = (clock.now - timedelta(microseconds=1), clock.now)
    before, there = [await shop.subscription([(coffee, 1)], created_at=m) for m in moments]
    await roll_out(sessions, clock)
    await hear_storefront(shop, sessions)
    await roll_out(sessions, clock)
    assert (await cost_of(shop, box))[1] == AS_IT_WAS
    assert await cost_of(shop, there) == ((second,), AT_20_PERCENT)
    # Never priced before it, it has no price to keep.
    assert await cost_of(shop, before) == ((second,), AT_20_PERCENT)


async def test_a_pause_over_the_change_ends_at_the_new_price(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    second = await publish_config(sessions, clock.now, DEARER)
    await roll_out(sessions, clock)
    await shop.storefront.execute("UPDATE public.subscriptions SET status = 'paused'")
    await hear_storefront(shop, sessions)
    assert (await cost_of(shop, box))[1] == AS_IT_WAS
    clock.now = RENEWS
    await roll_out(sessions, clock)
    await shop.storefront.execute("UPDATE public.subscriptions SET status = 'active'")
    await hear_storefront(shop, sessions)
    assert await cost_of(shop, box) == ((second,), AT_20_PERCENT)
    assert await effective(shop, box) == [(second, RENEWS)]


async def test_who_cancels_before_his_turn_is_excluded_and_costs_what_he_did(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    gone, there = await subscribed(shop, sessions, clock, boxes=2)
    second = await publish_config(sessions, clock.now, DEARER)
    await roll_out(sessions, clock)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET status = 'canceled', canceled_at = $1 WHERE id = $2",
        *(clock.now, gone),
    )
    await hear_storefront(shop, sessions)
    clock.now = RENEWS
    await roll_out(sessions, clock)
    assert (await items(shop, gone))[-1] == (second, "excluded", "canceled")
    assert (await cost_of(shop, gone))[1] == AS_IT_WAS
    assert await cost_of(shop, there) == ((second,), AT_20_PERCENT)


async def test_a_change_of_his_own_while_he_waits_is_at_the_old_price_and_his_turn_still_comes(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    first, _ = await cost_of(shop, box)
    second = await publish_config(sessions, clock.now, DEARER)
    await roll_out(sessions, clock)
    await shop.storefront.execute("UPDATE public.subscriptions SET delivery_type = 'pickup'")
    await hear_storefront(shop, sessions)
    # 1,100 and the tax, then 1,200
    assert await cost_of(shop, box) == (first, 1_180)
    clock.now = RENEWS
    await roll_out(sessions, clock)
    assert await cost_of(shop, box) == ((second,), 1_287)
    kinds = [line["kind"] for line in await shop.history(box)]
    assert kinds == ["created", "delivery", "config"]


async def test_what_was_grandfathered_until_a_day_moves_on_that_day(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [box] = await subscribed(shop, sessions, clock)
    day = START + timedelta(days=100)
    timing: dict[str, object] = {"timing": {"when": "grandfathered", "until": day.isoformat()}}
    second = await publish_config(sessions, clock.now, {"admin_percentage": "20"} | timing)
    for at, total in ((day - timedelta(seconds=1), AS_IT_WAS), (day, AT_20_PERCENT)):
        clock.now = at
        await roll_out(sessions, clock)
        assert (await cost_of(shop, box))[1] == total
    assert await effective(shop, box) == [(second, day)]
