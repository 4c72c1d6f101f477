"""Payments' two processes: `python -m services.payments.app web|worker`."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from services.payments import asking, fold, gauges
from services.payments.api import router
from services.payments.gateway import StripeClient, mode_of
from services.payments.handlers import HANDLERS
from services.payments.orders import work
from services.payments.webhook import StripeDoor, Webhook
from shared import log
from shared.clock import Clock, utc_now
from shared.db import Sessions, raw_pool
from shared.settings import Settings
from shared.web import Web, create_app, serve
from shared.worker import Loop, every, main, run_worker

# How long a webhook waits at most for the fold to look again when it was idle.
FOLD_IDLE_SECONDS = 0.05
ASK_IDLE_SECONDS = 1.0
ORDER_IDLE_SECONDS = 0.2
TIDY_SECONDS = 10.0
# The fold, the questions, the orders, the tidying: one connection each.
POOL_CONNECTIONS = 4

logger = log.get("payments")


def create_web(settings: Settings, clock: Clock = utc_now) -> StripeDoor:
    webhook = Webhook(settings, clock)
    app = create_app(
        Web(
            settings,
            "payments",
            router,
            hears=tuple(HANDLERS),
            clock=clock,
            lifespans=(webhook.lifespan, gauges.lifespan),
        )
    )
    return StripeDoor(app, webhook)


def raw_loops(settings: Settings, clock: Clock = utc_now) -> Loop:
    """Fold, ask Stripe, and tidy up, on connections of their own."""
    holder = f"{socket.gethostname()}:{os.getpid()}"

    async def run(stop: asyncio.Event) -> None:
        url = settings.url_of("payments")
        async with (
            AsyncExitStack() as stack,
            raw_pool(url, "payments", size=POOL_CONNECTIONS) as pool,
            asyncio.TaskGroup() as group,
        ):
            mode = mode_of(settings.stripe_api_key)
            step = partial(fold.run_once, pool, holder, clock, mode)
            group.create_task(every(stop, FOLD_IDLE_SECONDS, step))
            group.create_task(every(stop, TIDY_SECONDS, partial(asking.tidy_once, pool)))
            if not settings.stripe_api_key:
                logger.warning("no STRIPE_API_KEY: what only Stripe can say stays open")
                return
            client = StripeClient(settings.stripe_api_key, settings.stripe_api_base)
            stack.push_async_callback(client.close)
            ask = partial(asking.run_once, pool, client, holder, clock)
            group.create_task(every(stop, ASK_IDLE_SECONDS, ask))
            order = partial(work.run_once, pool, client, holder, clock)
            group.create_task(every(stop, ORDER_IDLE_SECONDS, order))

    return run


def loops(settings: Settings, sessions: Sessions) -> Sequence[Loop]:
    return (raw_loops(settings),)


def web(settings: Settings) -> None:
    serve(create_web(settings), settings, "payments")


def worker(settings: Settings) -> None:
    run_worker(settings, "payments", HANDLERS, loops)


if __name__ == "__main__":
    main("payments", web, worker)
