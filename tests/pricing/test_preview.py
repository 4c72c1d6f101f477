import json
import os
from uuid import UUID

import pytest

from services.pricing import preview
from services.pricing.domain import cost
from services.pricing.life import latest_preview, start_preview
from services.pricing.models import Preview
from services.pricing.totals import Totals, bucket_of
from shared.db import Sessions
from tests.pricing.conftest import DELIVERY, Shop, Ticking, decision, publish_config
from tests.pricing.crowd import (
    LONG_AGO,
    change,
    crowd,
    drafted,
    outcomes,
    previewed,
    roll_out,
)

DEARER: dict[str, object] = {"admin_percentage": "12.5"}
# FAREBOX_PREVIEW_SUBSCRIPTIONS=100000 takes minutes, and finds what a few hundred may not have.
COUNT = int(os.environ.get("FAREBOX_PREVIEW_SUBSCRIPTIONS", "250"))
ROWS = max(7, COUNT // 100)


async def preview_of(sessions: Sessions, version: int) -> Preview:
    async with sessions() as session:
        return await latest_preview(session, version)


async def test_the_result_is_what_the_preview_said_of_everybody_to_the_cent(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, LONG_AGO)
    ids = await crowd(shop, COUNT)
    run = shop.storefront.execute
    await run("UPDATE public.subscriptions SET variants = '[]' WHERE id = $1", ids[3])
    await run("UPDATE public.subscriptions SET delivery_address_id = NULL WHERE id = $1", ids[8])
    # Not heard yet: priced as the row says now, in the preview and in the rollout.
    await run(
        "UPDATE public.subscriptions SET loyalty_discount_minor = 99 WHERE id = ANY ($1)", ids[:3]
    )
    cancel = (
        "UPDATE public.subscriptions SET status = 'canceled', canceled_at = now() WHERE id = $1"
    )
    await run(cancel, ids[5])
    no_yen = {"delivery_cost_minor": {c: d for c, d in DELIVERY.items() if c != "JPY"}}
    named = {"variant_prices_minor": {"USD": {str(UUID(int=1)): 1_234}}}
    await run("INSERT INTO public.products (id, name) VALUES ($1, 'box')", UUID(int=1))
    await run(
        "INSERT INTO public.product_variants (id, product_id, name, price_minor, currency)"
        " VALUES ($1, $1, 'v', 1, 'USD')",
        UUID(int=1),
    )
    version = await change(sessions, clock, DEARER | no_yen | named, ROWS)
    await roll_out(sessions, clock, ROWS)

    wrong = await shop.storefront.fetch(
        """SELECT p.* FROM pricing.preview_items p
        FULL JOIN (SELECT * FROM pricing.rollout_items WHERE price_version = $1) r
            ON r.subscription_id = p.subscription_id
        JOIN public.subscriptions s ON s.id = coalesce(p.subscription_id, r.subscription_id)
        WHERE r.outcome IS DISTINCT FROM p.outcome OR r.code IS DISTINCT FROM p.code
            OR p.outcome = 'moved' AND s.total_minor IS DISTINCT FROM p.new_total_minor""",
        version,
    )
    assert wrong == []
    counted = await outcomes(shop, version)
    assert counted["excluded", "no_variants"] == counted["excluded", "no_delivery_address"] == 1
    assert counted["moved", None] > COUNT * 2 / 5
    assert counted["failed", "no_delivery_cost"] > COUNT / 12
    assert sum(counted.values()) == COUNT - 1
    totals = Totals.of((await preview_of(sessions, version)).totals)
    assert totals.outcomes["moved"] == counted["moved", None]


async def test_totals_say_who_pays_how_much_more_where(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, LONG_AGO)
    await crowd(shop, 60)
    gold = UUID(int=2)
    await shop.storefront.execute(
        "INSERT INTO pricing.user_tiers (user_id, tier, revision) VALUES ($1, 'gold', 1)", gold
    )
    cheaper_in_germany = {"tax_rates": {"DE": "0.07", "US-CA": "0.08", "US": "0", "JP": "0.1"}}
    version = await drafted(sessions, clock, cheaper_in_germany)
    await previewed(sessions, clock)

    found = await preview_of(sessions, version)
    totals = Totals.of(found.totals)
    rows = await shop.storefront.fetch(
        "SELECT currency, count(*), sum(old_total_minor) AS old, sum(new_total_minor) AS new,"
        " count(*) FILTER (WHERE new_total_minor > old_total_minor) AS rises,"
        " max(new_total_minor - old_total_minor) AS highest,"
        " min(new_total_minor - old_total_minor) AS lowest FROM pricing.preview_items GROUP BY 1"
    )
    for row in rows:
        sums = totals.by_currency[row["currency"]]
        assert (sums.count, sums.old_minor, sums.new_minor) == (
            row["count"],
            row["old"],
            row["new"],
        )
        assert sums.rises == row["rises"]
        assert sum(totals.histogram[row["currency"]].values()) == row["count"]
    assert found.counted == sum(row["count"] for row in rows) == 60
    by_currency = {row["currency"]: row for row in rows}
    assert totals.largest_rises["USD"][0].difference == by_currency["USD"]["highest"] > 0
    assert totals.largest_falls["EUR"][0].difference == by_currency["EUR"]["lowest"] < 0
    assert set(totals.by["place"]) == {"DE", "US-CA", "US-NY", "JP"}
    assert sum(sums.count for sums in totals.by["tier"]["gold"].values()) == 1
    assert sum(s.count for each in totals.by["delivery_type"].values() for s in each.values()) == 60


async def test_the_hash_is_of_the_content_however_it_was_walked(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, LONG_AGO)
    [first, *_] = await crowd(shop, 40)
    version = await drafted(sessions, clock, DEARER)
    hashes = []
    for rows in (7, 40, 1_000):
        await previewed(sessions, clock, rows)
        found = await preview_of(sessions, version)
        assert (found.status, len(found.hash or "")) == ("done", 64)
        hashes.append(found.hash)
        async with sessions.begin() as session:
            await start_preview(session, version, decision("ada", clock.now))
    assert len(set(hashes)) == 1
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET loyalty_discount_minor = 1 WHERE id = $1", first
    )
    await previewed(sessions, clock)
    assert (await preview_of(sessions, version)).hash not in hashes


async def test_a_preview_ends_where_sql_and_the_rule_disagree(
    shop: Shop, sessions: Sessions, clock: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish_config(sessions, LONG_AGO)
    await crowd(shop, 3)
    version = await drafted(sessions, clock, DEARER)
    # As if someone had changed the rule and forgotten SQL.
    monkeypatch.setattr(
        "services.pricing.campaign.cost",
        lambda *given: cost(*given).model_copy(update={"total_minor": 1}),
    )
    assert await preview.run_once(sessions, clock) == 1
    found = await preview_of(sessions, version)
    assert (found.status, "the rule 1" in (found.detail or "")) == ("failed", True)
    assert await preview.run_once(sessions, clock) == 0


async def test_who_never_had_a_price_is_in_the_totals_without_a_difference(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, LONG_AGO)
    await shop.subscription([(await shop.variant(1_000), 1)])
    version = await drafted(sessions, clock, DEARER)
    await previewed(sessions, clock)
    totals = (await preview_of(sessions, version)).totals
    assert totals["outcomes"]["moved"] == 1
    assert totals["by_currency"]["USD"]["new_minor"] == 1_743
    assert totals["histogram"] == {}
    assert json.dumps(totals["largest_rises"]) == "{}"


def test_a_bucket_begins_at_the_largest_step_reached() -> None:
    steps = (1, 2, 5, 10)
    found = {difference: bucket_of(difference, steps) for difference in (-99, -4, -1, 0, 1, 7)}
    assert found == {-99: -10, -4: -2, -1: -1, 0: 0, 1: 1, 7: 5}
