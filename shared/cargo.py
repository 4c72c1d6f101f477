"""Outbox rows made ready for Kafka: one batch of records a partition, built once and sent whole.

A producer's `send` costs thirty times the work of appending to a batch: a future, a size estimate and a
lock of its own for every record.  Partitions are chosen exactly as `send` and Kafka's Java client choose them.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.topics import topic_name

# A worker does more than pack: whoever waits in its event loop gets a turn after so many rows, some 5 ms.
ROWS_IN_ONE_GO = 100
# Customers come back: their keys' hashes are remembered, 4 MB at most.
KEYS_REMEMBERED = 32_768


@dataclass(frozen=True)
class Stamp:
    """What every record of one service's outbox carries."""

    prefix: str
    source: bytes

    @classmethod
    def of(cls, prefix: str, service: str) -> "Stamp":
        return cls(prefix, f"/farebox/{service}".encode())


@dataclass
class Parcel:
    """Rows, by their place in the relay's batch, that travel in one record batch and share its fate."""

    topic: str
    partition: int
    builder: BatchBuilder
    rows: list[int] = field(default_factory=list)


async def pack(
    producer: AIOKafkaProducer, stamp: Stamp, rows: Sequence[asyncpg.Record]
) -> list[Parcel]:
    """Parcels in the order of the rows: of one key, what was staged first is packed first.

    Raises KafkaError where a row's topic does not exist.
    """
    parcels: list[Parcel] = []
    open_parcels: dict[tuple[str, int], Parcel] = {}
    partitions_of: dict[str, int] = {}
    for index, row in enumerate(rows):
        if index % ROWS_IN_ONE_GO == ROWS_IN_ONE_GO - 1:
            await asyncio.sleep(0)
        topic = topic_name(stamp.prefix, row["aggregatetype"])
        if topic not in partitions_of:
            partitions_of[topic] = len(await producer.partitions_for(topic))
        place = (topic, hash_of(row["aggregateid"]) % partitions_of[topic])
        parcel = open_parcels.get(place)
        if parcel is None or not add(parcel, index, row, stamp):
            parcel = open_parcels[place] = Parcel(*place, producer.create_batch())
            parcels.append(parcel)
            # The first record of a batch is taken whatever its size; the broker judges it.
            add(parcel, index, row, stamp)
    return parcels


async def dispatch(
    producer: AIOKafkaProducer, parcels: Iterable[Parcel]
) -> "list[asyncio.Future[object]]":
    """Hand the parcels over in order; each future ends when its records are acknowledged."""
    underway: list[asyncio.Future[object]] = []
    for parcel in parcels:
        parcel.builder.close()  # nothing more will come: no lingering
        underway.append(
            await producer.send_batch(parcel.builder, parcel.topic, partition=parcel.partition)
        )
    return underway


@lru_cache(maxsize=KEYS_REMEMBERED)
def hash_of(key: str) -> int:
    """As Kafka's default partitioner: the partition is this modulo their number."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def add(parcel: Parcel, index: int, row: asyncpg.Record, stamp: Stamp) -> bool:
    """False when the batch is full: the row is not in it."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", row["id"].encode()),
        ("ce_type", row["type"].encode()),
        ("ce_source", stamp.source),
        ("content-type", b"application/json"),
    ]
    headers += [(name, value.encode()) for name, value in orjson.loads(row["headers"]).items()]
    taken = parcel.builder.append(
        timestamp=row["created_ms"],
        key=row["aggregateid"].encode(),
        value=row["payload"].encode(),
        headers=headers,
    )
    if taken is None:
        return False
    parcel.rows.append(index)
    return True
