"""A fact's effect is applied once: its id is claimed in the transaction of the effect."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base


class InboxMessage(Base):
    """`consumer` is the consumer group; a service that reads for two purposes has two."""

    __tablename__ = "inbox"

    consumer: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[UUID] = mapped_column(primary_key=True)
    claimed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class ConsumerProgress(Base):
    """How far each partition is applied or parked; written in the same transaction as the effects."""

    __tablename__ = "consumer_progress"

    consumer: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True)
    next_offset: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


# Sorted, so that two consumers holding the same records in a rebalance queue instead of deadlocking.
_CLAIM = text(
    "INSERT INTO inbox (consumer, message_id)"
    " SELECT :consumer, id FROM unnest(CAST(:ids AS uuid[])) AS id ORDER BY id"
    " ON CONFLICT DO NOTHING RETURNING message_id"
)


async def claim(session: AsyncSession, consumer: str, message_ids: Sequence[UUID]) -> set[UUID]:
    """The ids that nobody has applied yet.  A concurrent duplicate blocks here until we commit."""
    if not message_ids:
        return set()
    rows = await session.scalars(_CLAIM, {"consumer": consumer, "ids": list(message_ids)})
    return set(rows)


async def applied(session: AsyncSession, consumer: str, message_ids: Sequence[UUID]) -> set[UUID]:
    """Of the ids, those whose facts took effect before."""
    statement = select(InboxMessage.message_id).where(
        InboxMessage.consumer == consumer, InboxMessage.message_id.in_(message_ids)
    )
    return set(await session.scalars(statement))


async def advance(
    session: AsyncSession, consumer: str, offsets: dict[tuple[str, int], int]
) -> None:
    """Note that everything before `offsets[topic, partition]` is applied or parked; never goes back."""
    if not offsets:
        return
    rows = [
        {"consumer": consumer, "topic": topic, "partition": partition, "next_offset": offset}
        for (topic, partition), offset in sorted(offsets.items())
    ]
    statement = insert(ConsumerProgress)
    later = func.greatest(ConsumerProgress.next_offset, statement.excluded.next_offset)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["consumer", "topic", "partition"],
            set_={"next_offset": later, "updated_at": func.now()},
        ),
        rows,
    )


async def progress_of(session: AsyncSession, consumer: str) -> dict[tuple[str, int], int]:
    statement = select(ConsumerProgress).where(ConsumerProgress.consumer == consumer)
    return {(p.topic, p.partition): p.next_offset for p in await session.scalars(statement)}
