"""What an operator is alarmed by: gaps that stay, payouts that differ, lists that nobody has walked for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import text

from shared.db import Sessions
from shared.worker import every

COUNT_SECONDS = 30.0

# Of each account's last run: what it found anew, or still finds.
COUNTS = text("""
    WITH recent AS (
        SELECT DISTINCT ON (account) id FROM reconcile_runs
        WHERE ended_at IS NOT NULL ORDER BY account, started_at DESC
    ), gaps AS (
        SELECT mended_at IS NULL AS is_open FROM reconcile_gaps
        WHERE run_id IN (SELECT id FROM recent)
    )
    SELECT
        (SELECT count(*) FROM gaps WHERE is_open) AS open,
        (SELECT count(*) FROM gaps WHERE NOT is_open) AS mended,
        (SELECT count(*) FROM payouts WHERE verdict = 'differs') AS differing,
        (SELECT count(*) FROM payouts WHERE verdict = 'agrees') AS agreeing,
        -- Of the account that lags most, of those that the schedule still walks: one that was looked at once, by
        -- command, lags for ever.
        (SELECT extract(epoch FROM min(walked)) FROM (
            SELECT account, max(started_at) AS begun,
                max(until) FILTER (WHERE ended_at IS NOT NULL AND last_error IS NULL) AS walked
            FROM reconcile_runs GROUP BY account
        ) each WHERE account IS NULL OR (begun >= (
            SELECT max(started_at) FROM reconcile_runs WHERE account IS NULL
        ) - interval '1 day') IS NOT FALSE) AS reconciled_until
""")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keeps the gauges of `/metrics` fresh while the application runs."""
    registry: CollectorRegistry = app.state.metrics.registry
    gaps = Gauge(
        "farebox_reconcile_gaps",
        "What the last run found Stripe to know and us not",
        ("state",),
        registry=registry,
    )
    payouts = Gauge("farebox_payouts", "Payouts by verdict", ("verdict",), registry=registry)
    until = Gauge(
        "farebox_reconciled_until_timestamp_seconds",
        "Up to when Stripe's lists were walked, of the account that lags most",
        registry=registry,
    )
    stop = asyncio.Event()

    async def step() -> int:
        counted = await count(app.state.sessions)
        gaps.labels("open").set(counted["open"])
        gaps.labels("mended").set(counted["mended"])
        payouts.labels("differs").set(counted["differing"])
        payouts.labels("agrees").set(counted["agreeing"])
        until.set(counted["reconciled_until"])
        return 0

    counting = asyncio.create_task(every(stop, COUNT_SECONDS, step))
    try:
        yield
    finally:
        stop.set()
        await counting


async def count(sessions: Sessions) -> dict[str, float]:
    """By name, 0 where there is none: open, mended, differing, agreeing, reconciled_until."""
    async with sessions() as session:
        row = (await session.execute(COUNTS)).one()
        return {name: float(value or 0) for name, value in row._mapping.items()}
