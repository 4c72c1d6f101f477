"""When Stripe's lists are walked: by a schedule in the worker, or at once by command.  A run that was cut short goes on."""

from datetime import UTC, datetime, timedelta

import asyncpg

from services.payments import fold
from services.payments.gateway import StripeAway, StripeBarred
from services.payments.reconcile import runs
from services.payments.reconcile.report import Report, report_of
from services.payments.reconcile.runs import Run, Window
from services.payments.reconcile.walk import step
from services.payments.reconcile.walker import Walker
from shared import lease

LEASE = "reconcile"
# Stripe keeps events for as long.
EVENTS_LAST = timedelta(days=30)
# The next run begins so long before the end of the last: their edges overlap.
OVERLAP = timedelta(hours=1)
# A payment may change without an event long after it was made: so often all of the last 30 days are compared.
DEEP_EVERY = timedelta(days=1)
# A command gives up when Stripe has not answered for so many times in a row, after some two minutes; the run stays.
MOST_FAILURES = 4
POLL_SECONDS = 1.0

# New accounts are looked for when our own lists are due: it reads every payment.
ACCOUNTS = "SELECT DISTINCT account FROM payment_intents WHERE account IS NOT NULL ORDER BY account"


async def run_once(walker: Walker, every: timedelta) -> int:
    """The schedule: open runs that are due, then take the next step of one.  Returns 0 where there is nothing to do."""
    async with walker.pool.acquire() as connection:
        now = walker.clock()
        run = await runs.next_run(connection, now)
        if run is None and await _is_due(connection, walker, every):
            await _open_due(connection, walker)
            run = await runs.next_run(connection, now)
        if run is None or await lease.take(connection, LEASE, walker.holder) is None:
            return 0
    try:
        return await step(walker, run)
    except StripeBarred:
        return 0  # it is noted, and tried again: somebody may put the key right


async def reconcile(walker: Walker, since: datetime | None, account: str | None = None) -> Report:
    """Walk all lists to their end, folding in between; a run that is open and covers `since` is the one.

    Raises StripeAway where Stripe does not answer, StripeBarred at once where it does not listen: the run stays open
    and goes on with the next call or by schedule.
    """
    while True:
        async with walker.pool.acquire() as connection:
            run = await runs.open_run(connection, account)
            if run is None:
                await _open(connection, walker, account, since)
                run = await runs.open_run(connection, account)
        # Another process may have walked it to its end just now.
        if run is None:
            continue
        await _walk_to_end(walker, run)
        if since is None or run.since <= since:
            async with walker.pool.acquire() as connection:
                return await report_of(connection, run.id)


async def _walk_to_end(walker: Walker, run: Run) -> None:
    current: Run | None = run
    while current is not None and current.id == run.id:
        now = walker.clock()
        waits = current.walk_after is not None and current.walk_after > now
        if waits and current.failures >= MOST_FAILURES:
            raise StripeAway(
                f"Stripe did not answer {current.failures} times, last: {current.last_error};"
                " the run goes on from here next time"
            )
        if waits or not await _take_step(walker, current):
            await _let_fold(walker)
        async with walker.pool.acquire() as connection:
            current = await runs.open_run(connection, run.account)


async def _take_step(walker: Walker, run: Run) -> int:
    async with walker.pool.acquire() as connection:
        if await lease.take(connection, LEASE, walker.holder) is None:
            return 0
    return await step(walker, run)


async def _let_fold(walker: Walker) -> None:
    """Where no worker runs, nobody else folds."""
    if not await fold.run_once(walker.pool, walker.holder, walker.clock, walker.livemode):
        await walker.sleep(POLL_SECONDS)


async def _is_due(connection: asyncpg.Connection, walker: Walker, every: timedelta) -> bool:
    last = await runs.last(connection, None, EVENTS_LAST)
    return last.started_at is None or last.started_at + every <= walker.clock()


async def _open_due(connection: asyncpg.Connection, walker: Walker) -> None:
    accounts = [None, *(row["account"] for row in await connection.fetch(ACCOUNTS))]
    for account in accounts:
        await _open(connection, walker, account, None)


async def _open(
    connection: asyncpg.Connection, walker: Walker, account: str | None, since: datetime | None
) -> None:
    now = walker.clock()
    until = _whole_second(now - walker.lag)
    if since is not None:
        begin = _whole_second(since)
        window = Window(begin, begin, max(until, begin + timedelta(seconds=1)))
    else:
        window = await _next_window(connection, account, until, now)
    await runs.start(connection, account, window, now)


async def _next_window(
    connection: asyncpg.Connection, account: str | None, until: datetime, now: datetime
) -> Window:
    last = await runs.last(connection, account, EVENTS_LAST)
    since = until - EVENTS_LAST
    if last.until is not None:
        since = max(since, min(last.until, until) - OVERLAP)
    is_deep = last.deep_at is None or last.deep_at + DEEP_EVERY <= now
    return Window(since, until - EVENTS_LAST if is_deep else since, until)


def _whole_second(at: datetime) -> datetime:
    """Stripe's times are whole seconds."""
    return at.astimezone(UTC).replace(microsecond=0)
