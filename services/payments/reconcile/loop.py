"""The worker's loop: Stripe's lists walked by themselves, in one worker at a time."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from services.payments.gateway import StripeClient, mode_of
from services.payments.reconcile.walker import Walker
from services.payments.reconcile.work import run_once
from shared.clock import Clock, utc_now
from shared.db import raw_pool
from shared.settings import Settings
from shared.worker import Loop, every

# How late a run begins, or goes on after it had to wait.
IDLE_SECONDS = 2.0


@asynccontextmanager
async def walker_of(settings: Settings, clock: Clock = utc_now) -> AsyncIterator[Walker]:
    """With connections and a Stripe client of its own."""
    client = StripeClient(settings.stripe_api_key, settings.stripe_api_base)
    try:
        async with raw_pool(settings.url_of("payments"), "payments", size=2) as pool:
            yield Walker(
                pool,
                client,
                f"{socket.gethostname()}:{os.getpid()}",
                clock,
                mode_of(settings.stripe_api_key),
                settings.farebox_reconcile_calls_per_second,
            )
    finally:
        await client.close()


def loop(settings: Settings, clock: Clock = utc_now) -> Loop:
    """Ends at once where there is no key, or FAREBOX_RECONCILE_MINUTES is 0."""
    minutes = settings.farebox_reconcile_minutes

    async def run(stop: asyncio.Event) -> None:
        if not minutes or not settings.stripe_api_key:
            return
        async with walker_of(settings, clock) as walker:
            await every(stop, IDLE_SECONDS, partial(run_once, walker, timedelta(minutes=minutes)))

    return run
