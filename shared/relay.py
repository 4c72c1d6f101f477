"""Outbox to Kafka: unpublished rows, in order, under one lease, each send bounded, marked once acknowledged.

Killed between send and mark, it sends the batch again: ids and revisions make that harmless.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from shared import log
from shared.db import raw_connect
from shared.lease import release, take
from shared.topics import topic_name

BATCH_ROWS = 2_000
SEND_TIMEOUT_SECONDS = 20.0  # the idempotent producer itself never gives a batch up
LINGER_MS = 2  # lets a batch fill without being felt
MAX_BATCH_BYTES = 256 * 1024
IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1)  # adaptive: at once while busy, then backing off
RETRY_SECONDS = 1.0
# Rows may become visible below the floor (see _raise_floor) only in a race of microseconds; this finds them.
SWEEP_SECONDS = 30.0
FLOOR_SECONDS = 1.0

_FETCH = """
SELECT position, id, aggregatetype, aggregateid, type, payload::text AS payload, headers::text AS headers,
    (extract(epoch FROM created_at) * 1000)::bigint AS created_ms
FROM outbox WHERE published_at IS NULL AND position > $1 ORDER BY position LIMIT $2
"""
_MARK = "UPDATE outbox SET published_at = clock_timestamp() WHERE position = ANY($1::bigint[])"
_SNAPSHOT = """
SELECT pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    (SELECT coalesce(max(position), 0) FROM outbox) AS last
FROM pg_current_snapshot() AS s
"""

logger = log.get("relay")


@dataclass
class Relay:
    """One service's outbox on its way to Kafka."""

    service: str
    database_url: str
    bootstrap_servers: str
    prefix: str
    holder: str = field(default_factory=lambda: f"{os.uname().nodename}/{os.getpid()}/{uuid4()}")
    _connection: asyncpg.Connection | None = None
    _producer: AIOKafkaProducer | None = None
    _floor: int = 0
    _checkpoint: tuple[int, int] | None = None  # (xmax, position) taken together
    _swept_at: float = 0.0
    _floor_at: float = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; database or broker away is waited out."""
        idle = 0
        while not stop.is_set():
            try:
                sent = await self.run_once()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rows stay and are tried again
                logger.warning("relay waits", error=repr(error), delay_seconds=RETRY_SECONDS)
                await self.close()
                sent, delay = 0, RETRY_SECONDS
            else:
                idle = 0 if sent else min(idle + 1, len(IDLE_SECONDS) - 1)
                delay = IDLE_SECONDS[idle]
            if not sent:
                await _pause(stop, delay)
        await self.close()

    async def run_once(self) -> int:
        """Send one batch and mark it: how many rows.  Raises KafkaError, OSError, asyncpg errors, TimeoutError."""
        connection = await self._connected()
        if await take(connection, "relay", self.holder) is None:
            return 0
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._floor, self._checkpoint, self._swept_at = 0, None, time.monotonic()
        rows = await connection.fetch(_FETCH, self._floor, BATCH_ROWS)
        if rows:
            await self._send_and_mark(connection, rows)
        if len(rows) < BATCH_ROWS and time.monotonic() - self._floor_at > FLOOR_SECONDS:
            self._floor_at = time.monotonic()
            await self._raise_floor(connection)
        return len(rows)

    async def close(self) -> None:
        """Give up lease, connection and producer; the next run_once builds them anew."""
        connection, self._connection = self._connection, None
        producer, self._producer = self._producer, None
        if connection is not None and not connection.is_closed():
            try:
                await asyncio.wait_for(release(connection, "relay", self.holder), 2)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                logger.warning("lease left to expire", error=repr(error))
            connection.terminate()
        if producer is not None:
            try:
                await asyncio.wait_for(producer.stop(), SEND_TIMEOUT_SECONDS)
            except Exception as error:  # noqa: BLE001 - a dead producer cannot stop well
                logger.warning("producer dropped", error=repr(error))

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await raw_connect(self.database_url, self.service)
            self._floor, self._checkpoint = 0, None
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap_servers,
                client_id=f"farebox-{self.service}-relay",
                acks="all",
                enable_idempotence=True,
                linger_ms=LINGER_MS,
                max_batch_size=MAX_BATCH_BYTES,
            )
            try:
                await asyncio.wait_for(producer.start(), SEND_TIMEOUT_SECONDS)
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._connection

    async def _send_and_mark(
        self, connection: asyncpg.Connection, rows: Sequence[asyncpg.Record]
    ) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            pending = [await self._send(row) for row in rows]
            results = await asyncio.gather(*pending, return_exceptions=True)
        failed_keys: set[str] = set()
        failure: BaseException | None = None
        done: list[int] = []
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, BaseException):
                failure = result
                failed_keys.add(row["aggregateid"])
            elif row["aggregateid"] not in failed_keys:
                # A later fact of a failed key is sent again behind it, so that the last word is in order.
                done.append(row["position"])
        await connection.execute(_MARK, done)
        if failure is not None:
            raise failure

    async def _send(self, row: asyncpg.Record) -> "asyncio.Future[object]":
        assert self._producer is not None
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", str(row["id"]).encode()),
            ("ce_type", row["type"].encode()),
            ("ce_source", f"/farebox/{self.service}".encode()),
            ("content-type", b"application/json"),
        ]
        headers += [(k, v.encode()) for k, v in json.loads(row["headers"]).items()]
        future: asyncio.Future[object] = await self._producer.send(
            topic_name(self.prefix, row["aggregatetype"]),
            row["payload"].encode(),
            key=row["aggregateid"].encode(),
            headers=headers,
            timestamp_ms=row["created_ms"],
        )
        return future

    async def _raise_floor(self, connection: asyncpg.Connection) -> None:
        """Skip the published past, so that dead index entries kept alive by an old snapshot cost nothing.

        A position may only be skipped once every transaction that could still commit a lower one has ended.
        """
        now = await connection.fetchrow(_SNAPSHOT)
        if self._checkpoint is None:
            self._checkpoint = (now["xmax"], now["last"])
            return
        xmax, position = self._checkpoint
        if now["xmin"] < xmax:
            return
        oldest = await connection.fetch(_FETCH, self._floor, 1)
        self._floor = min(position, oldest[0]["position"] - 1) if oldest else position
        self._checkpoint = (now["xmax"], now["last"])


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
