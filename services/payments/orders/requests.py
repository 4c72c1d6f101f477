"""One `Idempotency-Key`, one order: remembered with it in one transaction, answered alike whenever it is sent again."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import orjson
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.models import ApiRequest
from shared.clock import Clock
from shared.errors import Conflict, FareboxError, InvalidInput

# Longer than Stripe is waited for: whoever holds a request this long has died.
HELD = timedelta(seconds=20)
# Stripe remembers keys for a day; a caller that tries again after this has lost its place anyway.
REMEMBERED = timedelta(days=30)
MAX_KEY_LENGTH = 255


class IdempotencyKeyMissing(FareboxError):
    status = 400
    title = "An Idempotency-Key is needed"


class IdempotencyKeyInFlight(Conflict):
    title = "A request with this Idempotency-Key is being carried out"


class IdempotencyKeyReused(InvalidInput):
    title = "This Idempotency-Key belongs to another request"


@dataclass(frozen=True)
class Keyed:
    """Who asks under which key; `fingerprint` tells one request from another, `order_id` is for a new one."""

    caller: str
    key: str
    fingerprint: str
    order_id: UUID


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: given once, and again whenever the same is asked."""

    order_id: UUID
    status: int
    body: dict[str, object]
    is_replay: bool = False


@dataclass(frozen=True)
class Left:
    """A request whose answer nobody gave: its order says what became of it."""

    order_id: UUID


KEEP = """
UPDATE api_requests SET status = $3, answer = $4::jsonb
WHERE caller = $1 AND idempotency_key = $2 AND status IS NULL
"""
LET_GO = """
UPDATE api_requests SET held_until = $3 WHERE caller = $1 AND idempotency_key = $2
"""
FORGET = """
DELETE FROM api_requests WHERE (caller, idempotency_key) IN (
    SELECT caller, idempotency_key FROM api_requests WHERE created_at < $1 LIMIT 1000
)
"""


def keyed(caller: str, key: str, path: str, asked: BaseModel) -> Keyed:
    """Raises InvalidInput for a key that is none."""
    if len(key) > MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise InvalidInput(f"an Idempotency-Key is 1 to {MAX_KEY_LENGTH} printable characters")
    canonical = orjson.dumps(asked.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    fingerprint = hashlib.sha256(path.encode() + b"\n" + canonical).hexdigest()
    return Keyed(caller, key, fingerprint, uuid4())


async def remember(session: AsyncSession, keyed: Keyed, now: datetime) -> Answer | Left | None:
    """None for a request that is new.  Raises where the key is another request's, or its own is under way."""
    written = await session.execute(
        insert(ApiRequest)
        .values(
            caller=keyed.caller,
            idempotency_key=keyed.key,
            order_id=keyed.order_id,
            fingerprint=keyed.fingerprint,
            created_at=now,
            held_until=now + HELD,
        )
        .on_conflict_do_nothing()
        .returning(ApiRequest.caller)
    )
    if written.first() is not None:
        return None
    known = (
        await session.scalars(
            select(ApiRequest).where(
                ApiRequest.caller == keyed.caller, ApiRequest.idempotency_key == keyed.key
            )
        )
    ).one()
    if known.fingerprint != keyed.fingerprint:
        raise IdempotencyKeyReused("the same key came with another request; use a new one")
    if known.status is not None and known.answer is not None:
        return Answer(known.order_id, known.status, known.answer, is_replay=True)
    if known.held_until > now:
        raise IdempotencyKeyInFlight("wait for its answer, or send it again in a moment")
    return Left(known.order_id)


async def keep(connection: asyncpg.Connection, keyed: Keyed, answer: Answer) -> None:
    """The answer for all time; only the first is kept."""
    body = orjson.dumps(answer.body).decode()
    await connection.execute(KEEP, keyed.caller, keyed.key, answer.status, body)


async def let_go(connection: asyncpg.Connection, keyed: Keyed, now: datetime) -> None:
    """Nobody works on it any more; whoever sends it again is told what became of its order."""
    await connection.execute(LET_GO, keyed.caller, keyed.key, now)


async def forget_once(pool: asyncpg.Pool, clock: Clock) -> int:
    """Delete what nobody will send again; returns how many."""
    tag: str = await pool.execute(FORGET, clock() - REMEMBERED)
    return int(tag.rpartition(" ")[2])
