"""Orders that Stripe does not listen to: a wrong key, a missing permission, another mode, a key used for something else.

They stay open and are tried again every minute or so, one a second at most; once Stripe listens to one of them, the
others of that kind follow at once.
"""

from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from services.payments.gateway import StripeBarred
from shared import log
from shared.clock import Clock

# Not held, but not asked again either: its customer has left, see renewals/follow.py.
WITHDRAWING, WITHDRAWN = "withdrawing", "withdrawn"
# Whoever has put the key right sees it work before the coffee is cold.
TRY_AGAIN = timedelta(minutes=1)
# Each held order puts the next tries off by this much, so that a hundred wrong calls a second are never made.
SPACING = timedelta(seconds=1)
# Stripe forgets the key after a day: until then the answer stays what it is.
KEY_IN_USE = timedelta(hours=1)

# What was refused at the door was not asked: an order that was never let in may still be withdrawn, and its key's day
# has not begun.  What somebody waits for keeps its age all the same: nobody waits an hour for it.
HOLD = """
UPDATE stripe_orders SET failure_code = $2, last_error = $3, ask_after = $4, attempts = greatest(attempts - 1, 0),
    first_asked_at = CASE WHEN $5 THEN first_asked_at END
WHERE id = $1 AND status = 'open'
"""
HELD = """
SELECT count(*) FROM stripe_orders WHERE status = 'open' AND failure_code = $1 AND id <> $2
"""
# Orders that are being asked for have no `failure_code` meanwhile: they are left alone.
FOLLOW = """
UPDATE stripe_orders SET ask_after = $1
WHERE id IN (
    SELECT id FROM stripe_orders
    WHERE status = 'open' AND failure_code = $2 AND account IS NOT DISTINCT FROM $3
    FOR UPDATE SKIP LOCKED
)
"""
TRY_ONE_EACH = """
UPDATE stripe_orders SET ask_after = $1
WHERE status = 'open' AND id IN (
    SELECT DISTINCT ON (failure_code, account) id FROM stripe_orders
    WHERE status = 'open' AND failure_code <> 'idempotency_error'
    ORDER BY failure_code, account, ask_after
)
"""

logger = log.get("orders")


async def hold(
    connection: asyncpg.Connection,
    order_id: UUID,
    barred: StripeBarred,
    was: tuple[bool, str | None],
    at: datetime,
) -> None:
    """`was`: whether the order's age counts from before this time, and what held it then."""
    keeps_age, held_by = was
    bar = barred.bar
    others = await connection.fetchval(HELD, bar, order_id)
    wait = KEY_IN_USE if bar == "idempotency_error" else TRY_AGAIN + others * SPACING
    keeps_age = keeps_age or bar == "idempotency_error"
    await connection.execute(HOLD, order_id, bar, barred.detail, at + wait, keeps_age)
    if held_by != bar:
        # One line for each is for whoever looks for it; the first is the operator's.
        say = logger.warning if others else logger.error
        say("stripe takes no orders", order_id=str(order_id), reason=bar, error=barred.detail)


async def follow(
    pool: asyncpg.Pool, held_by: str | None, account: str | None, at: datetime
) -> None:
    """Stripe has listened to one that was held: it may listen to the others."""
    if held_by is not None and held_by != "idempotency_error":
        await pool.execute(FOLLOW, at, held_by, account)
        logger.info("stripe takes orders again", reason=held_by)


async def try_one_each(pool: asyncpg.Pool, clock: Clock) -> int:
    """Run when a process starts, which may have been given another key: one of each kind is tried now."""
    await pool.execute(TRY_ONE_EACH, clock())
    return 0
