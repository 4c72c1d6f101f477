"""One seed from its play to the verdict: delivered, folded, asked about, compared."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import asyncpg

from cli.database import transaction_of
from cli.prove.doors import SECRET, Post, stripe_door, webhook_door
from cli.prove.judge import differences
from cli.prove.lives import START, Delivery, Lives, groups, play
from services.payments import asking, fold
from services.payments.fees import SWEEP_EVERY, FeeSearch
from services.payments.gateway import StripeClient, open_envelope
from services.payments.rebuild import rebuild
from services.payments.reconcile.walker import Walker
from services.payments.reconcile.work import EVENTS_LAST, reconcile
from services.payments.store import Arrival, insert
from shared.db import raw_pool
from shared.settings import Settings

HOLDER = "proof"
# Of the groups of deliveries; the others are stored as the webhook stores them, without the way through HTTP.
POSTED_SHARE = 0.2
# Fees are asked for within 30 days: time goes on in steps that no such window misses.
STEP = timedelta(days=10)
LAST_SWEEPS = 2
# A payment that is asked about for ever is a fault of its own.
MOST_TURNS = 100_000


class NeverQuiet(Exception):
    """There was still something to do after so many turns that there always will be."""


@dataclass
class Now:
    """A clock that only the proof turns."""

    moment: datetime

    def __call__(self) -> datetime:
        return self.moment


@dataclass(frozen=True)
class Plan:
    seed: int
    payments: int
    losses: bool = False


@dataclass
class Verdict:
    """`differences` is what is wrong, a line each; empty where everything agrees."""

    plan: Plan
    faults: str
    deliveries: int
    events: int
    dropped: int
    posted: int = 0
    asked: int = 0
    mended: int = 0
    rebuilt: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


@dataclass
class Run:
    """What one seed's steps share."""

    pool: asyncpg.Pool
    client: StripeClient
    post: Post
    now: Now
    fees: FeeSearch
    rng: Random
    verdict: Verdict

    async def deliver(self, group: Sequence[Delivery]) -> None:
        bodies = [delivery.body for delivery in group]
        if self.rng.random() < POSTED_SHARE:
            await self.post.send(bodies)
            self.verdict.posted += len(bodies)
            return
        async with self.pool.acquire() as connection:
            await insert(connection, [Arrival(open_envelope(b), b, None) for b in bodies])

    async def fold(self) -> int:
        return await fold.run_once(self.pool, HOLDER, self.now, livemode=False)

    async def mend(self) -> None:
        """What never came, and what Stripe never made an event of."""
        walker = Walker(
            self.pool,
            self.client,
            HOLDER,
            self.now,
            livemode=False,
            grace=timedelta(0),
            lag=timedelta(0),
            sleep=self._wait,
        )
        report = await reconcile(walker, self.now.moment - EVENTS_LAST)
        self.verdict.mended += report.mended

    async def settle(self) -> None:
        """Until nobody has anything left to do at this time."""
        for _ in range(MOST_TURNS):
            if await self.fold():
                continue
            asked = await asking.run_once(self.pool, self.client, HOLDER, self.now)
            self.verdict.asked += asked
            if not asked and not await self.fees.run_once() and not await self._tidy():
                return
        raise NeverQuiet(f"seed {self.verdict.plan.seed}")

    async def _wait(self, seconds: float) -> None:
        """Time goes on, and nobody waits for it."""
        self.now.moment += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    async def _tidy(self) -> int:
        return await asking.tidy_once(self.pool)


async def prove(plan: Plan, database_url: str) -> Verdict:
    """Play and judge one seed in a migrated database that holds nothing yet."""
    began = time.monotonic()
    lives = await play(plan.seed, plan.payments, losses=plan.losses)
    verdict = Verdict(plan, str(lives.faults), len(lives.deliveries), lives.events, lives.dropped)
    now = Now(datetime.fromtimestamp(START, UTC))
    settings = Settings(
        database_url=database_url, stripe_webhook_secrets=SECRET, stripe_api_key="sk_test_proof"
    )
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(stripe_door(lives.sandbox))
        pool = await stack.enter_async_context(
            raw_pool(settings.url_of("payments"), "payments", size=3)
        )
        post = await stack.enter_async_context(webhook_door(settings, now))
        client = StripeClient(settings.stripe_api_key, url)
        stack.push_async_callback(client.close)
        rng = Random(f"{plan.seed}:turns")
        run = Run(pool, client, post, now, FeeSearch(pool, now), rng, verdict)
        await _live(run, lives)
        async with pool.acquire() as connection:
            verdict.differences += await differences(connection, lives)
    verdict.differences += await _rebuilt(settings, verdict)
    verdict.seconds = time.monotonic() - began
    return verdict


async def _live(run: Run, lives: Lives) -> None:
    for group in groups(lives.deliveries, run.rng):
        await run.deliver(group)
        while run.rng.random() < 0.5 and await run.fold():
            pass
    end = datetime.fromtimestamp(lives.end, UTC) + STEP
    while run.now.moment < end:
        run.now.moment += STEP
        lives.sandbox.clock.set(int(run.now.moment.timestamp()), ticking=False)
        await run.settle()
        if run.verdict.plan.losses:
            await run.mend()
            await run.settle()
    # What one sweep of the fees learns may be what the next one asks about.
    for _ in range(LAST_SWEEPS):
        run.now.moment += SWEEP_EVERY
        await run.settle()


async def _rebuilt(settings: Settings, verdict: Verdict) -> list[str]:
    async with transaction_of(settings, "payments") as session:
        found = await rebuild(session)
    verdict.rebuilt = found.agreed
    return [f"{name} rebuilt differs in {difference}" for name, difference in found.differed]
