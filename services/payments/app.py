"""Payments' two processes: `python -m services.payments.app web|worker`."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter

from services.payments import asking, fold, gauges, upkeep
from services.payments.api import router
from services.payments.gateway import StripeClient, mode_of
from services.payments.handlers import HANDLERS
from services.payments.orders import api as orders
from services.payments.orders import held, requests, work
from services.payments.reconcile import api as payouts_api
from services.payments.reconcile import gauges as reconcile_gauges
from services.payments.reconcile import loop as reconcile
from services.payments.renewals import api as renewals_api
from services.payments.renewals import work as renewals
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
FORGET_SECONDS = 600.0
# How late at most a charge that became due, or its outcome, is noticed.
RENEWAL_IDLE_SECONDS = 1.0
# The fold, the questions, the tidying, and orders that are settled side by side.
POOL_CONNECTIONS = 6

logger = log.get("payments")


def create_web(settings: Settings, clock: Clock = utc_now) -> StripeDoor:
    webhook = Webhook(settings, clock)
    app = create_app(
        Web(
            settings,
            "payments",
            _routes(),
            hears=tuple(HANDLERS),
            clock=clock,
            lifespans=(
                webhook.lifespan,
                gauges.lifespan,
                reconcile_gauges.lifespan,
                orders.lifespan,
            ),
        )
    )
    return StripeDoor(app, webhook)


def _routes() -> APIRouter:
    routes = APIRouter()
    for each in (router, orders.router, renewals_api.router, payouts_api.router):
        routes.include_router(each)
    return routes


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
            folder = fold.Folder(pool, holder, clock, mode)
            group.create_task(every(stop, FOLD_IDLE_SECONDS, folder.run_once))
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
            group.create_task(every(stop, FORGET_SECONDS, partial(held.try_one_each, pool, clock)))
            forget = partial(requests.forget_once, pool, clock)
            group.create_task(every(stop, FORGET_SECONDS, forget))

    return run


def renewal_loop(settings: Settings, sessions: Sessions, clock: Clock = utc_now) -> Loop:
    holder = f"{socket.gethostname()}:{os.getpid()}"

    async def run(stop: asyncio.Event) -> None:
        if not settings.stripe_api_key:
            logger.error("FAREBOX_RENEWALS without STRIPE_API_KEY: nobody is charged")
            return
        async with raw_pool(settings.url_of("payments"), "payments", size=1) as pool:
            own = renewals.Renewals(pool, sessions, renewals.rules_of(settings), holder)
            await every(stop, RENEWAL_IDLE_SECONDS, partial(renewals.run_once, own, clock))

    return run


def loops(settings: Settings, sessions: Sessions) -> Sequence[Loop]:
    own = (raw_loops(settings), upkeep.loop(settings), reconcile.loop(settings))
    return (*own, renewal_loop(settings, sessions)) if settings.farebox_renewals else own


def web(settings: Settings) -> None:
    serve(create_web(settings), settings, "payments")


def worker(settings: Settings) -> None:
    run_worker(settings, "payments", HANDLERS, loops)


if __name__ == "__main__":
    main("payments", web, worker)
