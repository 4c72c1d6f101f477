"""What Stripe kept of a payment: webhooks name only the balance transaction, so Stripe is asked for it.

Unhurried: never more than a few such questions are open at once, so that what money hangs on is asked first, and the
fold does nothing for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from services.payments import fold_records as records
from services.payments.domain import Fold, decode, state
from services.payments.fold_records import Wanted
from services.payments.gateway import (
    Question,
    booked_subject,
    settled_subject,
    transaction_subject,
)
from shared.clock import Clock

# Asked one after the other at some 0.2 s each, these hold a question of money up for 2 s.
MOST_OPEN = 10
BATCH_PAYMENTS = 100
# Stripe books a charge within minutes, some ways to pay within a day; what is older has its fee or never will.
SETTLES_WITHIN = timedelta(minutes=10)
# By when it was created: an invoice may be paid after weeks of retries.
LOOKED_BACK = timedelta(days=90)
PAUSE = timedelta(minutes=1)
# A debit is paid days after it was created: the whole span is looked through again this often.
SWEEP_EVERY = timedelta(hours=1)
CHARGE_IDS = ("ch_", "py_")

OPEN = "SELECT count(*) FROM stripe_questions WHERE answered_at IS NULL AND reason = $1"
FEELESS = """
SELECT stripe_id, created_at, fold::text AS fold FROM payment_intents
WHERE (created_at, stripe_id) > ($1, $2) AND fee_minor IS NULL AND received_minor > 0
  AND succeeded_at < $3
ORDER BY created_at, stripe_id LIMIT $4
"""
ANSWERED = "SELECT id FROM stripe_events WHERE id = ANY($1)"


@dataclass(frozen=True, slots=True)
class Candidate:
    stripe_id: str
    created_at: datetime
    fold: Fold


class FeeSearch:
    """One worker's sweep over the payments whose fee is not known."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._after: tuple[datetime, str] | None = None
        self._rests_until = self._anew_at = datetime.min.replace(tzinfo=UTC)

    async def run_once(self) -> int:
        """Ask for the next fees; returns how many questions were put."""
        now = self._clock()
        if now < self._rests_until:
            return 0
        async with self._pool.acquire() as connection, connection.transaction():
            room = MOST_OPEN - await connection.fetchval(OPEN, records.WHAT_FEE)
            if room <= 0:
                return 0
            found = await self._next(connection, now)
            if not found:
                self._rests_until = now + PAUSE
                return 0
            return await self._put(connection, found, room)

    async def _next(self, connection: asyncpg.Connection, now: datetime) -> list[Candidate]:
        if now >= self._anew_at:
            self._after, self._anew_at = None, now + SWEEP_EVERY
        since, name = self._after or (now - LOOKED_BACK, "")
        rows = await connection.fetch(FEELESS, since, name, now - SETTLES_WITHIN, BATCH_PAYMENTS)
        return [Candidate(r["stripe_id"], r["created_at"], decode(r["fold"])) for r in rows]

    async def _put(
        self, connection: asyncpg.Connection, found: Sequence[Candidate], room: int
    ) -> int:
        asked = {each.stripe_id: questions(each.stripe_id, each.fold) for each in found}
        ids = [question.event_id for some in asked.values() for question in some]
        answered = {row["id"] for row in await connection.fetch(ANSWERED, ids)}
        wanted: list[Wanted] = []
        for each in found:
            open_ones = [q for q in asked[each.stripe_id] if q.event_id not in answered]
            # A payment captured more often than there is room for is asked about alone.
            if wanted and len(wanted) + len(open_ones) > room:
                break
            wanted += [Wanted(q, records.WHAT_FEE, self._clock()) for q in open_ones]
            self._after = (each.created_at, each.stripe_id)
        await records.ask(connection, wanted)
        return len(wanted)


def questions(stripe_id: str, fold: Fold) -> list[Question]:
    """Of each balance transaction that is only named; of the payment itself where its charge's was never named."""
    account = fold.account or None
    if fold.unsettled:
        subjects = [transaction_subject(each) for each in sorted(fold.unsettled)]
        return [Question(each, 0, 0, fold.livemode, account) for each in subjects]
    # A dispute's fee says nothing of the charge's, whose transaction may have been named by no event.
    if any(fee.is_charge for fee in fold.fees.values()):
        return _about_the_rest(fold)
    whole = settled_subject(stripe_id)
    return [Question(whole, fold.phase, fold.second, fold.livemode, account)]


def _about_the_rest(fold: Fold) -> list[Question]:
    """Of a charge captured in parts whose first part nobody told; none where it is settled in another currency."""
    currency = state(fold).currency
    charge = fold.method.attempt if fold.method else ""
    is_own = any(fee.is_charge and fee.currency == currency for fee in fold.fees.values())
    if not is_own or not charge.startswith(CHARGE_IDS):
        return []
    return [Question(booked_subject(charge), 0, 0, fold.livemode, fold.account or None)]
