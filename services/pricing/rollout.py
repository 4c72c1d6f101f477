"""A published version on its way to every subscription: listed, then repriced, in chunks that each commit alone.

Killed anywhere, the next step goes on where the last commit stood: a chunk's rows, facts and outcomes are one
transaction.  Every subscription on the list ends as moved, kept, excluded, deferred or failed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson
from sqlalchemy import RowMapping, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.costs import (
    CostChange,
    Prices,
    Subject,
    UnreadableSubscription,
    Why,
    lock_rows,
    prices_for,
    record,
    stamp,
)
from services.pricing.domain import CostKind, cost, same_cents
from services.pricing.models import Rollout, RolloutItem
from services.pricing.versions import Current, Version, activate_due, current_versions, get_config
from shared import log
from shared.clock import Clock
from shared.db import Sessions
from shared.errors import FareboxError, NotFound
from shared.events import ConfigPublished, derived_id
from shared.trace import Cause

LIST_ROWS = 5_000  # ids only: a few milliseconds
# Subscriptions locked together: the storefront waits for at most one chunk, a fraction of a second.
CHUNK_ROWS = 500

Outcome = Literal["moved", "kept", "excluded", "deferred", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("moved", "kept", "excluded", "deferred", "failed")

logger = log.get("rollout")


class RolloutNotStarted(NotFound):
    title = "This price version's rollout has not started"


@dataclass(frozen=True)
class Progress:
    """How far a rollout is; `outcomes` and `todo` add up to `listed`."""

    price_version: int
    status: str
    listed: int
    todo: int
    outcomes: dict[Outcome, int]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Result:
    """What became of one subscription, and the change to record where its cost is another."""

    subscription_id: UUID
    outcome: Outcome
    detail: str | None = None
    change: CostChange | None = None
    stamped: bool = False


@dataclass(frozen=True)
class Move:
    """The version to price by, and what its history lines say of why."""

    version: Version
    not_older: frozenset[int]  # versions whose subscriptions need no move
    why: Why

    @classmethod
    def under(cls, version: Version, current: Current, now: datetime) -> "Move":
        not_older = frozenset({version.number, *(later.number for later in current.scheduled)})
        cause = Cause(str(derived_id(ConfigPublished.type, version.number)))
        return cls(version, not_older, Why(version.published_by, cause, now, version.reason))


async def run_once(sessions: Sessions, clock: Clock, chunk_rows: int = CHUNK_ROWS) -> int:
    """One step in one transaction: activate what is due, list, reprice or finish.  0: nothing to do."""
    async with sessions.begin() as session:
        now = clock()
        if await activate_due(session, now):
            return 1
        unfinished = select(Rollout).where(Rollout.status != "done").order_by(Rollout.started_at)
        # One worker for each rollout: another one takes the next, or has nothing to do.
        rollout = await session.scalar(unfinished.limit(1).with_for_update(skip_locked=True))
        if rollout is None:
            return 0
        current = await current_versions(session)
        if current.active is None or current.active.number != rollout.price_version:
            return await _defer(session, rollout, current.active, now)
        if rollout.status == "listing":
            return await _list(session, rollout)
        ids = await _todo(session, rollout.price_version, chunk_rows)
        if not ids:
            return _finish(rollout, now)
        await _move(session, ids, Move.under(current.active, current, now))
        return len(ids)


async def progress(session: AsyncSession, version: int) -> Progress:
    """Raises VersionNotFound, RolloutNotStarted."""
    await get_config(session, version)
    rollout = await session.get(Rollout, version)
    if rollout is None:
        raise RolloutNotStarted(f"price version {version} is not in force yet", version=version)
    statement = (
        select(RolloutItem.outcome, func.count())
        .where(RolloutItem.price_version == version)
        .group_by(RolloutItem.outcome)
    )
    counts: dict[str | None, int] = dict((await session.execute(statement)).all())
    return Progress(
        price_version=version,
        status=rollout.status,
        listed=sum(counts.values()),
        todo=counts.get(None, 0),
        outcomes={outcome: counts.get(outcome, 0) for outcome in OUTCOMES},
        started_at=rollout.started_at,
        finished_at=rollout.finished_at,
    )


async def _list(session: AsyncSession, rollout: Rollout) -> int:
    """Put the next subscriptions on the list.  Those created from now on are priced by this version anyway."""
    values = {"version": rollout.price_version, "after": rollout.listed_to, "rows": LIST_ROWS}
    chunk = (await session.execute(_LIST, values)).one()
    if chunk.last is not None:
        rollout.listed_to = chunk.last
    if chunk.listed < LIST_ROWS:
        rollout.status = "running"
    return 1


async def _move(session: AsyncSession, ids: Sequence[UUID], move: Move) -> None:
    rows = await lock_rows(session, ids)
    gone = set(ids) - {row["id"] for row in rows}
    results = [Result(subscription_id, "excluded", "it was deleted") for subscription_id in gone]
    subjects, failed = _read(rows)
    prices = await prices_for(session, subjects)
    results += failed + [_outcome(subject, move, prices) for subject in subjects]
    await record(session, [result.change for result in results if result.change])
    number = move.version.number
    await stamp(session, [r.subscription_id for r in results if r.stamped], number, (number,))
    await _settle(session, move.version.number, results)


def _finish(rollout: Rollout, now: datetime) -> int:
    rollout.status, rollout.finished_at = "done", now
    logger.info("rollout done", version=rollout.price_version)
    return 1


def _read(rows: Iterable[RowMapping]) -> tuple[list[Subject], list[Result]]:
    """Rows that can be understood, and the failure of each that cannot: it stops nobody else."""
    subjects: list[Subject] = []
    failed: list[Result] = []
    for row in rows:
        try:
            subjects.append(Subject.of(row))
        except UnreadableSubscription as error:
            failed.append(Result(row["id"], "failed", error.detail))
    return subjects, failed


def _outcome(subject: Subject, move: Move, prices: Prices) -> Result:
    if reason := subject.unpriceable():
        return Result(subject.id, "excluded", reason)
    if subject.price_version in move.not_older:
        return Result(subject.id, "kept", f"price version {subject.price_version} came first")
    try:
        new = cost(move.version.terms, subject.box(prices))
    except FareboxError as error:
        return Result(subject.id, "failed", error.detail)
    old = subject.cost_breakdown
    if old is not None and same_cents(old, new):
        return Result(subject.id, "kept", stamped=True)
    kind: CostKind = "config" if old else "created"
    start = move.version.effective_from
    since = start if old else max(move.why.at, start)
    change = CostChange(subject, move.version.number, new, kind, since, move.why)
    return Result(subject.id, "moved", change=change)


async def _defer(
    session: AsyncSession, rollout: Rollout, active: Version | None, now: datetime
) -> int:
    """A newer version is in force: it has a rollout of its own, which moves whoever is left here."""
    newer = f"price version {active.number} replaced this one" if active else "it was retired"
    ids = await _todo(session, rollout.price_version, LIST_ROWS)
    if ids:
        results = [Result(subscription_id, "deferred", newer) for subscription_id in ids]
        await _settle(session, rollout.price_version, results)
        return len(ids)
    return _finish(rollout, now)


async def _todo(session: AsyncSession, version: int, limit: int) -> Sequence[UUID]:
    statement = (
        select(RolloutItem.subscription_id)
        .where(RolloutItem.price_version == version, RolloutItem.outcome.is_(None))
        .order_by(RolloutItem.subscription_id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def _settle(session: AsyncSession, version: int, results: Sequence[Result]) -> None:
    rows = [
        {"subscription_id": str(r.subscription_id), "outcome": r.outcome, "detail": r.detail}
        for r in results
    ]
    await session.execute(_SETTLE, {"version": version, "rows": orjson.dumps(rows).decode()})


_LIST = text("""
WITH next AS (
    SELECT id FROM public.subscriptions
    WHERE status <> 'canceled' AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid))
    ORDER BY id LIMIT :rows
), listed AS (
    INSERT INTO rollout_items (price_version, subscription_id) SELECT :version, id FROM next
)
SELECT count(*) AS listed, (array_agg(id ORDER BY id DESC))[1] AS last FROM next
""")

_SETTLE = text("""
UPDATE rollout_items AS i SET outcome = r.outcome, detail = r.detail
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (subscription_id uuid, outcome text, detail text)
WHERE i.price_version = :version AND i.subscription_id = r.subscription_id
""")
