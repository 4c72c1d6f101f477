"""Parked facts, taken up again: the customer's facts in order, through the same claim and the same handlers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.consumer import Handlers, claim_and_apply
from shared.decode import event_of
from shared.errors import Conflict, NotFound
from shared.faults import is_transient
from shared.inbox import claim
from shared.parking import ParkedEvent

# Of one customer; more are left for the next call.
AT_ONCE = 1_000


@dataclass(frozen=True)
class Retried:
    """`applied` facts went through; at `stuck` it ended, with `error`, and `waiting` more wait behind."""

    key: str
    applied: int
    stuck: int | None = None
    error: str | None = None
    waiting: int = 0


async def open_keys(session: AsyncSession, consumer: str) -> Sequence[str]:
    statement = (
        select(ParkedEvent.key)
        .where(ParkedEvent.consumer == consumer, ParkedEvent.status == "parked")
        .group_by(ParkedEvent.key)
        .order_by(func.min(ParkedEvent.id))
    )
    return (await session.scalars(statement)).all()


async def find(session: AsyncSession, consumer: str, parked_id: int) -> ParkedEvent:
    """Raises NotFound."""
    row = await session.get(ParkedEvent, parked_id)
    if row is None or row.consumer != consumer:
        raise NotFound(
            f"{consumer} has parked nothing under {parked_id}; see `farebox parked list`"
        )
    return row


async def retry_key(session: AsyncSession, consumer: str, handlers: Handlers, key: str) -> Retried:
    """Apply a customer's parked facts in order, up to the first that still cannot be.

    Their rows stay locked until the caller commits: the consumer, which asks for them, waits.
    """
    applied = 0
    # More may have been parked behind them while we waited for the lock.
    while rows := await _lock_open(session, consumer, key):
        for place, row in enumerate(rows):
            error = await _try(session, consumer, handlers, row)
            if error is not None:
                return Retried(key, applied, row.id, error, len(rows) - place - 1)
            applied += 1
    return Retried(key, applied)


async def _lock_open(session: AsyncSession, consumer: str, key: str) -> Sequence[ParkedEvent]:
    statement = (
        select(ParkedEvent)
        .where(ParkedEvent.consumer == consumer, ParkedEvent.key == key)
        .where(ParkedEvent.status == "parked")
        .order_by(ParkedEvent.id)
        .limit(AT_ONCE)
        .with_for_update()
    )
    rows = (await session.scalars(statement)).all()
    # What follows works with rolled back savepoints; the rows as read must outlive them.
    session.expunge_all()
    return rows


async def _try(
    session: AsyncSession, consumer: str, handlers: Handlers, row: ParkedEvent
) -> str | None:
    """Apply one fact and note it; the reason where that cannot be.  Transient faults are the caller's."""
    try:
        async with session.begin_nested():
            event = event_of(row.body, row.headers)
            if type(event) not in handlers:
                raise Conflict(f"{consumer} does not handle {event.type}")
            await claim_and_apply(session, consumer, handlers, [event])
    except Exception as error:
        if is_transient(error):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".replace("\x00", "\\x00")
        await session.execute(
            update(ParkedEvent)
            .where(ParkedEvent.id == row.id)
            .values(error=reason, attempts=ParkedEvent.attempts + 1)
        )
        return reason
    await _resolve(session, row.id, "retried")
    return None


async def drop(session: AsyncSession, consumer: str, parked_id: int, reason: str) -> ParkedEvent:
    """Give up one parked fact for ever; the row and the reason stay.  Raises NotFound or Conflict."""
    row = await find(session, consumer, parked_id)
    await _lock_open(session, consumer, row.key)
    row = await find(session, consumer, parked_id)
    if row.status != "parked":
        raise Conflict(f"{parked_id} was {row.status} already")
    await _resolve(session, parked_id, "dropped", f"dropped: {reason} (was: {row.error})")
    if is_uuid(row.event_id):
        # A replay of the topic must not apply what was given up.
        await claim(session, consumer, [UUID(row.event_id)])
    return row


def is_uuid(text: str | None) -> TypeGuard[str]:
    try:
        UUID(text or "")
    except ValueError:
        return False
    return True


async def _resolve(
    session: AsyncSession, parked_id: int, status: str, error: str | None = None
) -> None:
    values = {"status": status, "resolved_at": func.now(), "attempts": ParkedEvent.attempts + 1}
    if error is not None:
        values["error"] = error
    await session.execute(update(ParkedEvent).where(ParkedEvent.id == parked_id).values(**values))
