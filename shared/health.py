"""Readiness: database, schema revision, broker, consumer progress and outbox age, each with its reason."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from shared.clock import utc_now
from shared.db import Sessions
from shared.inbox import ConsumerProgress
from shared.outbox import OutboxMessage
from shared.parking import ParkedEvent
from shared.schema import schema_problem
from shared.settings import Service, Settings
from shared.topics import topic_name

CHECKS = ("database", "schema", "broker", "consumer", "outbox")
STALE = timedelta(seconds=60)  # a relay or consumer that is alive is never this far behind for long
BROKER_TIMEOUT_SECONDS = 3.0
CACHE_SECONDS = 2.0  # probes come from several sides; the broker is asked once for all of them


@dataclass(frozen=True)
class Health:
    """`problems` by check; `gauges` for /metrics."""

    problems: dict[str, str]
    gauges: dict[str, float]


@dataclass
class HealthProbe:
    """Asks the database and the broker how this service is doing."""

    settings: Settings
    service: Service
    sessions: Sessions
    topics: tuple[str, ...]  # that its consumer hears
    _broker: AIOKafkaConsumer | None = None
    _cached: tuple[float, Health] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self) -> Health:
        async with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] > CACHE_SECONDS:
                self._cached = (time.monotonic(), await self._ask())
            return self._cached[1]

    async def close(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.stop()

    async def _ask(self) -> Health:
        problems: dict[str, str] = {}
        gauges: dict[str, float] = {}
        progress: dict[tuple[str, int], ConsumerProgress] = {}
        try:
            async with self.sessions() as session:
                if problem := await schema_problem(session):
                    return Health({"schema": problem}, gauges)
                rows = await session.scalars(
                    select(ConsumerProgress).where(ConsumerProgress.consumer == self.service)
                )
                progress = {(row.topic, row.partition): row for row in rows}
                unpublished, oldest = (
                    await session.execute(
                        select(func.count(), func.min(OutboxMessage.created_at)).where(
                            OutboxMessage.published_at.is_(None)
                        )
                    )
                ).one()
                parked = await session.scalar(
                    select(func.count()).where(ParkedEvent.status == "parked")
                )
        except (OSError, DBAPIError, TimeoutError) as error:
            return Health({"database": f"cannot be used: {_first_line(error)}"}, gauges)
        age = (utc_now() - oldest) if oldest else timedelta(0)
        gauges |= {
            "outbox_unpublished": unpublished,
            "outbox_oldest_seconds": age.total_seconds(),
            "parked_events": parked or 0,
        }
        if age > STALE:
            problems["outbox"] = (
                f"the oldest unsent fact is {age.total_seconds():.0f} s old: is the worker running?"
            )
        problems |= await self._ask_broker(progress, gauges)
        return Health(problems, gauges)

    async def _ask_broker(
        self, progress: dict[tuple[str, int], ConsumerProgress], gauges: dict[str, float]
    ) -> dict[str, str]:
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_SECONDS):
                ends = await self._end_offsets()
        except Exception as error:  # noqa: BLE001 - any answer but the offsets means: not ready
            await self.close()
            return {"broker": f"no answer from {self.settings.kafka_bootstrap_servers}: {error!r}"}
        lag = 0
        stalled: list[str] = []
        for (topic, partition), end in ends.items():
            row = progress.get((topic, partition))
            behind = end - (row.next_offset if row else 0)
            lag += max(behind, 0)
            if behind > 0 and row is not None and utc_now() - row.updated_at > STALE:
                stalled.append(f"{topic}/{partition}")
        gauges["consumer_lag"] = lag
        if stalled:
            return {"consumer": f"no progress on {', '.join(stalled[:3])} for {STALE.seconds} s"}
        return {}

    async def _end_offsets(self) -> dict[tuple[str, int], int]:
        if self._broker is None:
            broker = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_bootstrap_servers)
            try:
                await broker.start()
            except BaseException:
                await broker.stop()
                raise
            self._broker = broker
        names = [topic_name(self.settings.farebox_topic_prefix, topic) for topic in self.topics]
        existing = await self._broker.topics()
        partitions = [
            TopicPartition(name, number)
            for name in names
            if name in existing
            for number in self._broker.partitions_for_topic(name) or ()
        ]
        if not partitions:
            return {}
        offsets = await self._broker.end_offsets(partitions)
        return {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
