"""What an operator is alarmed by: payments that name nobody or contradict themselves, events parked or waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import text

from shared.db import Sessions
from shared.worker import every

# Counting reads every payment; nobody is alarmed faster than this.
COUNT_SECONDS = 30.0

COUNTS = text("""
    SELECT count(*) FILTER (WHERE user_id IS NULL AND subscription_id IS NULL) AS unlinked,
        count(*) FILTER (WHERE anomaly IS NOT NULL) AS contradictory,
        (SELECT count(*) FROM stripe_events WHERE status = 'parked') AS parked,
        (SELECT count(*) FROM stripe_events WHERE status = 'received' AND waiting_for IS NOT NULL)
            AS waiting
    FROM payment_intents
""")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keeps the gauges of `/metrics` fresh while the application runs."""
    registry: CollectorRegistry = app.state.metrics.registry
    payments = Gauge("farebox_payments", "Payments to look at", ("kind",), registry=registry)
    events = Gauge("farebox_stripe_events", "Events to look at", ("kind",), registry=registry)
    stop = asyncio.Event()

    async def step() -> int:
        unlinked, contradictory, parked, waiting = await count(app.state.sessions)
        payments.labels("unlinked").set(unlinked)
        payments.labels("contradictory").set(contradictory)
        events.labels("parked").set(parked)
        events.labels("waiting").set(waiting)
        return 0

    counting = asyncio.create_task(every(stop, COUNT_SECONDS, step))
    try:
        yield
    finally:
        stop.set()
        await counting


async def count(sessions: Sessions) -> tuple[int, int, int, int]:
    """(unlinked, contradictory, parked, waiting)"""
    async with sessions() as session:
        row = (await session.execute(COUNTS)).one()
        return row.unlinked, row.contradictory, row.parked, row.waiting
