"""Facts wait here, in the transaction that made them true, until the relay sends them to Kafka.

Column names follow Debezium's outbox event router, so that CDC can take over without a schema change.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import BigInteger, DateTime, Identity, Index, func, text
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


# Each column as one array: row by row, the same rows cost several times as much on either side.
_STAGE = text(
    "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)"
    " SELECT id, topic, key, type, CAST(payload AS jsonb), CAST(headers AS jsonb)"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(:topics AS text[]), CAST(:keys AS text[]),"
    " CAST(:types AS text[]), CAST(:payloads AS text[]), CAST(:headers AS text[]))"
    " WITH ORDINALITY AS staged (id, topic, key, type, payload, headers, place) ORDER BY place"
)


async def publish(session: AsyncSession, events: Iterable[tuple[Event, Cause]]) -> None:
    """Stage facts with their causes, in order.  They are sent if, and only if, the caller commits."""
    staged = list(events)
    if not staged:
        return
    facts = [event for event, _ in staged]
    await session.execute(
        _STAGE,
        {
            "ids": [fact.id for fact in facts],
            "topics": [fact.topic for fact in facts],
            "keys": [fact.key for fact in facts],
            "types": [fact.type for fact in facts],
            "payloads": [fact.model_dump_json() for fact in facts],
            "headers": [orjson.dumps(headers_of(*each)).decode() for each in staged],
        },
    )


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


def headers_of(event: Event, cause: Cause) -> dict[str, str]:
    """CloudEvents attributes beyond id, type and source, which the relay adds from the columns."""
    return {
        "ce_subject": event.key,
        "ce_time": event.occurred_at.isoformat(),
        "ce_dataschema": event.dataschema(),
        "ce_causationid": cause.id,
        "traceparent": child_of(cause.traceparent),
    }
