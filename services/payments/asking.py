"""Asking Stripe what no fact at hand can say; the answer is stored as a fact like any other.

Stripe is asked between transactions.  A crash after the answer asks again: one question has one event id.
"""

from datetime import datetime

import asyncpg

from services.payments.fold_records import (
    CONTRADICTION,
    UNTOLD_REFUNDS,
    WHICH_PAYMENT,
    WHOSE_PAYMENT,
)
from services.payments.gateway import (
    BACKOFF,
    Question,
    StripeAway,
    StripeClient,
    UnknownToStripe,
    answer_body,
    open_envelope,
    patience,
)
from services.payments.store import Arrival, insert
from shared import lease, log
from shared.clock import Clock

LEASE = "ask"
# Few enough to be asked one after the other before the lease ends, at the usual 0.2 s each.
BATCH_QUESTIONS = 20

DUE = """
SELECT id, subject, phase, second, livemode, account, attempts FROM stripe_questions
WHERE answered_at IS NULL AND ask_after <= $1 ORDER BY ask_after LIMIT $2
"""
# The question may have moved on to a later second while this one was asked: then it stays open.
CLOSE = """
UPDATE stripe_questions SET answered_at = $4, last_error = $5
WHERE id = $1 AND phase = $2 AND second = $3
"""
POSTPONE = """
UPDATE stripe_questions SET attempts = attempts + 1, last_error = $2, ask_after = $3 WHERE id = $1
"""
LATER = "UPDATE stripe_questions SET ask_after = $1 WHERE answered_at IS NULL AND ask_after < $1"
# The thin events that led here are done; whoever waits for a charge or a payment is released by the fold.
FETCHED = """
UPDATE stripe_events
SET status = 'applied', waiting_for = NULL, detail = $2, processed_at = $3
WHERE status = 'received' AND waiting_for = $1
"""
GIVE_UP = """
UPDATE stripe_events SET status = 'parked', waiting_for = NULL, detail = $2, processed_at = $3
WHERE status = 'received' AND waiting_for = ANY($1)
"""
# A fold that lost its lease may have missed what another learned at that moment.
RELEASE_CHARGES = """
UPDATE stripe_events SET waiting_for = NULL, detail = NULL FROM stripe_charges c
WHERE status = 'received' AND waiting_for = c.id
"""
RELEASE_PAYMENTS = """
UPDATE stripe_events SET waiting_for = NULL, detail = NULL FROM payment_intents p
WHERE stripe_events.status = 'received' AND waiting_for = p.stripe_id
"""
# What came by itself need not be asked.
FORGET = """
DELETE FROM stripe_questions q
WHERE answered_at IS NULL AND reason = ANY($1)
  AND NOT EXISTS (
    SELECT FROM stripe_events e
    WHERE e.status = 'received' AND e.waiting_for = split_part(q.subject, '/', 4)
  )
"""

# Most contradictions pass by themselves, once what was late has come.  A subject ends with the payment's id.
RESOLVED = """
DELETE FROM stripe_questions q USING payment_intents p
WHERE q.answered_at IS NULL AND q.reason = ANY($1) AND p.anomaly IS NULL
  AND p.stripe_id = substring(q.subject FROM '[^/=]+$')
"""

# The oldest first, by their key: an answer is an event by now, and of its question nobody asks after a week.
DONE_WITH = """
DELETE FROM stripe_questions
WHERE answered_at < now() - interval '7 days'
  AND id IN (SELECT id FROM stripe_questions ORDER BY id LIMIT 1000)
"""

logger = log.get("asking")


async def run_once(pool: asyncpg.Pool, client: StripeClient, holder: str, clock: Clock) -> int:
    """Ask what is due; returns how many questions were answered."""
    async with pool.acquire() as connection:
        due = await connection.fetch(DUE, clock(), BATCH_QUESTIONS)
        if not due or await lease.take(connection, LEASE, holder) is None:
            return 0
    answered = 0
    for row in due:
        question = Question(
            row["subject"], row["phase"], row["second"], row["livemode"], row["account"]
        )
        try:
            body = answer_body(question, await client.ask(question), clock())
        except StripeAway as away:
            logger.warning("stripe did not answer", subject=question.subject, error=away.detail)
            await _postpone(pool, row, away, clock())
            if away.is_of_all:
                break
            continue
        except UnknownToStripe as unknown:
            await _give_up(pool, row["id"], question, unknown.detail, clock())
        else:
            await _store(pool, row["id"], question, body, clock())
        answered += 1
    return answered


async def _postpone(
    pool: asyncpg.Pool, row: asyncpg.Record, away: StripeAway, now: datetime
) -> None:
    """Where Stripe would answer no other question either, none is asked before it said so."""
    again_at = now + patience(row["attempts"] + 1, away)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(POSTPONE, row["id"], away.detail, again_at)
        if away.is_of_all:
            await connection.execute(LATER, now + max(BACKOFF[0], away.retry_after))


async def tidy_once(pool: asyncpg.Pool) -> int:
    """Release what waits for something that is known by now; forget questions nobody waits for."""
    async with pool.acquire() as connection, connection.transaction():
        released = [await connection.execute(each) for each in (RELEASE_CHARGES, RELEASE_PAYMENTS)]
        await connection.execute(FORGET, [WHOSE_PAYMENT, WHICH_PAYMENT])
        await connection.execute(RESOLVED, [CONTRADICTION, UNTOLD_REFUNDS])
        await connection.execute(DONE_WITH)
    return sum(int(tag.rpartition(" ")[2]) for tag in released)


async def _store(
    pool: asyncpg.Pool, number: int, question: Question, body: bytes, at: datetime
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await insert(connection, [Arrival(open_envelope(body), body, None)])
        detail = f"Stripe was asked: see {question.event_id}"
        await connection.execute(FETCHED, question.subject, detail, at)
        await connection.execute(CLOSE, number, question.phase, question.second, at, None)


async def _give_up(
    pool: asyncpg.Pool, number: int, question: Question, why: str, at: datetime
) -> None:
    """Stripe itself knows no such object: nobody can say more, so an operator must look."""
    logger.error("stripe knows no such object", subject=question.subject, why=why)
    waiting = [question.subject, question.subject.rpartition("/")[2]]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(GIVE_UP, waiting, why, at)
        await connection.execute(CLOSE, number, question.phase, question.second, at, why)
