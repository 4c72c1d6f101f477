"""Payments whose rows are not what their events say are folded anew: an earlier release, or a rule since put right, made them.

The fold waits while a chunk is mended.  A chunk is one transaction: what is cut short goes on when it is run again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import asyncpg
import orjson
from pydantic import ValidationError

from services.payments import announce, fold
from services.payments import fold_records as records
from services.payments.domain import PaymentState, state
from services.payments.fold_batch import Batch, question_state
from services.payments.fold_records import COLUMNS, Row
from services.payments.models import PaymentIntent
from services.payments.rebuild import (
    ROWLESS,
    Applied,
    Refolded,
    Stray,
    changes,
    compare,
    refold,
)
from shared import log
from shared.clock import Clock
from shared.events import PaymentChanged, derived_id
from shared.trace import Cause, new_traceparent

# The fold waits as long as this many take when all of them differ: some 0.2 s.
CHUNK_PAYMENTS = 200
# Named one by one in the report; of what a release changed everywhere, its columns are counted.
MOST_NAMED = 1_000
# Which release or rule it was, nobody knows: the fact says that a mend has said it.
CAUSE = "mend:payments"

# Every batch of the fold holds this row: while it is ours, none is written.  An owner's lease is left as it is.
HOLD_FOLD = """
INSERT INTO leases AS l (name, holder, expires_at) VALUES ($1, 'mend', clock_timestamp())
ON CONFLICT (name) DO UPDATE SET expires_at = l.expires_at
"""
_NAMES = ", ".join(COLUMNS)
NEXT = f"SELECT {_NAMES} FROM payment_intents WHERE stripe_id > $1 ORDER BY stripe_id LIMIT $2"
ROWS = f"SELECT {_NAMES} FROM payment_intents WHERE stripe_id = ANY($1)"
APPLIED = """
SELECT stripe_payment_id, position, body FROM stripe_events
WHERE stripe_payment_id = ANY($1) AND status = 'applied' ORDER BY position
"""
ROWLESS_NEXT = """
SELECT DISTINCT e.stripe_payment_id FROM stripe_events e
WHERE e.status = 'applied' AND e.stripe_payment_id > $1
    AND NOT EXISTS (SELECT FROM payment_intents p WHERE p.stripe_id = e.stripe_payment_id)
ORDER BY 1 LIMIT $2
"""
TOLD = "SELECT id, payload::text AS payload FROM outbox WHERE id = ANY($1)"
# Only asked for payments that have lost their rows: the outbox has no index for it.
LAST_REVISIONS = """
SELECT payload->>'stripe_id' AS stripe_id, max((payload->>'revision')::bigint) AS revision
FROM outbox WHERE type = $2 AND payload->>'stripe_id' = ANY($1) GROUP BY 1
"""
UNLEARN = "DELETE FROM stripe_charges WHERE id = ANY($1)"
GIVE_BACK = """
UPDATE stripe_events SET status = 'received', stripe_payment_id = NULL, detail = NULL,
    waiting_for = NULL, processed_at = NULL
WHERE position = ANY($1) AND status = $2
"""

logger = log.get("mend")


@dataclass(frozen=True)
class Change:
    """One payment's row put right; `columns` is what each was and is, `announced` whether others were told."""

    stripe_id: str
    payment_id: UUID
    revision: int
    announced: bool
    why: str
    columns: Mapping[str, tuple[object, object]]


@dataclass
class Mended:
    """What was found and done.  `left` (Stripe's id, why) is an operator's; `changes` names the first thousand.

    `given_back` events are folded by the worker: of another payment, or read by this release and not by the one before.
    """

    agreed: int = 0
    mended: int = 0
    announced: int = 0
    given_back: int = 0
    events: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.left

    def note(self, change: Change) -> None:
        self.mended += 1
        self.announced += change.announced
        self.columns.update(change.columns.keys())
        if len(self.changes) < MOST_NAMED:
            self.changes.append(change)


@dataclass(frozen=True)
class Found:
    """A chunk's payments as they are, all that was applied to them, and what was last said of them."""

    rows: Mapping[str, PaymentIntent]
    applied: Mapping[str, Sequence[Applied]]
    told: Mapping[UUID, str]
    last_revisions: Mapping[str, int]


async def mend(
    pool: asyncpg.Pool, clock: Clock, on_progress: Callable[[Mended], None] | None = None
) -> Mended:
    """Compare every payment with its events, and write anew those that differ: row, next revision, fact.

    Others are told only where what they were told last is not true.
    """
    mended = Mended()
    tell = on_progress or (lambda _: None)
    async with pool.acquire() as connection:
        after = ""
        while rows := await connection.fetch(NEXT, after, CHUNK_PAYMENTS):
            after = rows[-1]["stripe_id"]
            differing = await _differing(connection, [_payment(row) for row in rows], mended)
            mended.agreed += len(rows) - len(differing)
            await _mend(connection, differing, mended, clock)
            tell(mended)
        after = ""
        while rows := await connection.fetch(ROWLESS_NEXT, after, CHUNK_PAYMENTS):
            after = rows[-1]["stripe_payment_id"]
            await _mend(connection, [row["stripe_payment_id"] for row in rows], mended, clock)
            tell(mended)
    return mended


async def give_back(connection: asyncpg.Connection, positions: Sequence[int], status: str) -> int:
    """Events that are `status` are folded once more; returns how many."""
    if not positions:
        return 0
    tag: str = await connection.execute(GIVE_BACK, list(positions), status)
    return int(tag.rpartition(" ")[2])


def _payment(row: asyncpg.Record) -> PaymentIntent:
    return PaymentIntent(**{**row, "fold": orjson.loads(row["fold"])})


async def _differing(
    connection: asyncpg.Connection, payments: Sequence[PaymentIntent], mended: Mended
) -> list[str]:
    """Looked at without holding anybody up; what is folded in between is looked at again."""
    names = [payment.stripe_id for payment in payments]
    applied = await _applied_to(connection, names)
    mended.events += sum(map(len, applied.values()))
    return [
        payment.stripe_id
        for payment in payments
        if compare(payment, refold(payment.stripe_id, applied.get(payment.stripe_id, ())))
    ]


async def _applied_to(
    connection: asyncpg.Connection, names: Sequence[str]
) -> dict[str, list[Applied]]:
    applied: dict[str, list[Applied]] = {}
    for row in await connection.fetch(APPLIED, list(names)):
        event = Applied(row["position"], row["body"])
        applied.setdefault(row["stripe_payment_id"], []).append(event)
    return applied


async def _mend(
    connection: asyncpg.Connection, names: Sequence[str], mended: Mended, clock: Clock
) -> None:
    if not names:
        return
    batch = Batch(clock())
    cause = Cause(CAUSE, new_traceparent())
    strays: list[Stray] = []
    done: list[Change] = []
    async with connection.transaction():
        await connection.execute(HOLD_FOLD, fold.LEASE)
        found = await _found(connection, names)
        for name in names:
            refolded = refold(name, found.applied.get(name, ()))
            strays += refolded.strays
            if refolded.unread is not None:
                mended.left.append((name, refolded.unread))
            elif change := _put_right(batch, name, refolded, found, cause):
                done.append(change)
            else:
                mended.agreed += 1  # folded in between
        await _record(connection, batch)
        # Whose they are is asked of Stripe, where no event tells.
        await connection.execute(UNLEARN, [each.charge for each in strays if each.charge])
        given_back = await give_back(connection, [each.position for each in strays], "applied")
    mended.given_back += given_back
    for change in done:
        mended.note(change)
    logger.info("mended", payments=len(done), announced=len(batch.changes), given_back=given_back)


async def _found(connection: asyncpg.Connection, names: Sequence[str]) -> Found:
    rows = [_payment(row) for row in await connection.fetch(ROWS, list(names))]
    lost = sorted(set(names) - {row.stripe_id for row in rows})
    asked = await connection.fetch(LAST_REVISIONS, lost, PaymentChanged.type) if lost else []
    last = {row["stripe_id"]: row["revision"] for row in asked}
    said = [announce.change_id(row.id, row.revision) for row in rows]
    said += [announce.change_id(_id_of(name), revision) for name, revision in last.items()]
    return Found(
        {row.stripe_id: row for row in rows},
        await _applied_to(connection, names),
        {row["id"]: row["payload"] for row in await connection.fetch(TOLD, said)},
        last,
    )


def _id_of(stripe_id: str) -> UUID:
    return derived_id("payment", stripe_id)


def _put_right(
    batch: Batch, name: str, refolded: Refolded, found: Found, cause: Cause
) -> Change | None:
    """None where the row is what its events say."""
    payment = found.rows.get(name)
    why = compare(payment, refolded) if payment else ROWLESS
    if why is None:
        return None
    row = _row(name, refolded, payment, found.last_revisions.get(name, 0))
    said = found.told.get(announce.change_id(row.id, row.revision))
    fact = announce.change(replace(row, revision=row.revision + 1), batch.now)
    is_news = not _says_the_same(said, fact)
    if is_news:
        row = replace(row, revision=fact.revision)
        batch.changes.append((fact, cause))
    batch.rows.append(row)
    for each in refolded.facts:
        batch.charges |= dict.fromkeys(each.charges, name)
    question_state(batch, row, _before(row, payment), max(fact.created for fact in refolded.facts))
    columns = changes(payment, refolded.fold) if payment else {}
    return Change(name, row.id, row.revision, is_news, why, columns)


def _row(name: str, refolded: Refolded, payment: PaymentIntent | None, revision: int) -> Row:
    """At the revision that was told last."""
    folded, after = refolded.fold, state(refolded.fold)
    if payment is None:
        return Row(_id_of(name), name, revision, folded, after, is_new=True)
    return Row(payment.id, name, payment.revision, folded, after, is_new=False)


def _before(row: Row, payment: PaymentIntent | None) -> PaymentState | None:
    """As far as it decides what Stripe is asked: what was asked once is not asked again."""
    if payment is None:
        return None
    return replace(row.state, anomaly=payment.anomaly, invoice_id=payment.invoice_id)


def _says_the_same(said: str | None, fact: PaymentChanged) -> bool:
    """Whether whoever heard `said` last knows what `fact` tells."""
    if said is None:
        return False
    try:
        told = PaymentChanged.model_validate_json(said)
    except ValidationError:
        return False
    own = {"id": fact.id, "occurred_at": fact.occurred_at, "revision": fact.revision}
    return told.model_copy(update=own) == fact


async def _record(connection: asyncpg.Connection, batch: Batch) -> None:
    news = await records.learn_charges(connection, batch.charges)
    await records.write(connection, batch.rows)
    await records.stage(connection, batch.changes)
    known = [*news, *_names_of(batch.rows)]
    await records.release(connection, known)
    await records.ask(connection, list(batch.wanted.values()))


def _names_of(rows: Iterable[Row]) -> list[str]:
    """Payments that have a row only now: events may wait for them."""
    return [row.stripe_id for row in rows if row.is_new]
