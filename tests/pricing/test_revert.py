"""A version that takes another one back: each subscription it moved has its old cents, versions and unit prices again."""

import json
from datetime import timedelta
from uuid import UUID

from services.pricing.drafts import RevertDraft
from services.pricing.life import draft_revert, start_preview
from shared.db import Sessions
from shared.events import SubscriptionCostChanged
from tests.pricing.conftest import Shop, Ticking, decision, hear_storefront, publish_config
from tests.pricing.crowd import LONG_AGO, change, crowd, outcomes, previewed, published, roll_out

COSTS = "SELECT id, cost_breakdown, variants, total_minor FROM public.subscriptions ORDER BY id"


async def reverted(sessions: Sessions, clock: Ticking, version: int) -> int:
    """Drafted, previewed, approved, published and rolled out, an hour later."""
    clock.pass_(hours=1)
    async with sessions.begin() as session:
        draft = await draft_revert(session, version, RevertDraft(), decision("ada", clock.now))
        await start_preview(session, draft.version, decision("ada", clock.now))
        number = draft.version
    await previewed(sessions, clock)
    await published(sessions, clock, number)
    await roll_out(sessions, clock)
    return number


async def costs(shop: Shop) -> list[tuple[object, ...]]:
    return [
        (
            row["id"],
            json.loads(row["cost_breakdown"]),
            json.loads(row["variants"]),
            row["total_minor"],
        )
        for row in await shop.storefront.fetch(COSTS)
    ]


def priced_anew(costs: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows of earlier releases do not say yet what those of today do."""
    today = {"price_versions": [1], "tax_inclusive": False, "rounding_minor": 0}
    return [(i, today | dict(old), *rest) for i, old, *rest in costs]  # type: ignore[call-overload]


async def begin(shop: Shop, sessions: Sessions, clock: Ticking) -> list[UUID]:
    await publish_config(sessions, LONG_AGO)
    await roll_out(sessions, clock)
    ids = await crowd(shop, 12)
    await shop.storefront.execute(
        "INSERT INTO public.products (id, name) VALUES ($1, 'box')", UUID(int=1)
    )
    for number in (1, 2, 3):
        await shop.storefront.execute(
            "INSERT INTO public.product_variants (id, product_id, name, price_minor, currency)"
            " VALUES ($1, $2, 'v', 1, 'USD')",
            *(UUID(int=number), UUID(int=1)),
        )
    return ids


async def test_a_revert_gives_everybody_his_old_cents_and_unit_prices(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    before = await costs(shop)
    named = {currency: {str(UUID(int=1)): 4_321} for currency in ("USD", "EUR", "JPY")}
    version = await change(
        sessions, clock, {"admin_percentage": "20", "variant_prices_minor": named}
    )
    await roll_out(sessions, clock)
    assert [cost[3] for cost in await costs(shop)] != [cost[3] for cost in before]

    number = await reverted(sessions, clock, version)
    assert await costs(shop) == priced_anew(before)
    assert await outcomes(shop, number) == {("moved", "grandfathered"): 12}
    [*_, line] = await shop.history(UUID(int=1))
    assert (line["kind"], line["price_version"], line["effective_at"]) == (
        "revert",
        number,
        clock.now,
    )
    [*_, fact] = await shop.facts(SubscriptionCostChanged.type, UUID(int=1))
    assert SubscriptionCostChanged.model_validate_json(fact["body"]).kind == "config"


async def test_whom_the_reverted_version_never_moved_stays_where_he_is(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    before = await costs(shop)
    for percentage in ("20", "30"):
        kept = {"admin_percentage": percentage, "timing": {"when": "grandfathered"}}
        version = await change(sessions, clock, kept)
        await roll_out(sessions, clock)
        clock.pass_(days=1)
    number = await reverted(sessions, clock, version)
    assert await costs(shop) == before
    assert await outcomes(shop, number) == {("kept", "never_moved"): 12}
    # Nor does what he changes himself take him there.
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET loyalty_discount_minor = 7 WHERE id = $1", UUID(int=1)
    )
    await hear_storefront(shop, sessions)
    [*_, line] = await shop.history(UUID(int=1))
    assert (line["price_version"], line["kind"]) == (1, "discount")


async def test_a_cohort_s_revert_leaves_what_came_beside_it(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    cohort = await change(
        sessions,
        clock,
        {"scope": {"currencies": ["USD"]}, "delivery_cost_minor": {"USD": {"standard": 999}}},
    )
    await roll_out(sessions, clock)
    clock.pass_(days=1)
    base = await change(sessions, clock, {"admin_percentage": "20"})
    await roll_out(sessions, clock)
    on_both = await shop.storefront.fetchval(
        "SELECT count(*) FROM public.subscriptions WHERE cost_breakdown -> 'price_versions' = $1",
        json.dumps([base, cohort]),
    )
    number = await reverted(sessions, clock, cohort)
    assert (
        (await outcomes(shop, number))["moved", "grandfathered"]
        + ((await outcomes(shop, number)).get(("kept", "grandfathered"), 0))
        == on_both
        > 0
    )
    versions = await shop.storefront.fetch(
        "SELECT DISTINCT cost_breakdown ->> 'price_versions' FROM public.subscriptions"
    )
    assert [row[0] for row in versions] == [f"[{base}]"]


async def test_two_changes_previewed_before_either_came_are_both_carried_out(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    renews = clock.now + timedelta(days=5)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_start = $1, period_end = $2",
        *(renews - timedelta(days=28), renews),
    )
    later: dict[str, object] = {"timing": {"when": "next_renewal"}}
    base = await change(sessions, clock, {"admin_percentage": "20"} | later)
    await roll_out(sessions, clock)
    clock.pass_(days=1)
    cohort = await change(
        sessions,
        clock,
        {"scope": {"currencies": ["USD"]}, "delivery_cost_minor": {"USD": {"standard": 999}}}
        | later,
    )
    await roll_out(sessions, clock)
    clock.now = renews
    await roll_out(sessions, clock)
    assert await outcomes(shop, base) == {("moved", None): 12}
    assert {outcome for outcome, _ in await outcomes(shop, cohort)} <= {"moved", "kept"}


async def test_who_left_the_cohort_or_canceled_after_the_preview_is_excluded_by_name(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    cohort = {"scope": {"currencies": ["USD"]}, "delivery_cost_minor": {"USD": {"standard": 999}}}
    version = await change(sessions, clock, cohort)
    [moved_away, canceled, *rest] = await shop.storefront.fetch(
        "SELECT id FROM public.subscriptions WHERE currency = 'USD' ORDER BY id"
    )
    run = shop.storefront.execute
    await run("UPDATE public.subscriptions SET currency = 'EUR' WHERE id = $1", moved_away[0])
    cancel = (
        "UPDATE public.subscriptions SET status = 'canceled', canceled_at = now() WHERE id = $1"
    )
    await run(cancel, canceled[0])
    await roll_out(sessions, clock)
    found = await outcomes(shop, version)
    assert found.pop(("excluded", "left_scope")) == found.pop(("excluded", "canceled")) == 1
    assert sum(found.values()) == len(rest)


async def test_a_turn_that_was_put_off_is_waited_for(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    renews = clock.now + timedelta(days=5)
    await shop.storefront.execute("UPDATE public.subscriptions SET period_end = $1", renews)
    version = await change(
        sessions, clock, {"admin_percentage": "20", "timing": {"when": "next_renewal"}}
    )
    await roll_out(sessions, clock)
    put_off = renews + timedelta(days=10)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = $1 WHERE id = $2", put_off, UUID(int=1)
    )
    clock.now = renews
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 11, (None, None): 1}
    clock.now = put_off
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 12}
    [*_, line] = await shop.history(UUID(int=1))
    assert line["effective_at"] == put_off


async def test_a_revert_of_a_revert_raises_nobody_whom_the_first_version_never_moved(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    before = await costs(shop)
    version = await change(sessions, clock, {"admin_percentage": "20"})
    await roll_out(sessions, clock)
    dearer = await costs(shop)
    back = await reverted(sessions, clock, version)
    assert await costs(shop) == priced_anew(before)
    again = await reverted(sessions, clock, back)
    assert {outcome for outcome, _ in await outcomes(shop, again)} == {"kept"}
    assert [cost[3] for cost in await costs(shop)] == [cost[3] for cost in before] != dearer


async def test_a_line_that_came_under_the_reverted_price_is_offered_anew(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    named = {"USD": {str(UUID(int=1)): 5_000}}
    version = await change(sessions, clock, {"variant_prices_minor": named})
    await roll_out(sessions, clock)
    new = await shop.subscription([(UUID(int=1), 2)], created_at=clock.now)
    await hear_storefront(shop, sessions)
    assert json.loads((await shop.row(new))["variants"])[0]["unit_price_minor"] == 5_000
    await reverted(sessions, clock, version)
    assert json.loads((await shop.row(new))["variants"])[0]["unit_price_minor"] == 1


async def test_a_turn_that_comes_earlier_than_it_was_planned_is_not_missed(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begin(shop, sessions, clock)
    renews = clock.now + timedelta(days=300)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = $1, billing_interval = 'year'", renews
    )
    version = await change(
        sessions, clock, {"admin_percentage": "20", "timing": {"when": "next_renewal"}}
    )
    await roll_out(sessions, clock)
    earlier = clock.now + timedelta(days=3)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = $1, billing_interval = 'month' WHERE id = $2",
        *(earlier, UUID(int=1)),
    )
    clock.pass_(days=1)
    await hear_storefront(shop, sessions)
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {(None, None): 12}
    clock.now = earlier
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 1, (None, None): 11}
    [*_, line] = await shop.history(UUID(int=1))
    assert line["effective_at"] == earlier
