"""Facts that cannot be applied wait here with all they came with; a customer's later facts wait behind."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    String,
    UniqueConstraint,
    any_,
    func,
    literal,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base


class ParkedEvent(Base):
    __tablename__ = "parked_events"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    consumer: Mapped[str]
    event_id: Mapped[str | None]
    key: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int]
    offset: Mapped[int] = mapped_column(BigInteger)
    body: Mapped[bytes]
    headers: Mapped[list[Any]] = mapped_column(JSONB)  # [[name, base64 of the value or null], …]
    error: Mapped[str]
    attempts: Mapped[int]
    status: Mapped[str] = mapped_column(server_default=text("'parked'"))
    parked_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    resolved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        UniqueConstraint("consumer", "topic", "partition", "offset"),
        CheckConstraint("status IN ('parked', 'retried', 'dropped')", name="status"),
        Index(
            "ix_parked_events_open", "consumer", "key", postgresql_where=text("status = 'parked'")
        ),
    )


async def keys_held_back(session: AsyncSession, consumer: str, keys: Iterable[str]) -> set[str]:
    """Of `keys`, those with an open parked fact.  Waits for a retry of one that is under way."""
    # One array, so that the statement is prepared once whatever the batch's size.
    named = any_(literal(sorted(set(keys)), ARRAY(String)))
    statement = (
        select(ParkedEvent.key)
        .where(ParkedEvent.consumer == consumer, ParkedEvent.status == "parked")
        .where(ParkedEvent.key == named)
        .with_for_update(read=True)
    )
    return set(await session.scalars(statement))


async def resolved_places(
    session: AsyncSession, consumer: str, places: Iterable[tuple[str, int, int]]
) -> set[tuple[str, int, int]]:
    """Of these (topic, partition, offset), those that were parked once and retried or dropped since."""
    place = tuple_(ParkedEvent.topic, ParkedEvent.partition, ParkedEvent.offset)
    statement = select(ParkedEvent.topic, ParkedEvent.partition, ParkedEvent.offset).where(
        ParkedEvent.consumer == consumer, ParkedEvent.status != "parked", place.in_(list(places))
    )
    return {
        (topic, partition, offset) for topic, partition, offset in await session.execute(statement)
    }


async def park(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Store facts that wait; parking the same record again changes nothing."""
    if rows:
        await session.execute(insert(ParkedEvent).on_conflict_do_nothing(), list(rows))


async def open_events(
    session: AsyncSession, consumer: str, *, key: str | None = None, limit: int = 1_000
) -> Sequence[ParkedEvent]:
    statement = select(ParkedEvent).where(
        ParkedEvent.consumer == consumer, ParkedEvent.status == "parked"
    )
    if key is not None:
        statement = statement.where(ParkedEvent.key == key)
    return (await session.scalars(statement.order_by(ParkedEvent.id).limit(limit))).all()
