import json
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.pricing.domain import NoTaxRate
from services.pricing.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions
from shared.events import CostBreakdown, PointsChanged, SubscriptionCostChanged, derived_id
from tests.pricing.conftest import START, Shop, hear_storefront, publish_config

# The storefront's writes carry the database's own time; the version must be in force before them.
LONG_AGO = START - timedelta(days=3_000)


async def test_the_storefronts_insert_is_priced_by_the_version_in_force(
    shop: Shop, sessions: Sessions
) -> None:
    version = await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_999), 2)])

    [fact] = await hear_storefront(shop, sessions)

    row = await shop.row(subscription)
    assert (row["total_minor"], row["tax_minor"], row["price_version"]) == (5_253, 355, version)
    assert (row["delivery_cost_minor"], str(row["tax_rate_applied"])) == (500, "0.072500")
    assert row["variants_changed_at"] is not None
    assert [line["unit_price_minor"] for line in json.loads(row["variants"])] == [1_999]
    [line] = await shop.history(subscription)
    assert (line["kind"], line["changed_by"], line["cause_id"]) == (
        "created",
        "storefront",
        str(fact.id),
    )
    assert (line["old_breakdown"], line["new_total_minor"]) == (None, 5_253)
    [said] = await shop.facts(SubscriptionCostChanged.type)
    told = SubscriptionCostChanged.model_validate_json(said["body"])
    assert told.new_breakdown == CostBreakdown.model_validate_json(row["cost_breakdown"])
    assert (told.revision, told.cost_history_id, told.kind) == (2, line["id"], "created")
    assert said["cause"] == str(fact.id)


async def test_a_cost_that_matches_already_is_left_alone(shop: Shop, sessions: Sessions) -> None:
    await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_999), 2)])
    await hear_storefront(shop, sessions)
    # Pause and resume say the subscription changed; its price did not.
    for status in ("paused", "active"):
        await shop.storefront.execute(
            "UPDATE public.subscriptions SET status = $1 WHERE id = $2", status, subscription
        )
    facts = await hear_storefront(shop, sessions)

    assert len(facts) == 3
    assert len(await shop.history(subscription)) == 1
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1


async def test_lines_rewritten_without_prices_keep_what_they_were_priced_at(
    shop: Shop, sessions: Sessions
) -> None:
    await publish_config(sessions, LONG_AGO)
    variant = await shop.variant(1_999)
    subscription = await shop.subscription([(variant, 2)])
    await hear_storefront(shop, sessions)
    priced = await shop.row(subscription)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET variants = jsonb_build_array((variants -> 0) - 'unit_price_minor')"
    )
    facts = await hear_storefront(shop, sessions)
    assert len(facts) == 2
    assert await shop.row(subscription) == priced
    assert len(await shop.history(subscription)) == 1


async def test_a_fact_delivered_again_prices_once(shop: Shop, sessions: Sessions) -> None:
    await publish_config(sessions, LONG_AGO)
    await shop.subscription([(await shop.variant(1_999), 2)])
    await hear_storefront(shop, sessions)
    await hear_storefront(shop, sessions)
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1


@pytest.mark.parametrize(
    ("change", "kind", "total"),
    [
        ("delivery_type = 'express'", "delivery", 6_326),
        ("loyalty_discount_minor = 898", "discount", 4_290),
        ("variants = jsonb_set(variants, '{0,quantity}', '1')", "variants", 2_895),
        (
            "variants = jsonb_set(variants, '{0}', (variants -> 0) - 'unit_price_minor')",
            "variants",
            5_253 + 215,
        ),
    ],
)
async def test_the_storefronts_update_is_priced_and_named(
    shop: Shop, sessions: Sessions, change: str, kind: str, total: int
) -> None:
    await publish_config(sessions, LONG_AGO)
    variant = await shop.variant(1_999)
    subscription = await shop.subscription([(variant, 2)])
    await hear_storefront(shop, sessions)
    await shop.storefront.execute(
        "UPDATE public.product_variants SET price_minor = 2090 WHERE id = $1", variant
    )
    await shop.storefront.execute(
        f"UPDATE public.subscriptions SET {change} WHERE id = $1", subscription
    )
    await hear_storefront(shop, sessions)

    first, second = await shop.history(subscription)
    assert (second["kind"], second["new_total_minor"]) == (kind, total)
    assert second["old_breakdown"] == first["new_breakdown"]
    revisions = await shop.storefront.fetch(
        "SELECT (payload ->> 'revision')::int AS r FROM pricing.outbox"
        " WHERE payload ->> 'subscription_id' = $1 ORDER BY 1",
        str(subscription),
    )
    assert [r["r"] for r in revisions] == [1, 2, 3, 4]


async def test_several_facts_of_one_subscription_in_a_batch_make_one_change(
    shop: Shop, sessions: Sessions
) -> None:
    await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET delivery_type = 'pickup' WHERE id = $1", subscription
    )
    facts = await hear_storefront(shop, sessions)
    [line] = await shop.history(subscription)
    assert (line["new_total_minor"], line["cause_id"]) == (1_180, str(facts[-1].id))


@pytest.mark.parametrize(
    "state",
    ["status = 'canceled', canceled_at = now()", "variants = '[]'", "delivery_type = NULL"],
)
async def test_what_cannot_be_priced_yet_is_left_alone(
    shop: Shop, sessions: Sessions, state: str
) -> None:
    await publish_config(sessions, LONG_AGO)
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await shop.storefront.execute(
        f"UPDATE public.subscriptions SET {state} WHERE id = $1", subscription
    )
    await hear_storefront(shop, sessions)
    assert (await shop.row(subscription))["total_minor"] is None


async def test_without_a_version_in_force_nothing_is_priced(shop: Shop, sessions: Sessions) -> None:
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    assert (await shop.row(subscription))["total_minor"] is None


async def test_a_place_without_a_rate_is_refused_and_says_which(
    shop: Shop, sessions: Sessions
) -> None:
    await publish_config(sessions, LONG_AGO)
    await shop.subscription([(await shop.variant(1_000, "EUR"), 1)], currency="EUR", place="FR")
    with pytest.raises(NoTaxRate, match="FR"):
        await hear_storefront(shop, sessions)


def points(subscription: UUID, customer: UUID, revision: int, total: int) -> PointsChanged:
    return PointsChanged(
        id=derived_id("test", customer, revision),
        occurred_at=START,
        customer_id=customer,
        revision=revision,
        payment_id=uuid4(),
        payment_revision=1,
        subscription_id=subscription,
        points=total,
        balance_points=total,
        subscription_points=total,
        rule="test",
    )


async def test_points_earned_are_noted_and_an_older_state_changes_nothing(
    shop: Shop, sessions: Sessions
) -> None:
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    customer = (await shop.row(subscription))["user_id"]
    noted = []
    for revisions in ([(1, 10), (2, 25)], [(2, 25)], [(1, 10)], [(3, 0)]):
        facts = [points(subscription, customer, revision, total) for revision, total in revisions]
        async with sessions.begin() as session:
            await HANDLERS[PointsChanged](session, facts)
        noted.append((await shop.row(subscription))["loyalty_points_earned"])
    assert noted == [25, 25, 25, 0]


async def test_points_of_no_subscription_are_nobodys(shop: Shop, sessions: Sessions) -> None:
    fact = points(uuid4(), uuid4(), 1, 10).model_copy(update={"subscription_id": None})
    await deliver(sessions, "pricing", HANDLERS, [fact])
