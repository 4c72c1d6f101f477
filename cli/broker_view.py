"""What Kafka holds and how far each group came, for commands that look and change nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.events import TOPICS
from shared.settings import Settings
from shared.topics import topic_name

# Enough that a read is one round trip, little enough to hold in memory.
CHUNK_RECORDS = 5_000
READ_TIMEOUT_MS = 10_000

Offsets = Mapping[tuple[str, int], int]
Records = list["ConsumerRecord[bytes, bytes]"]


@dataclass(frozen=True)
class BrokerView:
    """One connection each for asking and for reading."""

    prefix: str
    admin: AIOKafkaAdminClient
    reader: AIOKafkaConsumer

    async def committed(self, service: str) -> dict[tuple[str, int], int]:
        """Offsets the service's group has committed."""
        found = await self.admin.list_consumer_group_offsets(f"{self.prefix}-{service}")
        return {(tp.topic, tp.partition): each.offset for tp, each in found.items()}

    async def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last record, for each partition of farebox's topics."""
        partitions = await self._partitions()
        offsets = await self.reader.end_offsets(partitions)
        return {(tp.topic, tp.partition): offset for tp, offset in offsets.items()}

    async def records(self, until: Offsets) -> AsyncIterator[Records]:
        """Every record before `until`, in chunks; raises TimeoutError if the broker stops answering."""
        partitions = [TopicPartition(*place) for place, offset in until.items() if offset > 0]
        if not partitions:
            return
        self.reader.assign(partitions)
        await self.reader.seek_to_beginning(*partitions)
        left = set(partitions)
        while left:
            batches = await self.reader.getmany(
                *left, timeout_ms=READ_TIMEOUT_MS, max_records=CHUNK_RECORDS
            )
            if not batches:
                raise TimeoutError(f"no record came within {READ_TIMEOUT_MS / 1000:.0f} s")
            chunk: Records = []
            for partition, records in batches.items():
                chunk += records
                if records[-1].offset + 1 >= until[partition.topic, partition.partition]:
                    left.discard(partition)
            yield chunk

    async def _partitions(self) -> list[TopicPartition]:
        # The reader's own answer is empty for topics it has not subscribed to.
        names = [topic_name(self.prefix, topic) for topic in TOPICS]
        present = set(await self.admin.list_topics())
        described = await self.admin.describe_topics([name for name in names if name in present])
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]


@asynccontextmanager
async def broker_view(settings: Settings) -> AsyncIterator[BrokerView]:
    """Raises KafkaError where no broker answers."""
    servers = settings.kafka_bootstrap_servers
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    reader = AIOKafkaConsumer(
        bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await admin.start()
        await reader.start()
        yield BrokerView(settings.farebox_topic_prefix, admin, reader)
    finally:
        await reader.stop()
        await admin.close()
