"""Orders are carried out: Stripe is asked between transactions, and its answer is a fact in the one that ends the order.

A crash anywhere leaves an open order, which is asked again under the same key.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import orjson

from services.payments.gateway import (
    Asking,
    Done,
    Lost,
    Refused,
    StripeAway,
    StripeBarred,
    StripeClient,
    amount_of,
    do,
    find,
    open_envelope,
    ordered_body,
    patience,
    told_of,
)
from services.payments.orders import held
from services.payments.store import Arrival, insert
from shared import lease, log
from shared.clock import Clock
from shared.events import derived_id
from shared.faults import is_transient

LEASE = "orders"
# Asked side by side: Stripe answers in some 0.3 s, and allows 100 requests a second.
AT_ONCE = 4
BATCH_ORDERS = 20
# Longer than one batch takes when every answer is late: nobody else takes these up meanwhile.
HELD = timedelta(seconds=90)
# Stripe forgets a key after 24 hours: from then on the same request would be done once more.
KEY_LIVES = timedelta(hours=23)
# Whoever does not answer so often may have done it all the same: that is looked for from then on.
LOOKED_FOR_AFTER = 3
# A request that Stripe has not answered is done by then, or never.
STRIPE_IS_AT_IT = timedelta(minutes=10)
KEYS_FORGOTTEN = timedelta(hours=24)
# Whoever confirmed a payment waits no longer than this, and is not to be charged after that.
CONFIRMATION_LIVES = timedelta(hours=1)

# Committed before Stripe is asked: from `first_asked_at` on the order may have been carried out.
CLAIM = """
UPDATE stripe_orders o
SET ask_after = $1::timestamptz + $2::interval, attempts = o.attempts + 1,
    first_asked_at = coalesce(o.first_asked_at, $1), failure_code = NULL
FROM (
    SELECT id, first_asked_at, failure_code FROM stripe_orders WHERE status = 'open' AND ask_after <= $1
    ORDER BY ask_after LIMIT $3 FOR UPDATE SKIP LOCKED
) due
WHERE o.id = due.id
RETURNING o.id, o.kind, o.parameters::text AS parameters, o.stripe_payment_id, o.account,
    o.currency, o.amount_minor, o.attempts, o.first_asked_at, due.first_asked_at IS NOT NULL AS asked_before, o.traceparent,
    due.failure_code AS held_by
"""
MODE = "SELECT livemode FROM payment_intents WHERE stripe_id = $1"
END = """
UPDATE stripe_orders SET status = $2, ended_at = $3, stripe_object_id = $4,
    stripe_payment_id = coalesce(stripe_payment_id, $5), payment_id = coalesce(payment_id, $6),
    failure_code = $7, last_error = $8, refused_status = $9, advice_code = $10
WHERE id = $1 AND status = 'open'
"""
POSTPONE = """
UPDATE stripe_orders SET last_error = $2, ask_after = $3, failure_code = NULL
WHERE id = $1 AND status = 'open'
"""

logger = log.get("orders")


@dataclass(frozen=True)
class Claimed:
    """An order that is ours to ask for now.  `asked_before`: Stripe may have done it already."""

    id: UUID
    kind: str
    parameters: dict[str, object]
    stripe_payment_id: str | None
    account: str | None
    currency: str | None
    amount_minor: int | None
    attempts: int
    first_asked_at: datetime
    asked_before: bool
    traceparent: str | None
    held_by: str | None = None  # why Stripe did not listen the last time, see held.py

    @property
    def path(self) -> str:
        match self.kind:
            case "create":
                return "/v1/payment_intents"
            case "refund":
                return "/v1/refunds"
            case _:
                return f"/v1/payment_intents/{self.stripe_payment_id}/{self.kind}"

    @property
    def is_waited_for(self) -> bool:
        """Somebody stands before a screen, and will have gone or paid otherwise in an hour."""
        at_once = self.parameters.get("confirm") is True and not self.parameters.get("off_session")
        return self.kind == "confirm" or (self.kind == "create" and at_once)

    @property
    def lives(self) -> timedelta:
        return CONFIRMATION_LIVES if self.is_waited_for else KEY_LIVES


async def run_once(pool: asyncpg.Pool, client: StripeClient, holder: str, clock: Clock) -> int:
    """Ask for what is due; returns how many orders were ended."""
    async with pool.acquire() as connection:
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM stripe_orders WHERE status = 'open' AND ask_after <= $1)",
            clock(),
        ):
            return 0
        if await lease.take(connection, LEASE, holder) is None:
            return 0
        due = await connection.fetch(CLAIM, clock(), HELD, BATCH_ORDERS)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(order: Claimed) -> bool:
        async with gate:
            return await _carry_out(pool, client, order, clock)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(one(_claimed(row))) for row in due]
    return sum(task.result() for task in asked)


def _claimed(row: asyncpg.Record) -> Claimed:
    return Claimed(**{**row, "parameters": orjson.loads(row["parameters"])})


async def _carry_out(
    pool: asyncpg.Pool, client: StripeClient, order: Claimed, clock: Clock
) -> bool:
    try:
        outcome = await ask(client, order, clock())
        async with pool.acquire() as connection, connection.transaction():
            await settle(connection, order, outcome, clock())
        await held.follow(pool, order.held_by, order.account, clock())
    except StripeAway as error:
        away = error
    except Exception as error:
        if is_transient(error):
            raise
        # One order's fault is not the others': it waits, and an operator is told.
        away = StripeAway(repr(error))
        logger.error("order cannot be carried out", order_id=str(order.id), error=away.detail)
    else:
        return True
    async with pool.acquire() as connection:
        await put_off(connection, order, away, clock())
    return False


async def ask(client: StripeClient, order: Claimed, now: datetime) -> Done | Refused:
    """What Stripe answers; an order too old for its key is looked for first.  Raises StripeAway."""
    age = now - order.first_asked_at
    is_over = age > order.lives or order.held_by == held.WITHDRAWING
    # What a confirmation has come to is seen on the payment, and not taken for too old before its time.
    is_late = order.attempts > LOOKED_FOR_AFTER and order.kind != "confirm"
    if order.asked_before and (is_over or is_late):
        found = await find(client, _lost(order))
        if found is None and is_over:
            found = _given_up(order, age)
        if found is not None:
            return found
    if order.kind == "confirm" and (refused := await _told_otherwise(client, order)):
        return refused
    key = f"farebox-{order.id}"
    try:
        outcome = await do(client, order.path, order.parameters, key, order.account)
    except StripeBarred as barred:
        if barred.bar != "idempotency_error" or (used := await _used(client, order)) is None:
            raise
        return used
    except StripeAway as away:
        if not away.is_replayed or order.kind == "confirm":
            raise
        outcome = await _beyond_a_kept_answer(client, order, age, away)
    told_of(outcome)
    return outcome


async def _beyond_a_kept_answer(
    client: StripeClient, order: Claimed, age: timedelta, away: StripeAway
) -> Done | Refused:
    """Stripe keeps a 500 for a day, whatever it did before that: it is looked for, and asked for anew where it did nothing."""
    found = await find(client, _lost(order))
    if found is not None:
        return found
    if age < STRIPE_IS_AT_IT:
        raise away
    # Always this one: whoever dies here asks for the same again.
    return await do(
        client, order.path, order.parameters, f"farebox-{order.id}-again", order.account
    )


async def _used(client: StripeClient, order: Claimed) -> Done | Refused | None:
    """What an order's key was used for before, with other parameters: by a database that was restored since, mostly."""
    lost = _lost(order)
    return await find(client, replace(lost, asked_at=lost.asked_at - KEYS_FORGOTTEN))


def _given_up(order: Claimed, age: timedelta) -> Refused | None:
    """What Stripe has not done and nobody wants any more.  Raises StripeAway while it may still be at it."""
    if order.held_by == held.WITHDRAWING:
        if age < STRIPE_IS_AT_IT:
            raise StripeAway("its customer has left; whether Stripe is still at it is waited for")
        message = "the customer left before Stripe did it"
        return Refused(held.WITHDRAWN, None, message, 409, None)
    if order.is_waited_for:
        message = "too old to be charged now: ask the customer again"
        return Refused("confirmation_expired", None, message, 409, None)
    return None


def _lost(order: Claimed) -> Lost:
    return Lost(
        order.id,
        order.kind,
        order.parameters,
        order.stripe_payment_id,
        order.account,
        order.first_asked_at,
    )


async def _told_otherwise(client: StripeClient, order: Claimed) -> Refused | None:
    """No event tells of an amount that was changed at Stripe: it is looked at before it is charged."""
    amount_minor, currency = await amount_of(client, order.stripe_payment_id or "", order.account)
    if (amount_minor, currency) == (order.amount_minor, order.currency):
        return None
    message = (
        f"the payment is over {amount_minor} {currency} at Stripe,"
        f" the customer was told {order.amount_minor} {order.currency}"
    )
    return Refused("amount_not_told", None, message, 409, None)


async def settle(
    connection: asyncpg.Connection, order: Claimed, outcome: Done | Refused, at: datetime
) -> bool:
    """Store what Stripe answered and end the order, in the caller's transaction; False where it had ended."""
    told = told_of(outcome)
    payment = order.stripe_payment_id
    if told is not None and told.object == "payment_intent":
        payment = told.id
    refusal = outcome if isinstance(outcome, Refused) else None
    ended = await connection.execute(
        END,
        order.id,
        "refused" if refusal else "done",
        at,
        told.id if told else None,
        payment,
        derived_id("payment", payment) if payment else None,
        refusal.reason if refusal else None,
        refusal.message if refusal else None,
        refusal.http_status if refusal else None,
        refusal.advice if refusal else None,
    )
    if ended != "UPDATE 1":
        return False
    livemode = await connection.fetchval(MODE, payment)
    asking = Asking(
        order.id, order.kind == "create", order.first_asked_at, bool(livemode), order.account
    )
    body = ordered_body(asking, outcome)
    if body is not None:
        await insert(connection, [Arrival(open_envelope(body), body, order.traceparent)])
    return True


async def put_off(
    connection: asyncpg.Connection, order: Claimed, away: StripeAway, at: datetime
) -> None:
    """The outcome is not known, or Stripe does not listen: the order stays open and is asked again."""
    if isinstance(away, StripeBarred):
        was = (order.asked_before or order.is_waited_for, order.held_by)
        await held.hold(connection, order.id, away, was, at)
        return
    logger.warning("order stays open", order_id=str(order.id), error=away.detail)
    again_at = at + patience(order.attempts, away)
    await connection.execute(POSTPONE, order.id, away.detail, again_at)
