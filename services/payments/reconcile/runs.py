"""A walk through Stripe's lists as a row: where it is, resumed by whoever comes next, moved on by one at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

import asyncpg
import orjson

from shared.errors import Conflict

Stage = Literal[
    "events", "folding", "payments", "refunds", "disputes", "invoice_payments", "grace",
    "settling", "suspects", "payouts", "lines",
]  # fmt: skip
BACKOFF = (
    timedelta(seconds=2),
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
)

FIELDS = "id, account, since, objects_since, until, cursors::text AS cursors, failures, last_error, walk_after, started_at"
OPEN = f"""
SELECT {FIELDS} FROM reconcile_runs WHERE ended_at IS NULL AND account IS NOT DISTINCT FROM $1
"""
NEXT = f"""
SELECT {FIELDS} FROM reconcile_runs
WHERE ended_at IS NULL AND (walk_after IS NULL OR walk_after <= $1) ORDER BY started_at LIMIT 1
"""
START = """
INSERT INTO reconcile_runs (id, account, since, objects_since, until, cursors, started_at)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7)
ON CONFLICT (account) WHERE ended_at IS NULL DO NOTHING
"""
# Another walker may have been faster: then nothing of this page is kept.
ADVANCE = """
UPDATE reconcile_runs SET cursors = $3::jsonb, failures = 0, last_error = NULL, walk_after = $6,
    counts = counts || jsonb_build_object(
        $4::text, coalesce((counts->>$4::text)::bigint, 0) + $5::bigint)
WHERE id = $1 AND cursors = $2::jsonb AND ended_at IS NULL
"""
END = """
UPDATE reconcile_runs SET ended_at = $3, walk_after = NULL, failures = 0, last_error = NULL
WHERE id = $1 AND cursors = $2::jsonb AND ended_at IS NULL
"""
POSTPONE = """
UPDATE reconcile_runs SET failures = failures + 1, last_error = $2, walk_after = $3
WHERE id = $1 AND ended_at IS NULL
"""
# Whoever took their account back is not asked again and again: an operator is told.
NO_ACCESS = """
INSERT INTO reconcile_gaps (run_id, kind, subject, detail, found_at)
VALUES ($1, 'account', '/v1/accounts/' || $2, $3, $4) ON CONFLICT (run_id, subject) DO NOTHING
"""
WAIT = "UPDATE reconcile_runs SET walk_after = $2 WHERE id = $1 AND ended_at IS NULL"
GIVEN_UP = "UPDATE reconcile_runs SET last_error = $2 WHERE id = $1"
# A run that was given up has walked nothing to its end: the next one begins where it began.
LAST = """
SELECT max(until) FILTER (WHERE last_error IS NULL) AS until, max(started_at) AS started_at,
    max(started_at) FILTER (WHERE until - objects_since >= $2 AND last_error IS NULL) AS deep_at
FROM reconcile_runs WHERE account IS NOT DISTINCT FROM $1 AND ended_at IS NOT NULL
"""


class Overtaken(Conflict):
    title = "Another process walks the same lists"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The stage, and how far it is: the last id of the page before, the event, or the payout it is about."""

    stage: Stage
    after: str | None = None
    position: int | None = None
    payout: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    id: UUID
    account: str | None
    since: datetime
    objects_since: datetime
    until: datetime
    cursor: Cursor
    failures: int
    last_error: str | None
    walk_after: datetime | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """What a run looks at: events since `since`, objects created since `objects_since`, both up to `until`."""

    since: datetime
    objects_since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Last:
    """Of the runs that ended: up to when, when the last was started, and when the last deep one was."""

    until: datetime | None
    started_at: datetime | None
    deep_at: datetime | None


async def open_run(connection: asyncpg.Connection, account: str | None) -> Run | None:
    return _run(await connection.fetchrow(OPEN, account))


async def next_run(connection: asyncpg.Connection, now: datetime) -> Run | None:
    """The oldest that may be walked on now."""
    return _run(await connection.fetchrow(NEXT, now))


async def start(
    connection: asyncpg.Connection, account: str | None, window: Window, now: datetime
) -> None:
    """Does nothing where one is open already."""
    first = _encode(Cursor("events"))
    await connection.execute(
        START, uuid4(), account, window.since, window.objects_since, window.until, first, now
    )


async def advance(
    connection: asyncpg.Connection,
    run: Run,
    cursor: Cursor,
    looked: int,
    walk_after: datetime | None = None,
) -> None:
    """In the transaction of what was found.  Raises Overtaken."""
    moved = await connection.execute(
        ADVANCE, run.id, _encode(run.cursor), _encode(cursor), run.cursor.stage, looked, walk_after
    )
    if moved != "UPDATE 1":
        raise Overtaken(f"the run {run.id} has moved on")


async def end(connection: asyncpg.Connection, run: Run, now: datetime) -> None:
    """Raises Overtaken."""
    if await connection.execute(END, run.id, _encode(run.cursor), now) != "UPDATE 1":
        raise Overtaken(f"the run {run.id} has moved on")


async def postpone(
    connection: asyncpg.Connection, run: Run, why: str, told: timedelta | None, now: datetime
) -> datetime:
    """Stripe did not answer; it is asked again when it said (`told`), or later each time.  Returns when."""
    wait = BACKOFF[min(run.failures, len(BACKOFF) - 1)]
    at = now + (max(told, wait) if told else wait)
    await connection.execute(POSTPONE, run.id, why, at)
    return at


async def give_up(connection: asyncpg.Connection, run: Run, why: str, now: datetime) -> None:
    """End the run of an account that nobody may look at, with a gap that says so.  Raises Overtaken."""
    async with connection.transaction():
        await connection.execute(NO_ACCESS, run.id, run.account, why, now)
        await end(connection, run, now)
        await connection.execute(GIVEN_UP, run.id, why)


async def wait(connection: asyncpg.Connection, run: Run, until: datetime) -> None:
    await connection.execute(WAIT, run.id, until)


async def last(connection: asyncpg.Connection, account: str | None, deep: timedelta) -> Last:
    row = await connection.fetchrow(LAST, account, deep)
    return Last(row["until"], row["started_at"], row["deep_at"])


def _encode(cursor: Cursor) -> str:
    return orjson.dumps(cursor).decode()


def _run(row: asyncpg.Record | None) -> Run | None:
    if row is None:
        return None
    fields = dict(row)
    cursor = Cursor(**orjson.loads(fields.pop("cursors")))
    return Run(cursor=cursor, **fields)
