"""A service's worker process: consumer, relay and its own loops, until SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

import uvloop
from pydantic import ValidationError

from shared import log
from shared.consumer import Consumer, Handlers
from shared.db import Sessions, create_engine, create_sessions
from shared.heap import keep_what_is_loaded
from shared.relay import Relay
from shared.schema import schema_problem
from shared.settings import Service, Settings

Loop = Callable[[asyncio.Event], Awaitable[None]]
# What a service runs beside consumer and relay, made from its own sessions.
LoopFactory = Callable[[Settings, Sessions], Sequence[Loop]]

STEP_RETRY_SECONDS = 1.0
SCHEMA_POLL_SECONDS = 2.0

logger = log.get("worker")


def main(
    service: Service, web: Callable[[Settings], None], worker: Callable[[Settings], None]
) -> None:
    """`python -m services.<service>.app web|worker`."""
    kinds = {"web": web, "worker": worker}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        sys.exit(f"usage: python -m services.{service}.app web|worker")
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])).upper()
        sys.exit(f"{service}: {where}{': ' if where else ''}{first['msg']}")
    log.configure(service, sys.argv[1], json=settings.farebox_log_json)
    kinds[sys.argv[1]](settings)


def run_worker(
    settings: Settings, service: Service, handlers: Handlers, loops: LoopFactory | None = None
) -> None:
    keep_what_is_loaded()
    uvloop.run(_run(settings, service, handlers, loops))


async def every(stop: asyncio.Event, seconds: float, step: Callable[[], Awaitable[int]]) -> None:
    """Run `step` until `stop`: again at once while it finds work, after `seconds` when it found none."""
    while not stop.is_set():
        try:
            done = await step()
            delay = 0.0 if done else seconds
        except Exception as error:  # noqa: BLE001 - a step's work stays where it is and is tried again
            logger.warning("step failed", error=repr(error), delay_seconds=STEP_RETRY_SECONDS)
            delay = STEP_RETRY_SECONDS
        if delay:
            await _pause(stop, delay)


async def _run(
    settings: Settings, service: Service, handlers: Handlers, loops: LoopFactory | None
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = create_engine(settings.url_of(service), service)
    sessions = create_sessions(engine)
    try:
        await _await_schema(sessions, stop)
        if stop.is_set():
            return
        own = loops(settings, sessions) if loops else ()
        consumer = Consumer(service, sessions, handlers)
        relay = Relay(
            service,
            settings.url_of(service),
            settings.kafka_bootstrap_servers,
            settings.farebox_topic_prefix,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(_consume(consumer, settings, stop))
            group.create_task(relay.run(stop))
            for loop in own:
                group.create_task(_ensure_awaitable(loop, stop))
            logger.info("worker started")
        logger.info("worker stopped")
    finally:
        await engine.dispose()


async def _consume(consumer: Consumer, settings: Settings, stop: asyncio.Event) -> None:
    """Starting needs the broker: wait for it, as for every other fault that passes."""
    while not stop.is_set():
        try:
            await consumer.run(
                settings.kafka_bootstrap_servers, settings.farebox_topic_prefix, stop
            )
        except Exception as error:  # noqa: BLE001 - nothing was committed that was not applied
            logger.warning("consumer restarts", error=repr(error))
            await _pause(stop, STEP_RETRY_SECONDS)


async def _ensure_awaitable(loop: Loop, stop: asyncio.Event) -> None:
    await loop(stop)


async def _await_schema(sessions: Sessions, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            async with sessions() as session:
                problem = await schema_problem(session)
        except Exception as error:  # noqa: BLE001 - the database is away or still starting
            problem = repr(error)
        if problem is None:
            return
        logger.warning("worker waits", reason=problem)
        await _pause(stop, SCHEMA_POLL_SECONDS)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
