"""Staged facts to Kafka per second, against a bare producer sending the very same records."""

import asyncio
import time
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from bench.facts import payment_facts
from bench.ground import PARTITIONS, Ground, service_url
from bench.result import ROUNDS, Result, interleaved
from shared.db import create_engine, create_sessions
from shared.outbox import publish
from shared.relay import LINGER_MS, MAX_BATCH_BYTES, Relay
from shared.topics import topic_name
from shared.trace import Cause

NAME = "outbox_relay"
FACTS = 60_000
STAGE_ROWS = 2_000
WATCH_SECONDS = 0.02

Record: TypeAlias = ConsumerRecord


@dataclass
class Bench:
    ground: Ground
    owner_url: str
    prefix: str

    async def ours(self) -> float:
        """The outbox as the facts' transactions left it, until the last row is marked."""
        await restage(self.owner_url)
        url = service_url(self.owner_url, "payments")
        relay = Relay("payments", url, self.ground.bootstrap_servers, self.prefix)
        stop = asyncio.Event()
        running = asyncio.create_task(relay.run(stop))
        try:
            return await self._until_empty()
        finally:
            stop.set()
            await running

    async def _until_empty(self) -> float:
        watch = await asyncpg.connect(self.owner_url)
        try:
            started = time.perf_counter()
            while await watch.fetchval(
                "SELECT true FROM payments.outbox WHERE published_at IS NULL LIMIT 1"
            ):
                await asyncio.sleep(WATCH_SECONDS)
            return FACTS / (time.perf_counter() - started)
        finally:
            await watch.close()

    async def bare(self, records: list[Record]) -> float:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.ground.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_batch_size=MAX_BATCH_BYTES,
        )
        topic = topic_name(self.prefix, "payments")
        await producer.start()
        try:
            prepared = [(r.value, r.key, list(r.headers), r.timestamp) for r in records]
            started = time.perf_counter()
            sent = [
                await producer.send(topic, value, key, headers=headers, timestamp_ms=at)
                for value, key, headers, at in prepared
            ]
            await asyncio.gather(*sent)
            return len(records) / (time.perf_counter() - started)
        finally:
            await producer.stop()


async def run(ground: Ground) -> Result:
    bench = Bench(ground, ground.database(), await ground.topics())
    await stage(bench.owner_url)
    await bench.ours()  # warms both servers, and makes the records that the bare producer sends
    records = await everything(ground, topic_name(bench.prefix, "payments"))
    if len(records) != FACTS:
        raise RuntimeError(f"{FACTS} facts were staged, {len(records)} are in Kafka")
    best = await interleaved(bench.ours, lambda: bench.bare(records))
    size = sum(len(record.value or b"") for record in records) // FACTS
    return Result(
        NAME,
        ours=best.ours,
        bare=best.bare,
        ratio=best.ratio,
        unit="facts/s",
        n=FACTS,
        note=f"{FACTS:,} staged PaymentChanged of {size} B and {len(records[0].headers)} headers, one relay"
        f" and one producer, acks=all, idempotent, linger {LINGER_MS} ms, {PARTITIONS} partitions, fsync on;"
        f" bare sends the same bytes from memory, without reading or marking; best of each in {ROUNDS} interleaved rounds ({best.rounds})",
    )


async def stage(owner_url: str) -> None:
    """Stage the facts as a service does, and keep a copy of the rows to stage them again."""
    engine = create_engine(service_url(owner_url, "payments"), "payments")
    facts = payment_facts(FACTS)
    cause = Cause("stripe:evt_1QRsTuVwXyZ0123456789abc")
    for first in range(0, FACTS, STAGE_ROWS):
        async with create_sessions(engine).begin() as session:
            chunk = facts[first : first + STAGE_ROWS]
            await publish(session, [(f, Cause(cause.id, f.traceparent)) for f in chunk])
    await engine.dispose()
    owner = await asyncpg.connect(owner_url)
    await owner.execute("CREATE TABLE public.staged AS SELECT * FROM payments.outbox")
    await owner.close()


async def restage(owner_url: str) -> None:
    owner = await asyncpg.connect(owner_url)
    await owner.execute("TRUNCATE payments.outbox RESTART IDENTITY")
    await owner.execute(
        "INSERT INTO payments.outbox (id, aggregatetype, aggregateid, type, payload, headers)"
        " SELECT id, aggregatetype, aggregateid, type, payload, headers"
        " FROM public.staged ORDER BY position"
    )
    await owner.execute("ANALYZE payments.outbox")
    await owner.execute("CHECKPOINT")
    await owner.close()


async def everything(ground: Ground, topic: str) -> list[Record]:
    """All records of a topic, interleaved over its partitions as they were produced."""
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=ground.bootstrap_servers)
    await consumer.start()
    try:
        consumer.assign(places)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(places)
        records: list[Record] = []
        while len(records) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                records += batch
    finally:
        await consumer.stop()
    return sorted(records, key=lambda record: (record.timestamp, record.offset))
