from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from services.pricing.audit import checks
from services.pricing.rollout import run_once
from shared.audit import CheckResult
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.pricing.conftest import (
    START,
    Shop,
    Ticking,
    hear_storefront,
    publish_config,
    publish_previewed,
)

# Triggers refuse most of it: whoever does this is a superuser who means to.
BEHIND_THE_TRIGGERS = "SET session_replication_role = replica"


COHORT = {"scope": {"places": ["US"]}, "admin_percentage": "15"}


async def audit(sessions: Sessions) -> list[CheckResult]:
    async with sessions() as session:
        return await checks(session)


@pytest.fixture
async def history(shop: Shop, sessions: Sessions, clock: Ticking) -> None:
    """Two versions and one of a cohort, three subscriptions, all rolled out."""
    await publish_config(sessions, START - timedelta(days=3_000))
    variant = await shop.variant(1_000)
    for quantity in (1, 2, 3):
        await shop.subscription([(variant, quantity)])
    await hear_storefront(shop, sessions)
    clock.now = datetime.now(UTC)  # the storefront's writes carry the database's time
    for changed in ({"admin_percentage": "20"}, COHORT):
        await publish_previewed(sessions, clock.pass_(seconds=1), changed)
        while await run_once(sessions, clock):
            pass


@pytest.mark.usefixtures("history")
async def test_what_pricing_wrote_holds(sessions: Sessions) -> None:
    results = await audit(sessions)
    assert [result for result in results if not result.ok] == []
    assert {result.id for result in results} == {"S2", "S5", "S6", "S7"}
    assert all(result.counted > 0 for result in results)


async def test_an_empty_system_holds(sessions: Sessions) -> None:
    assert all(result.ok for result in await audit(sessions))


TAMPERED = [
    (
        "UPDATE pricing.subscription_cost_history SET new_total_minor = 1 WHERE id = 2",
        "S6",
        "line 2 says 1 USD and ",
    ),
    (
        "UPDATE pricing.subscription_cost_history SET old_breakdown = NULL WHERE id = 4",
        "S6",
        "starts from the cost before",
    ),
    (
        """UPDATE pricing.subscription_cost_history
        SET new_breakdown = jsonb_set(new_breakdown, '{tax_minor}', '1') WHERE id = 1""",
        "S6",
        "recomputed it is",
    ),
    (
        "UPDATE pricing.pricing_configs SET tax_rates = '{}' WHERE version = 1",
        "S6",
        "no tax rate",
    ),
    (
        "UPDATE pricing.pricing_configs SET effective_to = effective_to - interval '1 s'",
        "S6",
        "ends where the next begins",
    ),
    (
        """UPDATE pricing.subscription_cost_history h SET effective_at = v.effective_from
        - interval '1 s' FROM pricing.pricing_configs v
        WHERE v.version = h.price_version AND h.id = 4""",
        "S6",
        "since their version is in force, or later: 1 wrong, first 4",
    ),
    (
        """UPDATE pricing.subscription_cost_history SET new_breakdown =
        jsonb_set(new_breakdown, '{price_versions}', '[99]') WHERE id = 4""",
        "S6",
        "line 4 names price version 99",
    ),
    (
        "UPDATE pricing.subscription_cost_history SET old_total_minor = 1 WHERE id = 4",
        "S6",
        "starts from the cost before",
    ),
    ("UPDATE public.subscriptions SET total_minor = 7", "S6", "as the newest line says"),
    ("UPDATE public.subscriptions SET tax_rate_applied = 0", "S6", "as the newest line says"),
    ("UPDATE public.subscriptions SET delivery_cost_minor = 7", "S6", "as the newest line says"),
    ("UPDATE pricing.rollout_items SET outcome = NULL", "S7", "= listed"),
    (
        "UPDATE pricing.rollout_items SET outcome = 'failed', detail = NULL WHERE price_version = 2",
        "S7",
        "= listed",
    ),
    (
        "UPDATE pricing.rollouts SET drifted = 11, status = 'running' WHERE price_version = 2",
        "S7",
        "= listed",
    ),
    ("DELETE FROM pricing.rollout_items WHERE price_version = 2", "S7", "approved preview"),
    ("UPDATE pricing.preview_items SET new_total_minor = 1", "S7", "approved preview"),
    ("UPDATE pricing.previews SET hash = 'another'", "S7", "approved preview"),
    (
        """UPDATE public.subscriptions SET price_version = 1,
        cost_breakdown = jsonb_set(cost_breakdown, '{price_versions}', '[1, 3]')""",
        "S7",
        "older version without a reason: 3 wrong",
    ),
    (
        """UPDATE public.subscriptions SET
        cost_breakdown = jsonb_set(cost_breakdown, '{price_versions}', '[2]')""",
        "S7",
        "of version 3",
    ),
    (
        """DELETE FROM pricing.outbox WHERE type = 'pricing.subscription_cost_changed'
        AND payload ->> 'revision' = '2'""",
        "S2",
        "contiguous",
    ),
    (
        "UPDATE pricing.outbox SET headers = headers - 'ce_causationid'",
        "S2",
        "contiguous",
    ),
    (
        """UPDATE pricing.outbox SET payload = jsonb_set(payload, '{cost_history_id}', '1')
        WHERE type = 'pricing.subscription_cost_changed'""",
        "S2",
        "exactly one subscription_cost_changed",
    ),
    ("UPDATE public.subscriptions SET currency = 'XXQ'", "S5", "'XXQ' is not ISO"),
]


@pytest.mark.usefixtures("history")
async def test_what_was_tampered_with_is_named(database: Database) -> None:
    engine = create_engine(database.url, "pricing")
    try:
        async with create_sessions(engine)() as session:
            await session.execute(text(BEHIND_THE_TRIGGERS))
            for tampered, id_, says in TAMPERED:
                async with session.begin_nested() as attempt:
                    for statement in tampered.split(";"):
                        await session.execute(text(statement.replace(":", "\\:")))
                    failed = [result for result in await checks(session) if not result.ok]
                    assert any(r.id == id_ and says in r.detail for r in failed), (tampered, failed)
                    await attempt.rollback()
    finally:
        await engine.dispose()


# The first cost of each, as the first releases wrote it: no composition, no hash, nothing of rounding.
OF_BEFORE = (
    """UPDATE pricing.subscription_cost_history h SET line_hash = NULL,
        new_breakdown = new_breakdown - '{price_versions,tax_inclusive,rounding_minor}'::text[]
    WHERE kind = 'created'""",
    """UPDATE pricing.subscription_cost_history h SET line_hash = pricing.cost_line_hash(NULL,
        subscription_id, user_id, price_version, kind, effective_at, new_breakdown, reason, changed_by,
        cause_id, recorded_at) WHERE old_breakdown IS NOT NULL""",
    """UPDATE pricing.subscription_revisions r SET head = h.line_hash
    FROM pricing.subscription_cost_history h WHERE h.subscription_id = r.subscription_id
        AND h.old_breakdown IS NOT NULL""",
    """UPDATE pricing.outbox o SET payload = jsonb_strip_nulls(o.payload || jsonb_build_object(
        'history_hash', encode(h.line_hash, 'hex')))
    FROM pricing.subscription_cost_history h
    WHERE h.id = (o.payload ->> 'cost_history_id')::bigint""",
)


async def test_lines_of_the_first_releases_hold_beside_todays(
    shop: Shop, sessions: Sessions, clock: Ticking, database: Database
) -> None:
    await publish_config(sessions, START - timedelta(days=3_000))
    await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    clock.now = datetime.now(UTC)
    await publish_previewed(sessions, clock.now, {"admin_percentage": "20"})
    while await run_once(sessions, clock):
        pass
    engine = create_engine(database.url, "pricing")
    try:
        async with create_sessions(engine).begin() as session:
            await session.execute(text(BEHIND_THE_TRIGGERS))
            for statement in OF_BEFORE:
                await session.execute(text(statement.replace("::", "\\:\\:")))
        failed = [result for result in await audit(sessions) if not result.ok]
        assert failed == []
    finally:
        await engine.dispose()
