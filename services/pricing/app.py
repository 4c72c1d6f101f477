"""Composition root of pricing: `python -m services.pricing.app web|worker`."""

import asyncio
from collections.abc import Sequence
from functools import partial

from fastapi import FastAPI

from services.pricing import preview, rollout, tidying
from services.pricing.api import router
from services.pricing.handlers import HANDLERS
from shared.clock import Clock, utc_now
from shared.db import Sessions
from shared.settings import Settings
from shared.web import Web, create_app, serve
from shared.worker import Loop, every, main, run_worker

# How late a scheduled version or a new rollout may be noticed; a running rollout does not wait.
ROLLOUT_IDLE_SECONDS = 0.5
TIDY_SECONDS = 30.0


def create_web(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    return create_app(Web(settings, "pricing", router, tuple(HANDLERS), clock))


def web(settings: Settings) -> None:
    serve(create_web(settings), settings, "pricing")


def worker(settings: Settings) -> None:
    run_worker(settings, "pricing", HANDLERS, _loops)


def _loops(settings: Settings, sessions: Sessions) -> Sequence[Loop]:
    walker = preview.Walker(zone=settings.time_zone)
    memory = rollout.Memory(zone=settings.time_zone)

    async def look_ahead(stop: asyncio.Event) -> None:
        step = partial(preview.run_once, sessions, utc_now, walker)
        await every(stop, ROLLOUT_IDLE_SECONDS, step)

    async def roll_out(stop: asyncio.Event) -> None:
        step = partial(rollout.run_once, sessions, utc_now, None, memory)
        await every(stop, ROLLOUT_IDLE_SECONDS, step)

    async def tidy(stop: asyncio.Event) -> None:
        await every(stop, TIDY_SECONDS, partial(tidying.run_once, sessions))

    return (look_ahead, roll_out, tidy)


if __name__ == "__main__":
    main("pricing", web, worker)
