"""Folds, mends and takes webhooks in children that are killed at the n-th await (`dying`).

Reads a line for each child: `fold URL n`, `mend URL n`, or `web URL n port`; answers with how it ended: -9, or 0 where n was past its last.
"""

import asyncio
import os
from datetime import UTC, datetime

import uvicorn
from starlette.types import Receive, Scope, Send

from services.payments import fold, mend
from services.payments.app import create_web
from shared.db import raw_pool
from shared.settings import Settings
from tests.payments.proof.dying import Count, counted, kill_at, one_each

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECRET = "whsec_of_the_killed"
SERVES_SECONDS = 30.0


async def fold_all(url: str, count: Count) -> None:
    """One owner's turns until nothing is left."""
    async with raw_pool(url, "payments", size=2) as pool:

        async def turns() -> None:
            while await fold.run_once(pool, f"holder-{os.getpid()}", lambda: NOW):
                pass

        # The fold does two things at once in tasks of its own: their awaits count too.
        kill_at(count)
        await counted(turns(), count)


async def mend_all(url: str, count: Count) -> None:
    """A few payments at a time, so that a death leaves some done and some not."""
    mend.CHUNK_PAYMENTS = 2
    async with raw_pool(url, "payments", size=1) as pool:
        await counted(mend.mend(pool, lambda: NOW), count)


async def take_webhooks(url: str, count: Count, port: int) -> None:
    """Counts from the first webhook on; ends by itself when nobody kills it."""
    settings = Settings(
        payments_database_url=url, stripe_webhook_secrets=SECRET, farebox_log_json=False
    )
    app = create_web(settings)
    count.armed = False

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        count.armed = count.armed or scope.get("path") == "/webhooks/stripe"
        await app(scope, receive, send)

    kill_at(count)
    config = uvicorn.Config(door, host="127.0.0.1", port=port, log_config=None, access_log=False)
    async with asyncio.timeout(SERVES_SECONDS):
        await uvicorn.Server(config).serve()


def child(line: str) -> None:
    kind, url, at, *port = line.split()
    count = Count(int(at))
    match kind:
        case "fold":
            asyncio.run(fold_all(url, count))
        case "mend":
            asyncio.run(mend_all(url, count))
        case "web":
            asyncio.run(take_webhooks(url, count, int(port[0])))
        case _:
            raise ValueError(kind)


if __name__ == "__main__":
    one_each(child)
