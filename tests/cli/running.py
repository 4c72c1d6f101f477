"""The whole system's workers in this process, without their processes: relays, consumers and the fold."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from cli.audit import snapshots
from cli.broker_view import BrokerView, broker_view
from cli.crosschecks import Marks, left_over
from cli.services import HANDLERS
from services.payments import fold
from shared.clock import utc_now
from shared.consumer import Consumer
from shared.db import SERVICES, create_engine, create_sessions, raw_pool
from shared.relay import Relay
from shared.settings import Settings
from shared.worker import every

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.1


@asynccontextmanager
async def everything_runs(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    servers, prefix = settings.kafka_bootstrap_servers, settings.farebox_topic_prefix
    async with AsyncExitStack() as stack:
        url = settings.url_of("payments")
        pool = await stack.enter_async_context(raw_pool(url, "payments", size=2))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for service in SERVICES:
            engine = create_engine(settings.url_of(service), service)
            stack.push_async_callback(engine.dispose)
            relay = Relay(service, settings.url_of(service), servers, prefix)
            consumer = Consumer(service, create_sessions(engine), HANDLERS[service])
            group.create_task(relay.run(stop))
            group.create_task(consumer.run(servers, prefix, stop))
        group.create_task(every(stop, 0.05, partial(fold.run_once, pool, "test", utc_now)))
        try:
            yield
        finally:
            stop.set()


async def until_quiet(settings: Settings) -> None:
    """Nothing is under way, and what was done last has said nothing new."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with broker_view(settings) as broker:
        while True:
            before = await _marks(settings, broker)
            async with snapshots(settings) as sessions:
                left = await left_over(before, settings.farebox_topic_prefix, sessions)
            if left.ok and before == await _marks(settings, broker):
                return
            assert time.monotonic() < deadline, left.detail
            await asyncio.sleep(POLL_SECONDS)


async def _marks(settings: Settings, broker: BrokerView) -> Marks:
    async with snapshots(settings) as sessions:
        return await Marks.now(broker, sessions)
