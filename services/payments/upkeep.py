"""What a worker does beside the money, unhurried: fees asked for, old bodies redacted."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from services.payments.fees import FeeSearch
from services.payments.redaction import Redaction
from shared.clock import Clock, utc_now
from shared.db import raw_pool
from shared.settings import Settings
from shared.worker import Loop, every

# At most one batch of either a second: what comes in is folded first.
STEP_SECONDS = 1.0


def loop(settings: Settings, clock: Clock = utc_now) -> Loop:
    holder = f"{socket.gethostname()}:{os.getpid()}"

    async def run(stop: asyncio.Event) -> None:
        url, days = settings.url_of("payments"), settings.farebox_raw_body_days
        async with (
            raw_pool(url, "payments", size=1) as pool,
            asyncio.TaskGroup() as group,
        ):
            if days:
                redaction = Redaction(pool, holder, days, clock)
                group.create_task(every(stop, STEP_SECONDS, _unhurried(redaction.run_once)))
            if settings.farebox_ask_fees and settings.stripe_api_key:
                search = FeeSearch(pool, clock)
                group.create_task(every(stop, STEP_SECONDS, _unhurried(search.run_once)))

    return run


def _unhurried(step: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
    """Pauses after each step, also one that found work."""

    async def paused() -> int:
        await step()
        return 0

    return paused
