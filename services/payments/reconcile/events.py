"""Stripe's event list beside ours: what never arrived is stored as if it had, and the fold does the rest."""

from collections.abc import Sequence

import asyncpg

from services.payments.gateway import (
    Listing,
    Nothing,
    event_body,
    is_concerned,
    open_envelope,
    translate,
)
from services.payments.reconcile.runs import Cursor, Run, advance
from services.payments.reconcile.walker import Walker, following
from services.payments.store import Arrival, insert
from shared import log
from shared.errors import FareboxError

KNOWN = "SELECT id FROM stripe_events WHERE id = ANY($1)"
# Thin events have ids of their own: to an endpoint that gets nothing else, every event of the list would be news.
HEARS_THIN_ALONE = """
SELECT count(*) > 0 AND bool_and(type LIKE 'v1.%')
FROM (
    SELECT type FROM stripe_events WHERE type NOT LIKE 'farebox.%' ORDER BY position DESC LIMIT 1000
) recent
"""
NOTE = """
INSERT INTO reconcile_gaps (run_id, kind, subject, detail, found_at, mended_at)
SELECT $1, 'event', new.id, new.detail, $4, $4 FROM unnest($2::text[], $3::text[]) AS new (id, detail)
ON CONFLICT (run_id, subject) DO NOTHING
"""

logger = log.get("reconcile")


async def walk_events(walker: Walker, run: Run) -> Cursor:
    """Look at one page of the event list; returns where to go on.  A shop of thin events alone has no use for it."""
    async with walker.pool.acquire() as connection:
        if await connection.fetchval(HEARS_THIN_ALONE):
            await advance(connection, run, Cursor("folding"), 0)
            return Cursor("folding")
    listing = Listing("events", run.account, run.since, run.until)
    page = await walker.page(listing, run.cursor.after)
    bodies = [event_body(item, run.account) for item in page.items if is_concerned(item)]
    arrivals = [Arrival(open_envelope(body), body, None) for body in bodies if _is_missed(body)]
    async with walker.pool.acquire() as connection, connection.transaction():
        missing = await _missing(connection, arrivals)
        await insert(connection, missing)
        await connection.execute(
            NOTE,
            run.id,
            [each.envelope.id for each in missing],
            [_detail(each) for each in missing],
            walker.clock(),
        )
        following_cursor = following(run, page, Cursor("folding"))
        await advance(connection, run, following_cursor, len(arrivals))
    if missing:
        named = missing[0].envelope.id
        logger.warning("events never arrived", count=len(missing), such_as=named)
    return following_cursor


def _is_missed(body: bytes) -> bool:
    """An endpoint may well be subscribed to less: what says nothing of a payment is no loss."""
    try:
        said = translate(body)
    except FareboxError:
        return True  # it is parked, for an operator
    return not isinstance(said, Nothing) or said.lonely_charge is not None


async def _missing(
    connection: asyncpg.Connection, arrivals: Sequence[Arrival]
) -> Sequence[Arrival]:
    """Those that have no row, in an order in which two writers cannot lock each other out."""
    ids = [each.envelope.id for each in arrivals]
    known = {row["id"] for row in await connection.fetch(KNOWN, ids)}
    missing = [each for each in arrivals if each.envelope.id not in known]
    return sorted(missing, key=lambda each: each.envelope.id)


def _detail(arrival: Arrival) -> str:
    head = arrival.envelope
    return f"{head.type} of {head.created_at:%Y-%m-%d %H:%M:%S} UTC never arrived"
