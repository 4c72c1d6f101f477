"""What a batch of the fold reads and writes: one statement per table, whatever the batch's size."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson

from services.payments.domain import Fold, PaymentState, decode, encode
from services.payments.gateway import Question
from shared.events import PaymentChanged
from shared.outbox import headers_of
from shared.trace import Cause

# Why Stripe is asked about a charge or a payment that somebody waits for.
WHOSE_PAYMENT = "whose payment is this?"
WHICH_PAYMENT = "what is this payment?"
WHOSE_INVOICE = "who was this invoiced to?"
CONTRADICTION = "the payment contradicts itself"
WHAT_FEE = "what did Stripe keep of it?"
UNTOLD_REFUNDS = "which refunds does it have?"


@dataclass(frozen=True, slots=True)
class RawEvent:
    position: int
    id: str
    livemode: bool
    body: bytes
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one event: applied, ignored, parked, or still received and waiting for something."""

    status: str
    payment: str | None = None
    detail: str | None = None
    waiting_for: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A payment's row as it was; `id` names it in our own words."""

    id: UUID
    revision: int
    fold: Fold


@dataclass(frozen=True, slots=True)
class Row:
    """A payment's row as it shall be."""

    id: UUID
    stripe_id: str
    revision: int
    fold: Fold
    state: PaymentState
    is_new: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question for Stripe, and when it may be asked at the earliest."""

    question: Question
    reason: str
    ask_after: datetime


NEXT = """
SELECT position, octet_length(body) AS size_bytes FROM stripe_events
WHERE status = 'received' AND waiting_for IS NULL AND position > $1 ORDER BY position LIMIT $2
"""
HOLD = "SELECT fence FROM leases WHERE name = $1 AND holder = $2 FOR UPDATE"
READ = """
SELECT position, id, livemode, body, traceparent FROM stripe_events
WHERE position = ANY($1) AND status = 'received' AND waiting_for IS NULL
ORDER BY position
"""
LOAD = """
SELECT id, stripe_id, revision, fold::text AS fold FROM payment_intents
WHERE stripe_id = ANY($1)
"""
COLUMNS = {
    "id": "uuid",
    "stripe_id": "text",
    "livemode": "boolean",
    "account": "text",
    "user_id": "uuid",
    "subscription_id": "uuid",
    "status": "text",
    "currency": "text",
    "amount_minor": "bigint",
    "capturable_minor": "bigint",
    "received_minor": "bigint",
    "refunded_minor": "bigint",
    "disputed_minor": "bigint",
    "fee_minor": "bigint",
    "net_minor": "bigint",
    "failure_code": "text",
    "decline_code": "text",
    "payment_method_type": "text",
    "three_d_secure": "text",
    "mandate_id": "text",
    "review": "text",
    "invoice_id": "text",
    "created_at": "timestamptz",
    "succeeded_at": "timestamptz",
    "canceled_at": "timestamptz",
    "revision": "bigint",
    "anomaly": "text",
    "fold": "jsonb",
}
_NAMES = ", ".join(COLUMNS)
_ARRAYS = ", ".join(f"${i}::{kind}[]" for i, kind in enumerate(COLUMNS.values(), 1))
INSERT = f"INSERT INTO payment_intents ({_NAMES}) SELECT * FROM unnest({_ARRAYS})"
UPDATE = f"""
UPDATE payment_intents SET {", ".join(f"{name} = new.{name}" for name in COLUMNS if name != "id")}
FROM unnest({_ARRAYS}) AS new ({_NAMES}) WHERE payment_intents.id = new.id
"""
STAGE = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
SELECT id, aggregatetype, aggregateid, type, payload::jsonb, headers::jsonb
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    WITH ORDINALITY AS new (id, aggregatetype, aggregateid, type, payload, headers, place)
ORDER BY place
"""
MARK = """
UPDATE stripe_events SET status = new.status, stripe_payment_id = new.payment, detail = new.detail,
    waiting_for = new.waiting_for,
    processed_at = CASE WHEN new.status = 'received' THEN NULL ELSE $6::timestamptz END
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS new (position, status, payment, detail, waiting_for)
WHERE stripe_events.position = new.position
    AND stripe_events.status = 'received' AND stripe_events.waiting_for IS NULL
"""
# That a charge belongs to a payment is never taken back; that it belongs to none may have been too early.
LEARN = """
INSERT INTO stripe_charges AS c (id, stripe_payment_id)
SELECT * FROM unnest($1::text[], $2::text[]) AS new (id, payment) ORDER BY new.id
ON CONFLICT (id) DO UPDATE SET stripe_payment_id = excluded.stripe_payment_id
WHERE c.stripe_payment_id IS NULL AND excluded.stripe_payment_id IS NOT NULL
RETURNING id
"""
RELEASE = """
UPDATE stripe_events SET waiting_for = NULL, detail = NULL
WHERE status = 'received' AND waiting_for = ANY($1)
"""
# Left alone because their charge belonged to no payment, as it then seemed.
TAKE_UP = """
UPDATE stripe_events SET status = 'received', stripe_payment_id = NULL, detail = NULL,
    processed_at = NULL
WHERE stripe_payment_id = ANY($1) AND status = 'ignored'
"""
ASK = """
INSERT INTO stripe_questions AS q (subject, phase, second, livemode, account, reason, ask_after)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::boolean[], $5::text[], $6::text[],
    $7::timestamptz[])
ON CONFLICT (subject, reason) WHERE answered_at IS NULL DO UPDATE
SET phase = excluded.phase, second = excluded.second, ask_after = excluded.ask_after
WHERE (excluded.phase, excluded.second) > (q.phase, q.second)
"""


async def load(connection: asyncpg.Connection, payments: Collection[str]) -> dict[str, Stored]:
    """The payments that have a row, by Stripe's id; the lease keeps others from changing them."""
    rows = await connection.fetch(LOAD, sorted(payments))
    return {
        row["stripe_id"]: Stored(row["id"], row["revision"], decode(row["fold"])) for row in rows
    }


async def write(connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
    for statement, some in (
        (INSERT, [row for row in rows if row.is_new]),
        (UPDATE, [row for row in rows if not row.is_new]),
    ):
        if some:
            columns = [columns_of(row) for row in some]
            await connection.execute(
                statement, *(list(each) for each in zip(*columns, strict=True))
            )


async def stage(
    connection: asyncpg.Connection, changes: Sequence[tuple[PaymentChanged, Cause]]
) -> None:
    if changes:
        await connection.execute(
            STAGE,
            [event.id for event, _ in changes],
            [event.topic for event, _ in changes],
            [event.key for event, _ in changes],
            [event.type for event, _ in changes],
            [event.model_dump_json() for event, _ in changes],
            [orjson.dumps(headers_of(event, cause)).decode() for event, cause in changes],
        )


async def mark(
    connection: asyncpg.Connection, verdicts: Mapping[int, Verdict], now: datetime
) -> int:
    """How many there were: those that were still to be folded."""
    if not verdicts:
        return 0
    return _count(
        await connection.execute(
            MARK,
            list(verdicts),
            [verdict.status for verdict in verdicts.values()],
            [verdict.payment for verdict in verdicts.values()],
            [verdict.detail for verdict in verdicts.values()],
            [verdict.waiting_for for verdict in verdicts.values()],
            now,
        )
    )


async def learn_charges(
    connection: asyncpg.Connection, payments: Mapping[str, str | None]
) -> list[str]:
    """Note which payment each charge belongs to; returns the charges of which that is news."""
    if not payments:
        return []
    rows = await connection.fetch(LEARN, list(payments), list(payments.values()))
    return [row["id"] for row in rows]


async def known_charges(
    connection: asyncpg.Connection, charges: Collection[str]
) -> dict[str, str | None]:
    if not charges:
        return {}
    rows = await connection.fetch(
        "SELECT id, stripe_payment_id FROM stripe_charges WHERE id = ANY($1)", list(charges)
    )
    return {row["id"]: row["stripe_payment_id"] for row in rows}


async def release(connection: asyncpg.Connection, waited_for: Sequence[str]) -> int:
    """How many events waited for one of these, or were left alone for want of it."""
    if not waited_for:
        return 0
    names = list(waited_for)
    released = _count(await connection.execute(RELEASE, names))
    return released + _count(await connection.execute(TAKE_UP, names))


async def ask(connection: asyncpg.Connection, wanted: Sequence[Wanted]) -> None:
    if wanted:
        questions = [each.question for each in wanted]
        await connection.execute(
            ASK,
            [question.subject for question in questions],
            [question.phase for question in questions],
            [question.second for question in questions],
            [question.livemode for question in questions],
            [question.account for question in questions],
            [each.reason for each in wanted],
            [each.ask_after for each in wanted],
        )


def columns_of(row: Row) -> tuple[object, ...]:
    """The row's values in the order of COLUMNS: all of them but `id` and `revision` follow from the fold."""
    state, fold = row.state, row.fold
    return (
        row.id,
        row.stripe_id,
        fold.livemode,
        fold.account or None,
        state.user_id,
        state.subscription_id,
        state.status,
        state.currency,
        state.amount_minor,
        state.capturable_minor,
        state.received_minor,
        state.refunded_minor,
        state.disputed_minor,
        state.fee_minor,
        state.net_minor,
        state.failure_code,
        state.decline_code,
        state.payment_method_type,
        state.three_d_secure,
        state.mandate_id,
        state.review,
        state.invoice_id,
        moment(state.created_at),
        optional_moment(state.succeeded_at),
        optional_moment(state.canceled_at),
        row.revision,
        state.anomaly,
        encode(fold).decode(),
    )


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


def moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def optional_moment(second: int | None) -> datetime | None:
    return None if second is None else moment(second)
