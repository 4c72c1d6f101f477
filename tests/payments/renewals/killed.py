"""Workers whose renewals, orders and fold are killed by SIGKILL at the n-th await (`proof.dying`), one forked after the other.

Reads its errand as the first line of JSON, then a line `n NOW` for each worker; answers with how it ended: -9, or 0
where n was past its last.
"""

import asyncio
import os
import sys
import traceback
from datetime import datetime
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from services.payments import fold
from services.payments.gateway import StripeClient
from services.payments.orders import work as orders
from services.payments.renewals import work
from services.payments.renewals.outcomes import Rules
from shared.db import create_engine, create_sessions, raw_pool
from tests.payments.proof.dying import Count, counted, kill_at


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
    for line in sys.stdin:
        at, now = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            # What is logged is nobody's business here; what is wrong goes to stderr.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                asyncio.run(live(errand, datetime.fromisoformat(now), Count(int(at))))
                code = 0
            except BaseException:  # noqa: BLE001 - the code it leaves with says it
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
