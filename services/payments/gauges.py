"""What an operator is alarmed by: payments that name nobody or contradict themselves, events parked or waiting, late orders."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import text

from shared.db import Sessions
from shared.worker import every

# Each is counted from an index of its own; nobody is alarmed faster than this.
COUNT_SECONDS = 30.0

COUNTS = text("""
    SELECT (SELECT count(*) FROM payment_intents
            WHERE user_id IS NULL AND subscription_id IS NULL) AS unlinked,
        (SELECT count(*) FROM payment_intents WHERE anomaly IS NOT NULL) AS contradictory,
        (SELECT count(*) FROM stripe_events WHERE status = 'parked') AS parked,
        (SELECT count(*) FROM stripe_events WHERE status = 'received' AND waiting_for IS NOT NULL)
            AS waiting,
        (SELECT count(*) FROM stripe_orders WHERE status = 'open') AS open,
        -- Stripe's own troubles pass within minutes: after that somebody should look why.
        (SELECT count(*) FROM stripe_orders
            WHERE status = 'open' AND created_at < now() - interval '1 hour') AS late,
        (SELECT count(*) FROM stripe_orders WHERE status = 'open' AND failure_code <> 'withdrawing')
            AS held
""")


RENEWALS = text("SELECT status, count(*) FROM renewals GROUP BY status")
RENEWAL_STATUSES = ("due", "charging", "past_due", "paid", "given_up", "canceled")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keeps the gauges of `/metrics` fresh while the application runs."""
    registry: CollectorRegistry = app.state.metrics.registry
    payments = Gauge("farebox_payments", "Payments to look at", ("kind",), registry=registry)
    events = Gauge("farebox_stripe_events", "Events to look at", ("kind",), registry=registry)
    orders = Gauge("farebox_stripe_orders", "Orders to look at", ("kind",), registry=registry)
    renewals = Gauge("farebox_renewals", "Renewals", ("status",), registry=registry)
    stop = asyncio.Event()

    async def step() -> int:
        row = await count(app.state.sessions)
        payments.labels("unlinked").set(row.unlinked)
        payments.labels("contradictory").set(row.contradictory)
        events.labels("parked").set(row.parked)
        events.labels("waiting").set(row.waiting)
        orders.labels("open").set(row.open)
        orders.labels("late").set(row.late)
        orders.labels("held").set(row.held)
        by_status = await count_renewals(app.state.sessions)
        for status in RENEWAL_STATUSES:
            renewals.labels(status).set(by_status.get(status, 0))
        return 0

    counting = asyncio.create_task(every(stop, COUNT_SECONDS, step))
    try:
        yield
    finally:
        stop.set()
        await counting


class Counts(NamedTuple):
    unlinked: int
    contradictory: int
    parked: int
    waiting: int
    open: int
    late: int
    held: int


async def count(sessions: Sessions) -> Counts:
    async with sessions() as session:
        row = (await session.execute(COUNTS)).one()
        return Counts(*row)


async def count_renewals(sessions: Sessions) -> dict[str, int]:
    async with sessions() as session:
        return {row[0]: row[1] for row in await session.execute(RENEWALS)}
