"""What a walk needs: the database, Stripe, the time, and how fast and how patient it is."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

from services.payments.gateway import Listing, Page, StripeClient, page_of
from services.payments.reconcile.runs import Cursor, Run
from shared.clock import Clock

# A tenth of what Stripe allows in live mode, 100 calls a second, which the shop's own calls share.
PACE_PER_SECOND = 10
# What Stripe and we know differently at one moment, most often is on its way.
GRACE = timedelta(seconds=60)
# A webhook of the last minutes is not missing yet.
LAG = timedelta(minutes=5)


@dataclass(frozen=True)
class Walker:
    """`holder` names the process; `livemode` is the key's mode, None where it does not say."""

    pool: asyncpg.Pool
    client: StripeClient
    holder: str
    clock: Clock
    livemode: bool | None = None
    pace_per_second: int = PACE_PER_SECOND
    grace: timedelta = GRACE
    lag: timedelta = LAG
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def page(self, listing: Listing, after: str | None) -> Page:
        """At the pace of one page in so many of a second.  Raises StripeAway or UnknownToStripe."""
        await self.pause()
        return await page_of(self.client, listing, after)

    async def pause(self) -> None:
        await self.sleep(1 / self.pace_per_second)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a page held: the objects looked at, those found missing, and where the walk goes on."""

    looked: int
    missing: int
    next: Cursor


def following(run: Run, page: Page, stage: Cursor) -> Cursor:
    """The next page of this stage, or `stage` after the last."""
    return Cursor(run.cursor.stage, after=page.next) if page.next else stage
