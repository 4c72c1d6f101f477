"""Readiness: database, schema revision, broker, consumer progress and outbox age, each with its reason."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from shared.clock import utc_now
from shared.db import Sessions
from shared.inbox import progress_of
from shared.outbox import OutboxMessage
from shared.parking import ParkedEvent
from shared.schema import schema_problem
from shared.settings import Service, Settings
from shared.topics import topic_name

CHECKS = ("database", "schema", "broker", "consumer", "outbox")
BLINDING = {"database", "schema"}  # without them nothing else can be asked
STALE_SECONDS = 60.0  # a relay or consumer that is alive is never this far behind for long
BROKER_TIMEOUT_SECONDS = 3.0
CACHE_SECONDS = 2.0  # probes come from several sides; each side is asked once for all of them

Place = tuple[str, int]  # topic and partition

UNPUBLISHED = select(func.count(), func.min(OutboxMessage.created_at)).where(
    OutboxMessage.published_at.is_(None)
)
PARKED = select(func.count()).where(ParkedEvent.status == "parked")


@dataclass(frozen=True)
class Health:
    """`problems` by check; `gauges` for /metrics."""

    problems: dict[str, str]
    gauges: dict[str, float]


@dataclass
class Cached:
    """One side's latest answer; asked again when it is older than CACHE_SECONDS."""

    health: Health
    at: float

    def is_fresh(self) -> bool:
        return time.monotonic() - self.at <= CACHE_SECONDS


@dataclass
class HealthProbe:
    """Asks the database and the broker how this service is doing."""

    settings: Settings
    service: Service
    sessions: Sessions
    topics: tuple[str, ...]  # that its consumer hears
    _admin: AIOKafkaAdminClient | None = None
    _reader: AIOKafkaConsumer | None = None
    _cached: dict[str, Cached] = field(default_factory=dict)
    # Where the consumer was behind, at which offset, and since when it has not moved.
    _behind: dict[Place, tuple[int, float]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self, checks: Collection[str] = CHECKS) -> Health:
        """What is wrong among `checks`; the broker is asked only for those that need it."""
        async with self._lock:
            found = await self._fresh("database", self._ask_database)
            if {"broker", "consumer"} & set(checks) and not BLINDING & set(found.problems):
                broker = await self._fresh("broker", self._ask_broker)
                found = Health(found.problems | broker.problems, found.gauges | broker.gauges)
            return found

    async def close(self) -> None:
        admin, self._admin = self._admin, None
        reader, self._reader = self._reader, None
        if admin is not None:
            await admin.close()
        if reader is not None:
            await reader.stop()

    async def _fresh(self, side: str, ask: Callable[[], Awaitable[Health]]) -> Health:
        cached = self._cached.get(side)
        if cached is None or not cached.is_fresh():
            cached = self._cached[side] = Cached(await ask(), time.monotonic())
        return cached.health

    async def _ask_database(self) -> Health:
        try:
            async with self.sessions() as session:
                if problem := await schema_problem(session):
                    return Health({"schema": problem}, {})
                unpublished, oldest = (await session.execute(UNPUBLISHED)).one()
                parked = await session.scalar(PARKED)
        except (OSError, DBAPIError, TimeoutError) as error:
            return Health({"database": f"cannot be used: {_first_line(error)}"}, {})
        age = ((utc_now() - oldest) if oldest else timedelta(0)).total_seconds()
        gauges = {"outbox_unpublished": unpublished, "outbox_oldest_seconds": age}
        problems = {}
        if age > STALE_SECONDS:
            problems["outbox"] = (
                f"the oldest unsent fact is {age:.0f} s old: is the worker running?"
            )
        return Health(problems, gauges | {"parked_events": parked or 0})

    async def _ask_broker(self) -> Health:
        try:
            async with asyncio.timeout(BROKER_TIMEOUT_SECONDS):
                ends = await self._end_offsets()
        except Exception as error:  # noqa: BLE001 - any answer but the offsets means: not ready
            await self.close()
            servers = self.settings.kafka_bootstrap_servers
            return Health({"broker": f"no answer from {servers}: {error!r}"}, {})
        async with self.sessions() as session:
            progress = await progress_of(session, self.service)
        behind = {
            place: progress.get(place, 0)
            for place, end in ends.items()
            if end > progress.get(place, 0)
        }
        lag = sum(ends[place] - offset for place, offset in behind.items())
        stalled = self._stalled(behind)
        problems = {}
        if stalled:
            problems["consumer"] = (
                f"no progress on {', '.join(stalled[:3])} for {STALE_SECONDS:.0f} s:"
                " is the worker running?"
            )
        return Health(problems, {"consumer_lag": lag})

    def _stalled(self, behind: dict[Place, int]) -> list[str]:
        """Partitions that were behind at this same offset STALE_SECONDS ago already."""
        now = time.monotonic()
        seen = self._behind
        self._behind = {
            place: seen[place] if place in seen and seen[place][0] == offset else (offset, now)
            for place, offset in behind.items()
        }
        return sorted(
            f"{topic}/{partition}"
            for (topic, partition), (_, since) in self._behind.items()
            if now - since > STALE_SECONDS
        )

    async def _end_offsets(self) -> dict[Place, int]:
        admin, reader = await self._connected()
        names = {topic_name(self.settings.farebox_topic_prefix, topic) for topic in self.topics}
        present = names & set(await admin.list_topics())
        # The reader's own answer is empty for topics it has not subscribed to.
        described = await admin.describe_topics(sorted(present)) if present else []
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        offsets = await reader.end_offsets(partitions) if partitions else {}
        return {(place.topic, place.partition): offset for place, offset in offsets.items()}

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        servers = self.settings.kafka_bootstrap_servers
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=servers)
            await self._admin.start()
        if self._reader is None:
            self._reader = AIOKafkaConsumer(bootstrap_servers=servers)
            await self._reader.start()
        return self._admin, self._reader


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
