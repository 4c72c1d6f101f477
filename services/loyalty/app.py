"""Loyalty's two processes: `python -m services.loyalty.app web|worker`."""

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI

from services.loyalty.api import router
from services.loyalty.handlers import HANDLERS, refresh_tiers
from shared.clock import Clock, utc_now
from shared.db import Sessions
from shared.settings import Settings
from shared.web import Web, create_app, serve
from shared.worker import Loop, every, main, run_worker

# A tier is shown too high for at most this long after its points have lapsed.
REFRESH_SECONDS = 60.0
# Accounts locked at once; their customers' payments wait meanwhile.
REFRESH_ACCOUNTS = 200


def create_web(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    return create_app(Web(settings, "loyalty", router, hears=tuple(HANDLERS), clock=clock))


def tier_loop(sessions: Sessions, clock: Clock = utc_now) -> Loop:
    async def step() -> int:
        async with sessions.begin() as session:
            return await refresh_tiers(session, clock(), REFRESH_ACCOUNTS)

    async def run(stop: asyncio.Event) -> None:
        await every(stop, REFRESH_SECONDS, step)

    return run


def loops(settings: Settings, sessions: Sessions) -> Sequence[Loop]:
    return (tier_loop(sessions),)


def web(settings: Settings) -> None:
    serve(create_web(settings), settings, "loyalty")


def worker(settings: Settings) -> None:
    run_worker(settings, "loyalty", HANDLERS, loops)


if __name__ == "__main__":
    main("loyalty", web, worker)
