"""One step of a walk: at most one call to Stripe, and one transaction that keeps what it told and where we are."""

from datetime import timedelta
from typing import assert_never

from services.payments.gateway import StripeAway, StripeBarred, UnknownToStripe
from services.payments.reconcile import runs
from services.payments.reconcile.events import walk_events
from services.payments.reconcile.objects import has_suspects, settle_suspects, walk_objects
from services.payments.reconcile.payouts import walk_lines, walk_payouts
from services.payments.reconcile.runs import Cursor, Overtaken, Run
from services.payments.reconcile.walker import Walker
from shared import log

# Whoever took their access back for a day does not give it again by the hour.
ACCESS_COMES_BACK = timedelta(days=1)
# How soon it is looked again whether the fold has caught up.
FOLD_WAIT = timedelta(seconds=1)

LAST_POSITION = "SELECT coalesce(max(position), 0) FROM stripe_events"
UNFOLDED = """
SELECT EXISTS (
    SELECT FROM stripe_events
    WHERE status = 'received' AND waiting_for IS NULL AND position <= $1
)
"""

logger = log.get("reconcile")


async def step(walker: Walker, run: Run) -> int:
    """1 where the walk went on, 0 where it has to wait.  Raises StripeBarred once it is noted that it waits."""
    try:
        return await _step(walker, run)
    except StripeBarred as barred:
        await _note_bar(walker, run, barred)
        raise
    except StripeAway as away:
        said = away.data.get("retry_after_seconds")
        told = timedelta(seconds=said) if isinstance(said, int) else None
        async with walker.pool.acquire() as connection:
            at = await runs.postpone(connection, run, away.detail, told, walker.clock())
        logger.warning(
            "the walk waits", stage=run.cursor.stage, error=away.detail, until=at.isoformat()
        )
        return 0
    except UnknownToStripe as unknown:
        if run.cursor.after is None:
            raise
        # The page before has left the list: events are kept for 30 days.  What was seen is known by now.
        logger.warning("the list has moved on", stage=run.cursor.stage, error=unknown.detail)
        anew = Cursor(run.cursor.stage, payout=run.cursor.payout)
        async with walker.pool.acquire() as connection:
            await runs.advance(connection, run, anew, 0)
        return 1
    except Overtaken:
        return 0


async def _note_bar(walker: Walker, run: Run, barred: StripeBarred) -> None:
    now = walker.clock()
    async with walker.pool.acquire() as connection:
        is_accounts = run.account is not None and barred.bar == "permission_refused"
        if is_accounts and now - run.started_at > ACCESS_COMES_BACK:
            await runs.give_up(connection, run, f"no access: {barred.detail}", now)
            logger.error("no access to a connected account", account=run.account)
            return
        at = await runs.postpone(connection, run, barred.detail, None, now)
    logger.error("stripe does not listen", error=barred.detail, until=at.isoformat())


async def _step(walker: Walker, run: Run) -> int:
    match run.cursor.stage:
        case "events":
            await walk_events(walker, run)
        case "folding":
            return await _await_fold(walker, run, Cursor("payments"))
        case "payments":
            await walk_objects(walker, run, "payments", Cursor("refunds"))
        case "refunds":
            await walk_objects(walker, run, "refunds", Cursor("disputes"))
        case "disputes":
            await walk_objects(walker, run, "disputes", Cursor("invoice_payments"))
        case "invoice_payments":
            await _walk_invoice_payments(walker, run)
        case "grace":
            await _grant(walker, run)
        case "settling":
            return await _await_fold(walker, run, Cursor("suspects"))
        case "suspects":
            await _settle(walker, run)
        case "payouts":
            await walk_payouts(walker, run)
        case "lines":
            await _take_apart(walker, run)
        case _:
            assert_never(run.cursor.stage)
    return 1


async def _await_fold(walker: Walker, run: Run, after: Cursor) -> int:
    """What has come by now is folded before anything is compared with it."""
    async with walker.pool.acquire() as connection, connection.transaction():
        position = run.cursor.position
        if position is None:
            position = await connection.fetchval(LAST_POSITION)
            await runs.advance(connection, run, Cursor(run.cursor.stage, position=position), 0)
            return 1
        if await connection.fetchval(UNFOLDED, position):
            await runs.wait(connection, run, walker.clock() + FOLD_WAIT)
            return 0
        await runs.advance(connection, run, after, 0)
        return 1


async def _walk_invoice_payments(walker: Walker, run: Run) -> None:
    """A shop that bills with farebox alone need not let its key read invoices: then there is nothing to compare."""
    after_last = Cursor("grace")
    try:
        await walk_objects(walker, run, "invoice_payments", after_last)
    except StripeBarred as barred:
        if barred.bar != "permission_refused":
            raise
        logger.warning("invoices are not compared", account=run.account, error=barred.detail)
        async with walker.pool.acquire() as connection:
            await runs.advance(connection, run, after_last, 0)


async def _grant(walker: Walker, run: Run) -> None:
    """What differs may be on its way: it is looked at again when that has had its time."""
    async with walker.pool.acquire() as connection, connection.transaction():
        if await has_suspects(connection, run):
            at = walker.clock() + walker.grace
            await runs.advance(connection, run, Cursor("settling"), 0, at)
        else:
            await runs.advance(connection, run, Cursor("payouts"), 0)


async def _settle(walker: Walker, run: Run) -> None:
    if await settle_suspects(walker, run):
        return
    async with walker.pool.acquire() as connection, connection.transaction():
        await runs.advance(connection, run, Cursor("payouts"), 0)


async def _take_apart(walker: Walker, run: Run) -> None:
    if await walk_lines(walker, run) is None:
        async with walker.pool.acquire() as connection:
            await runs.end(connection, run, walker.clock())
        logger.info("reconciled", run_id=str(run.id), account=run.account)
