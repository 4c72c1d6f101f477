"""A service's real worker process, and facts sent to it through Kafka as payments' relay sends them."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import DEVNULL, Popen

from aiokafka import AIOKafkaProducer
from sqlalchemy import text

from shared.db import Sessions
from shared.events import Event
from shared.outbox import headers_of
from shared.trace import Cause
from tests.conftest import Database
from tests.servers import ROOT

PATIENCE_SECONDS = 60.0


def environment(
    service: str, database: Database, kafka_servers: str, topics: str
) -> dict[str, str]:
    return {
        "DATABASE_URL": database.url,
        f"{service.upper()}_DATABASE_URL": database.url_for(service),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": topics,
        "FAREBOX_TIME_ZONE": "Europe/Berlin",
    }


@contextmanager
def worker(service: str, environment: dict[str, str]) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", f"services.{service}.app", "worker"]
    process = Popen(command, cwd=ROOT, env=os.environ | environment, stderr=DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def send(kafka_servers: str, prefix: str, facts: Sequence[Event]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka_servers, acks="all") as producer:
        for fact in facts:
            headers = {"ce_id": str(fact.id), "ce_type": fact.type}
            headers |= headers_of(fact, Cause("test"))
            await producer.send(
                f"{prefix}.{fact.topic}",
                fact.model_dump_json().encode(),
                key=fact.key.encode(),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
        await producer.flush()


async def until(sessions: Sessions, query: str, holds: Callable[[int], bool]) -> int:
    """What `query` counts, once that `holds`."""

    async def counted() -> int:
        async with sessions() as session:
            return int(await session.scalar(text(query)) or 0)

    return await _poll(counted, holds)


async def _poll(counted: Callable[[], Awaitable[int]], holds: Callable[[int], bool]) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        count = await counted()
        if holds(count):
            return count
        await asyncio.sleep(0.01)
    raise AssertionError(f"still {count} after {PATIENCE_SECONDS} s")
