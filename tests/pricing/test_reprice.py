"""What a customer's change or tier does to a price while rollouts are under way, on a real database."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.pricing.handlers import HANDLERS, OTHER_TIER
from shared.consumer import deliver
from shared.db import Sessions
from shared.events import CostBreakdown, SubscriptionCostChanged, TierChanged, TierName, derived_id
from tests.pricing.conftest import START, Shop, hear_storefront, publish_config

# The storefront's writes carry the database's own time; the first version must be in force before them.
LONG_AGO = START - timedelta(days=3_000)
LAST = UUID(int=2**128 - 1)


async def change_delivery(shop: Shop, sessions: Sessions, subscriptions: Sequence[UUID]) -> None:
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET delivery_type = 'pickup' WHERE id = ANY ($1)",
        subscriptions,
    )
    await hear_storefront(shop, sessions)


async def composition(
    shop: Shop, subscription: UUID, stamped: int | None = None
) -> tuple[int, ...]:
    row = await shop.row(subscription)
    breakdown = CostBreakdown.model_validate_json(row["cost_breakdown"])
    [*_, line] = await shop.history(subscription)
    assert row["price_version"] == (stamped or line["price_version"])
    assert CostBreakdown.model_validate_json(line["new_breakdown"]).variants == breakdown.variants
    return breakdown.price_versions


async def two_versions(shop: Shop, sessions: Sessions, boxes: int) -> tuple[int, int, list[UUID]]:
    """So many boxes priced by a first version, and a second that has begun its rollout."""
    first = await publish_config(sessions, LONG_AGO)
    coffee = await shop.variant(1_000)
    subscriptions = [await shop.subscription([(coffee, 1)]) for _ in range(boxes)]
    await hear_storefront(shop, sessions)
    second = await publish_config(sessions, datetime.now(UTC), {"admin_percentage": "20"})
    return first, second, subscriptions


# What the second version's rollout says of a box, and whether that holds it to the first.
ITEMS = (
    (None, None, True),
    ("deferred", "changed", True),
    ("deferred", "canceled", True),
    ("kept", "grandfathered", True),
    ("kept", "not_told", True),
    ("kept", None, False),
    ("excluded", None, False),
    ("failed", None, False),
    ("moved", None, False),
)


async def test_a_change_moves_whom_no_rollout_holds(shop: Shop, sessions: Sessions) -> None:
    first, second, subscriptions = await two_versions(shop, sessions, len(ITEMS))
    await shop.storefront.execute(
        "UPDATE pricing.rollouts SET status = 'running', listed_to = $1 WHERE price_version = $2",
        *(LAST, second),
    )
    await shop.storefront.executemany(
        "INSERT INTO pricing.rollout_items (price_version, subscription_id, outcome, code)"
        " VALUES ($1, $2, $3, $4)",
        [(second, each, *item[:2]) for each, item in zip(subscriptions, ITEMS, strict=True)],
    )

    await change_delivery(shop, sessions, subscriptions)

    found = [await composition(shop, each) for each in subscriptions]
    assert found == [(first,) if held else (second,) for *_, held in ITEMS]
    # 1,000 and its fee, no delivery, California's tax
    totals = [(await shop.row(each))["total_minor"] for each in subscriptions]
    assert totals == [1_180 if held else 1_287 for *_, held in ITEMS]
    [*_, line] = await shop.history(subscriptions[0])
    assert (line["kind"], line["changed_by"]) == ("delivery", "storefront")


@pytest.mark.parametrize("status", ["listing", "paused", "stopped", "canceled"])
async def test_a_rollout_holds_whom_its_walk_has_not_come_to(
    shop: Shop, sessions: Sessions, status: str
) -> None:
    first, second, subscriptions = await two_versions(shop, sessions, 3)
    passed, before, new = sorted(subscriptions)
    await shop.storefront.execute(
        "UPDATE pricing.rollouts SET status = $1, listed_to = $2 WHERE price_version = $3",
        *(status, passed, second),
    )
    # Signed up at the very instant it took effect: it never was on another price.
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET created_at ="
        " (SELECT effective_from FROM pricing.pricing_configs WHERE version = $1) WHERE id = $2",
        *(second, new),
    )

    await change_delivery(shop, sessions, subscriptions)

    found = [await composition(shop, each) for each in (passed, before, new)]
    assert found == [(second,), (first,), (second,)]


async def test_a_rollout_that_is_done_holds_nobody(shop: Shop, sessions: Sessions) -> None:
    _, second, [subscription] = await two_versions(shop, sessions, 1)
    await shop.storefront.execute("UPDATE pricing.rollouts SET status = 'done', listed_to = NULL")
    await change_delivery(shop, sessions, [subscription])
    assert await composition(shop, subscription) == (second,)


async def test_a_version_that_changes_no_cent_of_a_box_is_noted_without_a_line(
    shop: Shop, sessions: Sessions
) -> None:
    await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    before = await shop.row(subscription)
    rates = {"DE": "0.07", "US-CA": "0.0725"}
    second = await publish_config(sessions, datetime.now(UTC), {"tax_rates": rates})
    # As if its rollout had left the box out; then something else about it changes.
    await shop.storefront.execute("UPDATE pricing.rollouts SET status = 'done'")
    await shop.storefront.execute("UPDATE public.subscriptions SET status = 'paused'")
    await hear_storefront(shop, sessions)

    after = await shop.row(subscription)
    assert (after["price_version"], await composition(shop, subscription, second)) == (
        second,
        (second,),
    )
    assert (after["total_minor"], after["variants"]) == (before["total_minor"], before["variants"])
    assert len(await shop.history(subscription)) == 1
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1


def climbed(user: UUID, revision: int, tier: TierName) -> TierChanged:
    return TierChanged(
        id=derived_id("test", "tier", user, revision),
        occurred_at=START + timedelta(days=revision),
        customer_id=user,
        revision=revision,
        old_tier="bronze",
        new_tier=tier,
        points_12_months=0,
    )


async def test_a_tiers_prices_come_and_go_with_the_tier(shop: Shop, sessions: Sessions) -> None:
    everything = await publish_config(sessions, LONG_AGO)
    coffee = await shop.variant(1_000)
    gold = await publish_config(
        sessions,
        LONG_AGO + timedelta(days=1),
        {
            "scope": {"tiers": ["gold", "platinum"]},
            "admin_percentage": "5",
            "variant_prices_minor": {"USD": {str(coffee): 800}},
        },
    )
    hers, his = [await shop.subscription([(coffee, 1)]) for _ in range(2)]
    await hear_storefront(shop, sessions)
    user = (await shop.row(hers))["user_id"]
    assert await composition(shop, hers) == (everything,)

    up = climbed(user, 3, "gold")
    await deliver(sessions, "pricing", HANDLERS, [up, climbed(user, 2, "silver")])
    row = await shop.row(hers)
    assert await composition(shop, hers) == (everything, gold)
    # 800 and 5 %, 500 for delivery, California's tax
    assert (row["total_minor"], row["price_version"]) == (1_437, gold)
    [_, line] = await shop.history(hers)
    assert (line["kind"], line["changed_by"], line["reason"], line["cause_id"]) == (
        *("config", "loyalty", OTHER_TIER),
        str(up.id),
    )
    # Older news, the same news, and another tier of the same prices change nothing.
    for fact in (climbed(user, 1, "bronze"), climbed(user, 4, "platinum")):
        await deliver(sessions, "pricing", HANDLERS, [fact])
    assert await shop.row(hers) == row

    await deliver(sessions, "pricing", HANDLERS, [climbed(user, 5, "silver")])
    row = await shop.row(hers)
    assert await composition(shop, hers) == (everything,)
    assert (row["total_minor"], row["price_version"]) == (1_716, everything)
    assert len(await shop.facts(SubscriptionCostChanged.type, hers)) == 3
    assert len(await shop.history(his)) == 1


async def test_a_tier_nobody_asks_for_is_remembered_all_the_same(
    shop: Shop, sessions: Sessions
) -> None:
    await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    priced = await shop.row(subscription)
    await deliver(sessions, "pricing", HANDLERS, [climbed(priced["user_id"], 1, "gold")])
    assert await shop.row(subscription) == priced
    kept = await shop.storefront.fetchrow("SELECT * FROM pricing.user_tiers")
    assert tuple(kept) == (priced["user_id"], "gold", 1)
