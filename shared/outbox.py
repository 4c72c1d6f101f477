"""Facts wait here, in the transaction that made them true, until the relay sends them to Kafka.

Column names follow Debezium's outbox event router, so that CDC can take over without a schema change.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Identity, Index, func, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import Event
from shared.trace import Cause, child_of


class OutboxMessage(Base):
    __tablename__ = "outbox"

    position: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    id: Mapped[UUID] = mapped_column(unique=True)
    aggregatetype: Mapped[str]  # topic after the prefix
    aggregateid: Mapped[str]  # message key
    type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    headers: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        Index("ix_outbox_unpublished", "position", postgresql_where=text("published_at IS NULL")),
    )


async def publish(session: AsyncSession, events: Iterable[tuple[Event, Cause]]) -> None:
    """Stage facts with their causes, in order.  They are sent if, and only if, the caller commits."""
    rows = [_row(event, cause) for event, cause in events]
    if rows:
        await session.execute(insert(OutboxMessage), rows)


async def say_why(session: AsyncSession, cause: Cause, now: datetime) -> None:
    """Tell the trigger on `public.subscriptions` the cause and the time of what this transaction writes."""
    await session.execute(
        text(
            "SELECT set_config('farebox.cause', :cause, true), set_config('farebox.now', :now, true),"
            " set_config('farebox.traceparent', :traceparent, true)"
        ),
        {
            "cause": cause.id,
            "now": now.isoformat(),
            "traceparent": child_of(cause.traceparent),
        },
    )


def _row(event: Event, cause: Cause) -> dict[str, Any]:
    return {
        "id": event.id,
        "aggregatetype": event.topic,
        "aggregateid": event.key,
        "type": event.type,
        "payload": event.body(),
        "headers": headers_of(event, cause),
    }


def headers_of(event: Event, cause: Cause) -> dict[str, str]:
    """CloudEvents attributes beyond id, type and source, which the relay adds from the columns."""
    return {
        "ce_subject": event.key,
        "ce_time": event.occurred_at.isoformat(),
        "ce_dataschema": event.dataschema(),
        "ce_causationid": cause.id,
        "traceparent": child_of(cause.traceparent),
    }
