"""Who meets whom in the midst of a chunk, one step after the other by hand: nobody is forgotten, counted twice or in the way."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

import asyncpg
import orjson
import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.pricing import preview
from services.pricing.audit import checks
from services.pricing.campaign import Campaign
from services.pricing.chunk import Asked, Known
from services.pricing.handlers import HANDLERS
from services.pricing.operating import cancel
from services.pricing.rollout import run_once
from shared.consumer import claim_and_apply
from shared.db import Sessions
from shared.events import SubscriptionChanged
from shared.faults import is_transient
from tests.conftest import Database
from tests.pricing.conftest import Shop, Ticking, hear_storefront
from tests.pricing.crowd import change, drafted, outcomes, roll_out
from tests.pricing.test_held import DEARER, TOUCH, begun, do, now_of

PATIENCE_SECONDS = 10.0
STUCK = """SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.datname = current_database()"""
MOVE_HOUSE = "UPDATE public.addresses SET country = 'DE', region = NULL WHERE id = $1"
# As if pricing had followed somebody who moved house.
LIVES_IN: tuple[LiteralString, ...] = (
    """UPDATE public.addresses SET country = split_part(%(place)s, '-', 1),
    region = nullif(split_part(%(place)s, '-', 2), '') WHERE id = ANY (%(ids)s)""",
    """UPDATE public.subscriptions SET cost_breakdown = jsonb_set(cost_breakdown, '{place}',
    to_jsonb(%(place)s::text)) WHERE id = ANY (%(ids)s)""",
)
ALIKE = """
UPDATE public.subscriptions s SET cost_breakdown = o.cost_breakdown, variants = o.variants,
    currency = o.currency, delivery_type = o.delivery_type,
    loyalty_discount_minor = o.loyalty_discount_minor
FROM public.subscriptions o WHERE o.id = $1
"""
FALLS = "UPDATE pricing.user_tiers SET tier = 'bronze' WHERE user_id = %s"


async def test_who_joins_a_cohort_while_the_chunk_that_passes_him_is_not_committed_is_moved(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    await begun(shop, sessions, clock, 12)
    [joins, *_], [*_, last] = await living_in(shop, "US-CA"), await living_in(shop, "DE")
    cohort = {"scope": {"places": ["DE"]}, "admin_percentage": "20"}
    version = await change(sessions, clock, cohort)
    other = await asyncpg.connect(database.url)
    holding = other.transaction()
    await holding.start()
    # The chunk looks for its members, and waits here when it writes what became of them.
    await other.execute(
        "SELECT FROM pricing.subscription_revisions WHERE subscription_id = $1 FOR UPDATE", last
    )
    walking = asyncio.create_task(run_once(sessions, clock))
    await until_somebody_waits(shop)
    await shop.storefront.execute(MOVE_HOUSE, joins)
    heard = await is_heard(shop, sessions)
    await holding.rollback()
    await other.close()
    await walking
    assert heard or await is_heard(shop, sessions)
    await roll_out(sessions, clock)
    assert (await shop.row(joins))["price_version"] == version
    assert await wrong(sessions) == []


class Between(Known):
    """Lets something happen between a chunk's first look at its rows and its second."""

    happens: Callable[[], None] | None = None

    def row(self, campaign: Campaign, asked: Asked) -> dict[str, object]:
        if self.happens is not None and asked not in self.rows:
            self.happens()
            self.happens = None
        return super().row(campaign, asked)


async def test_a_preview_counts_once_who_changes_in_the_midst_of_its_chunk(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    known, done, waits, waits_too = await begun(shop, sessions, clock, 4)
    await shop.storefront.execute(ALIKE, known)
    let_live(database, "US-CA", known, done)
    let_live(database, "DE", waits, waits_too)
    await drafted(sessions, clock, DEARER)
    memory = Between()
    walker = preview.Walker(known=memory, rows=1)
    await preview.run_once(sessions, clock, walker)  # knows the terms of California from now on

    def change_places() -> None:
        let_live(database, "DE", done)
        let_live(database, "US-CA", waits)

    memory.happens, walker.rows = change_places, 3
    while await preview.run_once(sessions, clock, walker):
        pass
    assert memory.happens is None
    status, counted, totals = await shop.storefront.fetchrow(
        "SELECT status, counted, totals FROM pricing.previews WHERE price_version = 2"
    )
    assert (status, counted) == ("done", 4)
    assert sum(orjson.loads(totals)["outcomes"].values()) == 4
    items = await shop.storefront.fetch("SELECT subscription_id FROM pricing.preview_items")
    assert {row[0] for row in items} == {known, done, waits, waits_too}


async def test_a_preview_plans_whoever_it_prices_although_his_row_changes_in_between(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    changes, *_ = await begun(shop, sessions, clock, 3)
    await shop.storefront.execute(TOUCH, changes)  # not heard yet: nothing for SQL
    await drafted(sessions, clock, DEARER | {"timing": {"when": "grandfathered"}})
    memory = Between()

    def take_back() -> None:
        with psycopg.connect(database.url) as storefront:
            storefront.execute(TOUCH.replace("+ 1", "- 1").replace("$1", "%s"), [changes])

    memory.happens = take_back
    while await preview.run_once(sessions, clock, preview.Walker(known=memory)):
        pass
    assert memory.happens is None
    totals = await shop.storefront.fetchval("SELECT totals FROM pricing.previews WHERE id = 2")
    assert orjson.loads(totals)["codes"] == {"kept": {"grandfathered": 3}}


async def test_whose_tier_changes_while_his_turn_is_carried_out_is_not_moved(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    [falls, *_] = await begun(shop, sessions, clock, 3)
    await shop.storefront.execute(
        "INSERT INTO pricing.user_tiers SELECT user_id, 'gold', 1 FROM public.subscriptions"
    )
    day = clock.now + timedelta(days=1)
    gold: dict[str, object] = {
        "scope": {"tiers": ["gold"]},
        "admin_percentage": "20",
        "timing": {"when": "grandfathered", "until": day},
    }
    version = await change(sessions, clock, gold)
    await roll_out(sessions, clock)
    clock.now = day
    bind: AsyncEngine = sessions.kw["bind"]

    @event.listens_for(bind.sync_engine, "before_cursor_execute")
    def _fall(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "SKIP LOCKED" in statement and "public.subscriptions" in statement:
            with psycopg.connect(database.url) as loyalty:
                loyalty.execute(FALLS, [falls])

    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 2, ("excluded", "left_scope"): 1}
    assert (await shop.row(falls))["price_version"] == 1


@pytest.mark.parametrize("end", ["done", "canceled"])
async def test_who_is_put_back_on_the_list_while_the_rollout_ends_is_not_forgotten(
    shop: Shop, sessions: Sessions, clock: Ticking, end: str
) -> None:
    [one, *_] = await begun(shop, sessions, clock, 3)
    run = shop.storefront.execute
    await run("UPDATE public.subscriptions SET delivery_address_id = NULL WHERE id = $1", one)
    timing: dict[str, object] = {"timing": {"when": "grandfathered"}}
    version = await change(sessions, clock, DEARER | timing)
    while (await now_of(sessions, version, clock.now)).status == "listing":
        await run_once(sessions, clock)
    assert (await outcomes(shop, version))["excluded", "no_delivery_address"] == 1
    await run("UPDATE public.subscriptions SET delivery_address_id = id WHERE id = $1", one)
    facts = await said_of(shop, one)
    async with sessions.begin() as putting_back:
        await claim_and_apply(putting_back, "pricing", HANDLERS, facts)
        # Nobody sees that yet.
        if end == "canceled":
            await do(sessions, clock, cancel, version)
        await roll_out(sessions, clock)
        ended = await now_of(sessions, version, clock.now)
        assert (ended.status, ended.finished_at) == (end, clock.now)
    assert (await outcomes(shop, version))[None, None] == 1
    await roll_out(sessions, clock)
    assert (await now_of(sessions, version, clock.now)).status == end
    last = ("kept", "grandfathered") if end == "done" else ("deferred", "canceled")
    assert await outcomes(shop, version) == Counter({("kept", "grandfathered"): 2}) + Counter(
        [last]
    )
    assert await wrong(sessions) == []


async def test_a_batch_lets_go_of_its_rows_rather_than_wait_for_a_slow_transaction(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    first, _, last = await begun(shop, sessions, clock, 3)
    for each in (first, last):
        await shop.storefront.execute(TOUCH, each)
    slow = await asyncpg.connect(database.url)
    async with slow.transaction():
        await slow.execute(TOUCH, last)
        assert not await asyncio.wait_for(is_heard(shop, sessions), PATIENCE_SECONDS)
        # Free, and nobody's death.
        await asyncio.wait_for(slow.execute(TOUCH, first), PATIENCE_SECONDS)
    await slow.close()
    assert await is_heard(shop, sessions)
    assert await wrong(sessions) == []


async def is_heard(shop: Shop, sessions: Sessions) -> bool:
    """False: the batch is to come again."""
    try:
        await hear_storefront(shop, sessions)
    except DBAPIError as error:
        if not is_transient(error):
            raise
        return False
    return True


async def until_somebody_waits(shop: Shop) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await shop.storefront.fetchval(STUCK):
            await asyncio.sleep(0.01)


async def living_in(shop: Shop, place: str) -> list[UUID]:
    rows = await shop.storefront.fetch(
        "SELECT id FROM public.subscriptions WHERE cost_breakdown ->> 'place' = $1 ORDER BY id",
        place,
    )
    return [row[0] for row in rows]


def let_live(database: Database, place: str, *ids: UUID) -> None:
    with psycopg.connect(database.url) as storefront:
        for statement in LIVES_IN:
            storefront.execute(statement, {"place": place, "ids": list(ids)})


async def said_of(shop: Shop, subscription: UUID) -> list[SubscriptionChanged]:
    facts = await shop.facts(SubscriptionChanged.type, subscription)
    return [SubscriptionChanged.model_validate_json(fact["body"]) for fact in facts]


async def wrong(sessions: Sessions) -> list[str]:
    """What the audit says of rollouts."""
    async with sessions() as session:
        return [each.detail for each in await checks(session) if not each.ok and each.id == "S7"]
