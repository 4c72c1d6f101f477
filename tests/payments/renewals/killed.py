"""Workers whose renewals, orders and fold are killed by SIGKILL at the n-th await (`proof.dying`), one forked after the other.

Reads its errand as the first line of JSON, then a line `n NOW` for each worker; answers with how it ended: -9, or 0
where n was past its last.
"""

import asyncio
import os
import sys
from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from services.payments import fold
from services.payments.gateway import StripeClient
from services.payments.orders import work as orders
from services.payments.renewals import work
from services.payments.renewals.outcomes import Rules
from shared.db import create_engine, create_sessions, raw_pool
from tests.payments.proof.dying import Count, counted, kill_at, one_each


class Errand(BaseModel):
    database_url: str  # of payments' own role
    stripe_base: str
    dunning_days: tuple[int, ...]


async def live(errand: Errand, now: datetime, count: Count) -> None:
    """A worker's turns until it has nothing to do."""
    engine = create_engine(errand.database_url, "payments")
    client = StripeClient("sk_test_killed", errand.stripe_base)
    holder = f"worker {os.getpid()}"
    rules = Rules(ZoneInfo("UTC"), errand.dunning_days, pause_when_given_up=False)
    async with raw_pool(errand.database_url, "payments", size=4) as pool:
        turn = work.Renewals(pool, create_sessions(engine), rules, holder)

        async def turns() -> None:
            done = [1]
            while any(done):
                done = [
                    await work.run_once(turn, lambda: now),
                    await orders.run_once(pool, client, holder, lambda: now),
                    await fold.run_once(pool, holder, lambda: now),
                ]

        # Orders are asked for, and facts folded, in tasks of their own: their awaits count too.
        kill_at(count)
        await counted(turns(), count)


def main() -> None:
    errand = Errand.model_validate_json(sys.stdin.readline())

    def child(line: str) -> None:
        at, now = line.split()
        asyncio.run(live(errand, datetime.fromisoformat(now), Count(int(at))))

    one_each(child)


if __name__ == "__main__":
    main()
