"""Raw bodies older than the retention keep nothing but what the fold reads; a rebuild finds the same payments.

Swept in the order of arrival, a bounded batch and transaction at a time; what waits or is parked stays whole.
"""

from datetime import datetime, timedelta

import asyncpg

from services.payments.gateway import NotRedacted, redact
from shared import lease, log
from shared.clock import Clock

LEASE = "redact"
# Some 50 ms of work, in a worker that has payments to fold.
BATCH_EVENTS = 200
# Positions looked at per step where nothing is left to do: reading them takes some milliseconds.
STEP_POSITIONS = 5_000
# What was parked and came through later lies behind: a sweep starts anew this long after the last one.
SWEEP_EVERY = timedelta(hours=6)

SPAN = (
    "SELECT position, received_at FROM stripe_events WHERE position > $1 ORDER BY position LIMIT 1"
)
OLD = """
SELECT position, id, body FROM stripe_events
WHERE position > $1 AND position <= $2 AND redacted_at IS NULL
  AND status IN ('applied', 'ignored') AND processed_at < $3
ORDER BY position LIMIT $4
"""
# Given back to the fold in between, it is left whole.
KEEP = """
UPDATE stripe_events SET body = new.body, redacted_at = $3,
    detail = CASE WHEN status = 'ignored' THEN detail END
FROM unnest($1::bigint[], $2::bytea[]) AS new (position, body)
WHERE stripe_events.position = new.position AND redacted_at IS NULL
  AND status IN ('applied', 'ignored')
"""

logger = log.get("redaction")


class Redaction:
    """One worker's sweep; where it is, is remembered only here: starting anew finds nothing twice."""

    def __init__(self, pool: asyncpg.Pool, holder: str, days: int, clock: Clock) -> None:
        self._pool = pool
        self._holder = holder
        self._age = timedelta(days=days)
        self._clock = clock
        self._after = 0
        self._rests_until: datetime | None = None

    async def run_once(self) -> int:
        """Redact the next batch; returns how many positions were passed, 0 once the sweep is at its end."""
        now = self._clock()
        if self._rests_until is not None and now < self._rests_until:
            return 0
        async with self._pool.acquire() as connection:
            if await lease.take(connection, LEASE, self._holder) is None:
                return 0
            first = await connection.fetchrow(SPAN, self._after)
            # Nothing behind it can have been processed before it came.
            if first is None or first["received_at"] >= now - self._age:
                self._after, self._rests_until = 0, now + SWEEP_EVERY
                return 0
            return await self._redact(connection, first["position"], now)

    async def _redact(self, connection: asyncpg.Connection, first: int, now: datetime) -> int:
        last = first + STEP_POSITIONS - 1
        rows = await connection.fetch(OLD, first - 1, last, now - self._age, BATCH_EVENTS)
        if len(rows) == BATCH_EVENTS:
            last = rows[-1]["position"]
        redacted = [(row["position"], body) for row in rows if (body := _redacted(row)) is not None]
        if redacted:
            positions, bodies = zip(*redacted, strict=True)
            await connection.execute(KEEP, list(positions), list(bodies), now)
            logger.info("redacted", events=len(redacted), up_to_position=last)
        self._after = last
        return last - first + 1


def _redacted(row: asyncpg.Record) -> bytes | None:
    try:
        return redact(row["body"])
    except NotRedacted as error:
        logger.error("a body stays whole", event_id=row["id"], reason=error.detail)
    except Exception:
        # Whatever it is about this body, those behind it have a retention too.
        logger.exception("a body stays whole", event_id=row["id"])
    return None
