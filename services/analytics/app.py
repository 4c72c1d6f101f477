"""Analytics' two processes: `python -m services.analytics.app web|worker`."""

import asyncio
from collections.abc import Sequence
from functools import partial

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.api import router
from services.analytics.handlers import HANDLERS, settle_time_zone
from shared import log
from shared.clock import Clock, utc_now
from shared.consumer import Handler, Handlers
from shared.db import Sessions
from shared.events import Event
from shared.settings import Settings
from shared.web import Web, create_app, serve
from shared.worker import Loop, every, main, run_worker

# How often a FAREBOX_TIME_ZONE that is not the settled one is mentioned.
MENTION_SECONDS = 600.0

logger = log.get("analytics")


def create_web(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    return create_app(Web(settings, "analytics", router, hears=tuple(HANDLERS), clock=clock))


def counting_in(time_zone: str) -> Handlers:
    """The handlers, which settle the calendar before the first fact is counted."""

    async def settle_and_count(
        handler: Handler[Event], session: AsyncSession, facts: Sequence[Event]
    ) -> None:
        await settle_time_zone(session, time_zone)
        await handler(session, facts)

    return {event: partial(settle_and_count, handler) for event, handler in HANDLERS.items()}


def loops(settings: Settings, sessions: Sessions) -> Sequence[Loop]:
    async def mention_other_time_zone() -> int:
        async with sessions.begin() as session:
            settled = await settle_time_zone(session, settings.farebox_time_zone)
        if settled != settings.farebox_time_zone:
            logger.error(
                "days stay in the time zone they were first counted in; put FAREBOX_TIME_ZONE back",
                settled=settled,
                configured=settings.farebox_time_zone,
            )
        return 0

    async def run(stop: asyncio.Event) -> None:
        await every(stop, MENTION_SECONDS, mention_other_time_zone)

    return (run,)


def web(settings: Settings) -> None:
    serve(create_web(settings), settings, "analytics")


def worker(settings: Settings) -> None:
    run_worker(settings, "analytics", counting_in(settings.farebox_time_zone), loops)


if __name__ == "__main__":
    main("analytics", web, worker)
