"""A rollout held to its preview, and an operator's hand on it; whatever happens, everybody ends with an outcome."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from services.pricing import preview
from services.pricing.domain import cost
from services.pricing.models import Rollout
from services.pricing.operating import (
    Progress,
    RolloutNotInThisState,
    apply_deferred,
    cancel,
    pause,
    progress,
    resume,
    retry_failed,
)
from services.pricing.rollout import Memory, run_once
from shared.db import Sessions
from tests.conftest import Database
from tests.pricing.conftest import (
    DELIVERY,
    Shop,
    Ticking,
    decision,
    hear_storefront,
    publish_config,
)
from tests.pricing.crowd import (
    LONG_AGO,
    change,
    crowd,
    drafted,
    outcomes,
    previewed,
    published,
    roll_out,
)

DEARER: dict[str, object] = {"admin_percentage": "12.5"}
TOUCH = "UPDATE public.subscriptions SET loyalty_discount_minor = loyalty_discount_minor + 1 WHERE id = $1"


async def held(shop: Shop, sessions: Sessions, clock: Ticking, count: int = 30) -> int:
    """`count` subscriptions at version 1, and a published version that has moved nobody yet."""
    await begun(shop, sessions, clock, count)
    return await change(sessions, clock, DEARER)


async def begun(shop: Shop, sessions: Sessions, clock: Ticking, count: int) -> list[UUID]:
    """`count` subscriptions at version 1, whose own rollout is over."""
    await publish_config(sessions, LONG_AGO)
    await roll_out(sessions, clock)
    return await crowd(shop, count)


async def now_of(sessions: Sessions, version: int, now: datetime) -> Progress:
    async with sessions() as session:
        return await progress(session, version, now)


async def do(
    sessions: Sessions, clock: Ticking, step: Callable[..., Awaitable[object]], version: int
) -> object:
    async with sessions.begin() as session:
        return await step(session, version, decision("olga", clock.now, "looked at it"))


async def another_box_for_the_same_money(shop: Shop, subscription: UUID) -> None:
    row = await shop.row(subscription)
    [line, *rest] = json.loads(row["variants"])
    twin = await shop.variant(line["unit_price_minor"], row["currency"])
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET variants = $2 WHERE id = $1",
        *(subscription, json.dumps([line | {"variant_id": str(twin)}, *rest])),
    )


async def test_who_changed_since_the_preview_is_set_aside_until_somebody_says_so(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    ids = await begun(shop, sessions, clock, 30)
    version = await drafted(sessions, clock, DEARER)
    await previewed(sessions, clock)
    await shop.storefront.execute(TOUCH, ids[0])
    await hear_storefront(shop, sessions)  # priced again, at its old version
    await shop.storefront.execute(TOUCH, ids[1])
    await another_box_for_the_same_money(shop, ids[2])
    new = await shop.subscription([(await shop.variant(700), 1)], created_at=LONG_AGO)
    await hear_storefront(shop, sessions)
    await published(sessions, clock, version)
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {
        ("moved", None): 27,
        ("deferred", "changed"): 3,
        ("deferred", "new_since_preview"): 1,
    }
    assert (await now_of(sessions, version, clock.now)).drifted == 3
    assert (await shop.row(new))["price_version"] == 1

    later = clock.pass_(hours=1)
    assert await do(sessions, clock, apply_deferred, version) == 4
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 27, ("moved", "accepted"): 4}
    assert (await shop.row(new))["price_version"] == version
    for applied in (new, *ids[:3]):
        [*_, line] = await shop.history(applied)
        assert (line["effective_at"], line["changed_by"], line["reason"]) == (
            later,
            "olga",
            "looked at it",
        )


async def test_more_drift_than_the_limit_stops_it_and_an_operator_lets_it_go_on(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    version = await held(shop, sessions, clock)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET loyalty_discount_minor = loyalty_discount_minor + 1"
    )
    await roll_out(sessions, clock)
    stopped = await now_of(sessions, version, clock.now)
    assert (stopped.status, stopped.drifted, stopped.drift_limit) == ("stopped", 14, 10)
    assert stopped.detail == "14 results are not the approved ones; the limit is 10"
    assert (stopped.listed, stopped.outcomes["moved"]) == (14, 0)

    await do(sessions, clock, resume, version)
    await roll_out(sessions, clock)
    again = await now_of(sessions, version, clock.now)
    assert (again.status, again.drifted, again.drift_limit) == ("stopped", 28, 24)
    await do(sessions, clock, resume, version)
    await roll_out(sessions, clock)
    assert (await now_of(sessions, version, clock.now)).status == "done"
    assert await outcomes(shop, version) == {("deferred", "changed"): 30}


async def test_it_is_paused_and_goes_on_where_it_was(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    version = await held(shop, sessions, clock)
    await run_once(sessions, clock, 7)
    await do(sessions, clock, pause, version)
    assert await roll_out(sessions, clock) == 0
    paused = await now_of(sessions, version, clock.now)
    assert (paused.status, paused.outcomes["moved"], paused.detail) == ("paused", 7, "looked at it")
    with pytest.raises(RolloutNotInThisState, match="cannot pause it: the rollout is paused"):
        await do(sessions, clock, pause, version)
    await do(sessions, clock, resume, version)
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 30}
    actions = await shop.storefront.fetch(
        "SELECT action, decided_by FROM pricing.decisions WHERE action LIKE 'rollout %' ORDER BY id"
    )
    assert [tuple(row) for row in actions] == [
        ("rollout paused", "olga"),
        ("rollout resumed", "olga"),
    ]


@pytest.mark.parametrize("timing", ["now", "next_renewal"])
async def test_whom_a_canceled_rollout_had_not_come_to_keeps_his_price(
    shop: Shop, sessions: Sessions, clock: Ticking, timing: str
) -> None:
    await begun(shop, sessions, clock, 30)
    version = await change(sessions, clock, DEARER | {"timing": {"when": timing}})
    await run_once(sessions, clock, 7)
    await do(sessions, clock, cancel, version)
    await roll_out(sessions, clock)
    found = await now_of(sessions, version, clock.now)
    assert found.status == "canceled"
    assert found.finished_at == clock.now
    moved = {("moved", None): 7} if timing == "now" else {}
    assert await outcomes(shop, version) == moved | {("deferred", "canceled"): 30 - len(moved) * 7}
    assert (
        await shop.storefront.fetchval(
            "SELECT count(*) FROM public.subscriptions WHERE price_version = 1"
        )
        == 30 - len(moved) * 7
    )


async def test_what_failed_is_tried_again_when_it_can_be_priced(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 20)
    no_yen = {"delivery_cost_minor": {c: d for c, d in DELIVERY.items() if c != "JPY"}}
    version = await change(sessions, clock, DEARER | no_yen)
    await roll_out(sessions, clock)
    failed = (await outcomes(shop, version))["failed", "no_delivery_cost"]
    assert await do(sessions, clock, retry_failed, version) == failed > 0
    await roll_out(sessions, clock)
    assert (await outcomes(shop, version))["failed", "no_delivery_cost"] == failed
    # They are sent on from elsewhere now, and pay in another currency.
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET currency = 'USD' WHERE currency = 'JPY'"
    )
    await shop.storefront.execute(
        "INSERT INTO public.products (id, name) VALUES (gen_random_uuid(), 'box')"
    )
    await shop.storefront.execute(
        "INSERT INTO public.product_variants (id, product_id, name, price_minor, currency)"
        " SELECT v::uuid, p.id, 'v', 100, 'USD' FROM public.products p,"
        " (SELECT DISTINCT l ->> 'variant_id' AS v FROM public.subscriptions s,"
        " jsonb_array_elements(s.variants) l) v"
    )
    await do(sessions, clock, retry_failed, version)
    await roll_out(sessions, clock)
    # Priced now, but nobody was shown it.
    assert (await outcomes(shop, version))["deferred", "changed"] == failed
    assert await do(sessions, clock, apply_deferred, version) == failed
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {
        ("moved", None): 20 - failed,
        ("moved", "accepted"): failed,
    }


async def test_a_rollout_stops_where_sql_and_the_rule_disagree_and_moves_nobody(
    shop: Shop, sessions: Sessions, clock: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await held(shop, sessions, clock)
    monkeypatch.setattr(
        "services.pricing.campaign.cost",
        lambda *given: cost(*given).model_copy(update={"total_minor": 1}),
    )
    await run_once(sessions, clock, 7)
    found = await now_of(sessions, version, clock.now)
    assert (found.status, found.listed) == ("stopped", 0)
    assert "the rule 1" in (found.detail or "")
    async with sessions() as session:
        rollout = await session.get_one(Rollout, version)
    assert (rollout.resume_status, rollout.changed_by) == ("listing", "farebox")


def test_chunks_grow_and_shrink_with_the_time_they_take() -> None:
    memory = Memory(rows=1_200)
    memory.took(0.03)
    assert memory.rows == 1_800
    memory.took(10)
    assert memory.rows == 900
    for _ in range(9):
        memory.took(10)
    assert memory.rows == 500
    for _ in range(9):
        memory.took(0)
    assert memory.rows == 4_000


async def test_who_is_in_somebody_else_s_hands_is_left_for_later_and_nobody_waits(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    version = await held(shop, sessions, clock)
    storefront = await asyncpg.connect(database.url)
    try:
        async with storefront.transaction():
            await storefront.execute(
                "UPDATE public.subscriptions SET next_delivery_on = '2026-04-01' WHERE id = $1",
                UUID(int=3),
            )
            await asyncio.wait_for(roll_out(sessions, clock), 30)
            assert await outcomes(shop, version) == {("moved", None): 29, (None, None): 1}
            clock.pass_(seconds=1)
            await roll_out(sessions, clock)
            assert await outcomes(shop, version) == {("moved", None): 29, (None, None): 1}
    finally:
        await storefront.close()
    clock.pass_(seconds=1)
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 30}
    [*_, line] = await shop.history(UUID(int=3))
    assert line["effective_at"] == clock.now - timedelta(seconds=2)


async def test_what_was_published_after_the_preview_is_no_excuse_for_other_cents(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 20)
    later: dict[str, object] = {"timing": {"when": "next_renewal"}}
    cohort = {"scope": {"currencies": ["USD", "EUR", "JPY"]}, "admin_percentage": "11"}
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = $1", clock.now + timedelta(days=9)
    )
    version = await change(sessions, clock, cohort | later)
    await roll_out(sessions, clock)
    clock.pass_(hours=1)
    await publish_config(
        sessions, clock.now, {"tax_rates": {"DE": "0.5", "US": "0.5", "JP": "0.5"}}
    )
    await roll_out(sessions, clock)
    clock.pass_(days=9)
    await roll_out(sessions, clock)
    found = await now_of(sessions, version, clock.now)
    assert (found.status, found.outcomes["moved"]) == ("stopped", 0)
    assert (await outcomes(shop, version))["deferred", "changed"] > 10


async def test_a_preview_that_a_publication_overtakes_is_stale(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 20)
    await drafted(sessions, clock, DEARER)
    await preview.run_once(sessions, clock, preview.Walker(rows=7))
    clock.pass_(minutes=1)
    await publish_config(sessions, clock.now, {"admin_percentage": "11"})
    await previewed(sessions, clock)
    status, detail = await shop.storefront.fetchrow(
        "SELECT status, detail FROM pricing.previews WHERE price_version = 2"
    )
    assert (status, "meanwhile: preview it again" in detail) == ("stale", True)


async def test_who_was_previewed_as_moved_and_cannot_be_priced_counts_as_drift(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    version = await held(shop, sessions, clock)
    await shop.storefront.execute("UPDATE public.addresses SET country = 'FR', region = NULL")
    await roll_out(sessions, clock)
    found = await now_of(sessions, version, clock.now)
    assert (found.status, found.drifted, found.outcomes["failed"]) == ("stopped", 14, 14)
