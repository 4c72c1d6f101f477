"""Where raw events come in: one statement for many, a repeated id is stored once."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from services.payments.gateway import Envelope


@dataclass(frozen=True, slots=True)
class Arrival:
    envelope: Envelope
    body: bytes
    traceparent: str | None


INSERT = """
INSERT INTO stripe_events
    (id, type, api_version, livemode, account, stripe_created_at, body, traceparent)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[],
    $6::timestamptz[], $7::bytea[], $8::text[])
ON CONFLICT (id) DO NOTHING
"""


async def insert(connection: asyncpg.Connection, arrivals: Sequence[Arrival]) -> None:
    """Durable when this returns, unless the caller has a transaction of its own open."""
    heads = [arrival.envelope for arrival in arrivals]
    await connection.execute(
        INSERT,
        [head.id for head in heads],
        [head.type for head in heads],
        [head.api_version for head in heads],
        [head.livemode for head in heads],
        [head.account for head in heads],
        [head.created_at for head in heads],
        [arrival.body for arrival in arrivals],
        [arrival.traceparent for arrival in arrivals],
    )
