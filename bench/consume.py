"""Facts applied per second by one worker, against a bare FastStream subscriber that only parses them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
from aiokafka import AIOKafkaProducer
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from bench.facts import payment_facts
from bench.ground import PARTITIONS, Ground, service_url
from bench.result import ROUNDS, Result, interleaved
from services.loyalty.handlers import HANDLERS
from shared.consumer import BATCH_RECORDS, Consumer
from shared.db import create_engine, create_sessions
from shared.events import PaymentChanged
from shared.outbox import headers_of
from shared.topics import topic_name
from shared.trace import Cause

NAME = "consume"
FACTS = 40_000
# Joining the group and planning the first statements is not what is measured.
WARM_FACTS = 2_000
WATCH_SECONDS = 0.02


@dataclass
class Meter:
    """Counts from the first reading after the warm-up to the last fact."""

    _from: tuple[int, float] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    rate: float = 0.0

    def read(self, seen: int) -> None:
        now = time.perf_counter()
        if self._from is None:
            self._from = (seen, now) if seen >= WARM_FACTS else None
        elif seen >= FACTS and not self.done.is_set():
            self.rate = (FACTS - self._from[0]) / (now - self._from[1])
            self.done.set()


@dataclass
class Bench:
    ground: Ground
    facts: Sequence[PaymentChanged]
    prefix: str = ""

    async def ours(self) -> float:
        """Loyalty's real handlers on a fresh database, until the progress in it covers every fact."""
        self.prefix = await self.ground.topics()
        await produce(self.ground.bootstrap_servers, self.prefix, self.facts)
        owner_url = self.ground.database()
        engine = create_engine(service_url(owner_url, "loyalty"), "loyalty")
        consumer = Consumer("loyalty", create_sessions(engine), HANDLERS)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(consumer.run(self.ground.bootstrap_servers, self.prefix, stop))
            meter = Meter()
            await watch(owner_url, meter)
            stop.set()
        await engine.dispose()
        return meter.rate

    async def bare(self) -> float:
        broker = KafkaBroker(self.ground.bootstrap_servers, logger=None)
        meter, seen = Meter(), 0

        @broker.subscriber(
            topic_name(self.prefix, "payments"),
            group_id=f"{self.prefix}-bare",
            batch=True,
            max_records=BATCH_RECORDS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.ACK,
            no_reply=True,
        )
        async def receive(facts: list[PaymentChanged]) -> None:
            nonlocal seen
            seen += len(facts)
            meter.read(seen)

        async with broker:
            await broker.start()
            await meter.done.wait()
        return meter.rate


async def run(ground: Ground) -> Result:
    bench = Bench(ground, payment_facts(FACTS))
    best = await interleaved(bench.ours, bench.bare)
    return Result(
        NAME,
        ours=best.ours,
        bare=best.bare,
        ratio=best.ratio,
        unit="facts/s",
        n=FACTS,
        note=f"{FACTS:,} PaymentChanged over {PARTITIONS} partitions, batches of {BATCH_RECORDS}; ours is one worker's"
        " consumer with loyalty's handlers: inbox claim, points booked, facts staged and progress in one"
        " transaction a batch, fsync on, offset committed after; bare is a FastStream batch subscriber that parses"
        f" the same bodies with Pydantic and commits; best of each in {ROUNDS} interleaved rounds ({best.rounds})",
    )


async def watch(owner_url: str, meter: Meter) -> None:
    connection = await asyncpg.connect(owner_url)
    try:
        while not meter.done.is_set():
            meter.read(
                await connection.fetchval(
                    "SELECT coalesce(sum(next_offset), 0)::bigint FROM loyalty.consumer_progress"
                )
            )
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        await connection.close()


async def produce(bootstrap_servers: str, prefix: str, facts: Sequence[PaymentChanged]) -> None:
    """The records that the relay would send."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", linger_ms=5)
    await producer.start()
    try:
        for fact in facts:
            named = {"ce_specversion": "1.0", "ce_id": str(fact.id), "ce_type": fact.type}
            headers = named | headers_of(fact, Cause("bench", fact.traceparent))
            await producer.send(
                topic_name(prefix, fact.topic),
                fact.model_dump_json().encode(),
                fact.key.encode(),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
        await producer.flush()
    finally:
        await producer.stop()
