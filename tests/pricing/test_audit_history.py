"""What is done to the cost history behind its trigger's back, and that the audit names it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.audit import checks
from services.pricing.rollout import run_once
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.pricing.conftest import START, Shop, Ticking, hear_storefront, publish_config

# Only its owner can.
UNGUARD = "ALTER TABLE pricing.subscription_cost_history DISABLE TRIGGER farebox_append_only"
LINES = "pricing.subscription_cost_history"
NEWEST = f"(SELECT max(id) FROM {LINES})"
THEIRS = f"(SELECT subscription_id FROM {LINES} WHERE id = {NEWEST})"
FIRST_HASH = (
    "pricing.cost_line_hash(NULL, subscription_id, user_id, price_version, kind, effective_at,"
    " new_breakdown, reason, changed_by, cause_id, recorded_at)"
)
HEADS_AS_LINES = (
    "UPDATE pricing.subscription_revisions r SET head = h.line_hash"
    f" FROM (SELECT DISTINCT ON (subscription_id) * FROM {LINES} ORDER BY subscription_id, id DESC) h"
    " WHERE h.subscription_id = r.subscription_id"
)
FACTS_AS_LINES = (
    "UPDATE pricing.outbox o SET payload = payload - 'history_hash' || jsonb_strip_nulls("
    f" jsonb_build_object('history_hash', encode(h.line_hash, 'hex'))) FROM {LINES} h"
    " WHERE h.id = (o.payload ->> 'cost_history_id')::bigint"
    " AND o.type = 'pricing.subscription_cost_changed'"
)

CHAINED = "hashed with the line before"
HEADS = "the subscription's head names"
TOLD = "facts say the same, and carry their hash"
NOTED = "the newest is what the storefront asks"
ONE_FACT = "exactly one subscription_cost_changed"

# What the owner does, and which of the lines above then fail.
DAMAGE: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "another cause": (
        (f"UPDATE {LINES} SET cause_id = 'nobody' WHERE id = 2",),
        {CHAINED, ONE_FACT},
    ),
    "another author of the newest": (
        (f"UPDATE {LINES} SET changed_by = 'nobody' WHERE id = {NEWEST}",),
        {CHAINED},
    ),
    "recorded a microsecond sooner": (
        (f"UPDATE {LINES} SET recorded_at = recorded_at - interval '1 microsecond' WHERE id = 1",),
        {CHAINED},
    ),
    "a line and its own hash": (
        (
            f"UPDATE {LINES} SET changed_by = 'nobody' WHERE id = 1",
            f"UPDATE {LINES} SET line_hash = {FIRST_HASH} WHERE id = 1",
        ),
        {CHAINED, TOLD},  # the line after it was hashed with the old one
    ),
    "another hash of the newest": (
        (f"UPDATE {LINES} SET line_hash = sha256('') WHERE id = {NEWEST}",),
        {CHAINED, HEADS, TOLD},
    ),
    "no hash any more": (
        (f"UPDATE {LINES} SET line_hash = NULL WHERE id = {NEWEST}",),
        {CHAINED, HEADS, TOLD},
    ),
    "a whole chain without hashes, and its head": (
        (
            f"UPDATE {LINES} SET line_hash = NULL WHERE subscription_id = {THEIRS}",
            f"UPDATE pricing.subscription_revisions SET head = NULL WHERE subscription_id = {THEIRS}",
        ),
        {TOLD},
    ),
    "the newest taken away": ((f"DELETE FROM {LINES} WHERE id = {NEWEST}",), {HEADS, ONE_FACT}),
    "the newest taken away, and the head put back": (
        (
            f"DELETE FROM {LINES} WHERE id = {NEWEST}",
            HEADS_AS_LINES,
        ),
        {ONE_FACT},
    ),
    "another head": (("UPDATE pricing.subscription_revisions SET head = sha256('')",), {HEADS}),
    "another hash in the facts": (
        (
            "UPDATE pricing.outbox SET payload = payload - 'history_hash' WHERE payload ? 'history_hash'",
        ),
        {TOLD},
    ),
    "another time in its fact": (
        (
            (
                'UPDATE pricing.outbox SET payload = payload || \'{"effective_at": "2020-01-01T00\\:00\\:00Z"}\''
                " WHERE payload ? 'new_breakdown'"
            ),
        ),
        {TOLD},
    ),
    "another fee in its fact": (
        (
            (
                "UPDATE pricing.outbox SET payload = jsonb_set(payload, '{new_breakdown,fee_minor}', '0')"
                " WHERE payload ? 'new_breakdown'"
            ),
        ),
        {TOLD},
    ),
    "a price that was not noted": (
        (
            "ALTER TABLE public.product_variants DISABLE TRIGGER farebox_note_update",
            "UPDATE public.product_variants SET price_minor = 7",
        ),
        {NOTED},
    ),
}


@pytest.fixture
async def owner(
    database: Database, shop: Shop, sessions: Sessions, clock: Ticking
) -> AsyncIterator[Sessions]:
    """Two versions, two subscriptions of two lines each: one by one and by the rollout's SQL."""
    await publish_config(sessions, START - timedelta(days=3_000))
    variant = await shop.variant(1_000)
    for quantity in (1, 2):
        await shop.subscription([(variant, quantity)])
    await hear_storefront(shop, sessions)
    clock.now = datetime.now(UTC)  # the storefront's writes carry the database's time
    await publish_config(sessions, clock.now, {"admin_percentage": "20"})
    while await run_once(sessions, clock):
        pass
    engine = create_engine(database.url, "pricing")
    yield create_sessions(engine)
    await engine.dispose()


async def failing(session: AsyncSession) -> set[str]:
    wrong = [result.detail for result in await checks(session) if not result.ok]
    known = (CHAINED, HEADS, TOLD, ONE_FACT, NOTED)
    return {line for line in known if any(line in detail for detail in wrong)}


async def damage(session: AsyncSession, *statements: str) -> None:
    await session.execute(text(UNGUARD))
    for statement in statements:
        if statement.startswith("ALTER"):
            await session.execute(text(statement))
        else:
            assert (await session.execute(text(f"{statement} RETURNING 1"))).all(), statement


async def test_whatever_is_done_to_a_line_breaks_its_chain(owner: Sessions) -> None:
    async with owner() as session:
        assert await failing(session) == set()
    found = {}
    for what, (statements, _) in DAMAGE.items():
        async with owner() as session:  # rolled back
            await damage(session, *statements)
            found[what] = await failing(session)
    assert found == {what: lines for what, (_, lines) in DAMAGE.items()}

    # As after 016: lines of before it have no hash, the next one begins the chain.
    async with owner() as session:
        await damage(
            session,
            f"UPDATE {LINES} SET line_hash = NULL WHERE id IN (1, 2)",
            f"UPDATE {LINES} SET line_hash = {FIRST_HASH} WHERE id > 2",
            *(HEADS_AS_LINES, FACTS_AS_LINES),
        )
        assert await failing(session) == set()


@pytest.mark.parametrize(
    ("opened", "table"),
    [
        (UNGUARD, "subscription_cost_history"),
        (f"GRANT UPDATE (reason) ON {LINES} TO pricing_app", "subscription_cost_history"),
        ("DROP TRIGGER farebox_append_only ON pricing.catalogue_prices", "catalogue_prices"),
    ],
)
async def test_a_log_that_could_be_rewritten_is_named(
    owner: Sessions, opened: str, table: str
) -> None:
    async with owner() as session:  # rolled back
        await session.execute(text(opened))
        [wrong] = [result.detail for result in await checks(session) if not result.ok]
        assert f"only ever added to: 1 wrong, first {table}" in wrong
