"""Outbox to Kafka: unpublished rows, in order, under one lease, each send bounded, marked once acknowledged.

Killed between send and mark, it sends the batch again: ids and revisions make that harmless.
"""

import asyncio
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaProducer

from shared import log
from shared.cargo import Parcel, Stamp, dispatch, pack
from shared.db import raw_connect
from shared.lease import release, take

BATCH_ROWS = 2_000
# Read onwards from the last row this often before looking again for rows that became visible behind it.
LOADS_AT_ONCE = 16
SEND_TIMEOUT_SECONDS = 20.0  # the idempotent producer itself never gives a batch up
LINGER_MS = 2  # lets a batch fill without being felt
MAX_BATCH_BYTES = 256 * 1024
IDLE_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1)  # adaptive: at once while busy, then backing off
RETRY_SECONDS = 1.0
# Rows may become visible below the floor (see _raise_floor) only in a race of microseconds; this finds them.
SWEEP_SECONDS = 30.0
FLOOR_SECONDS = 1.0

_FETCH = """
SELECT position, id::text AS id, aggregatetype, aggregateid, type, payload::text AS payload, headers::text AS headers,
    (extract(epoch FROM created_at) * 1000)::bigint AS created_ms
FROM outbox WHERE published_at IS NULL AND position > $1 ORDER BY position LIMIT $2
"""
_MARK = "UPDATE outbox SET published_at = clock_timestamp() WHERE position = ANY($1::bigint[])"
_SNAPSHOT = """
SELECT pg_snapshot_xmin(s)::text::bigint AS xmin, pg_snapshot_xmax(s)::text::bigint AS xmax,
    (SELECT coalesce(max(position), 0) FROM outbox) AS last
FROM pg_current_snapshot() AS s
"""

# A mark lost in a crash of the database is a batch sent again: not worth a wait for the disk.
_UNHURRIED = "SET synchronous_commit = off"

logger = log.get("relay")


@dataclass(frozen=True)
class Load:
    """Rows read together, and the parcels they travel in."""

    rows: Sequence[asyncpg.Record]
    parcels: Sequence[Parcel]

    def acknowledged(self, outcomes: Sequence[object]) -> list[int]:
        """Positions that need not be sent again; `outcomes` are the parcels'."""
        failed_keys: set[str] = set()
        done: list[int] = []
        for parcel, outcome in zip(self.parcels, outcomes, strict=True):
            keys = {self.rows[index]["aggregateid"] for index in parcel.rows}
            if isinstance(outcome, BaseException):
                failed_keys |= keys
                continue
            # A later fact of a failed key is sent again behind it, so that the last word is in order.
            kept = [self.rows[i] for i in parcel.rows]
            done += [row["position"] for row in kept if row["aggregateid"] not in failed_keys]
        return done


@dataclass(frozen=True)
class Line:
    """From here to there; dropped and built anew after any fault."""

    connection: asyncpg.Connection
    producer: AIOKafkaProducer


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
        """Send what waits, a bounded number of loads, and mark it: how many rows.

        While a load is on its way, the one before it is marked and the one after it read and packed.
        Raises KafkaError, OSError, asyncpg errors, TimeoutError.
        """
        line = await self._connected()
        if not await self._owns(line):
            return 0
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._floor, self._checkpoint, self._swept_at = 0, None, time.monotonic()
        sent = 0
        acknowledged: list[int] = []
        load = await self._read(line, self._floor)
        while load is not None:
            more = len(load.rows) == BATCH_ROWS and sent < (LOADS_AT_ONCE - 1) * BATCH_ROWS
            meanwhile = self._mark_and_read(
                line, acknowledged, load.rows[-1]["position"] if more else None
            )
            *outcomes, ahead = await _carry(line, load, meanwhile)
            acknowledged = load.acknowledged(outcomes)
            for outcome in (*outcomes, ahead):
                if isinstance(outcome, BaseException):
                    await _mark(line, acknowledged)
                    raise outcome
            sent += len(load.rows)
            load = ahead if isinstance(ahead, Load) and await self._owns(line) else None
        await _mark(line, acknowledged)
        if time.monotonic() - self._floor_at > FLOOR_SECONDS:
            self._floor_at = time.monotonic()
            await self._raise_floor(line.connection)
        return sent

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

    async def _connected(self) -> Line:
        if self._connection is None or self._connection.is_closed():
            self._connection = await raw_connect(self.database_url, self.service)
            await self._connection.execute(_UNHURRIED)
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
        return Line(self._connection, self._producer)

    async def _owns(self, line: Line) -> bool:
        return await take(line.connection, "relay", self.holder) is not None

    async def _read(self, line: Line, after: int) -> Load | None:
        rows = await line.connection.fetch(_FETCH, after, BATCH_ROWS)
        if not rows:
            return None
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):  # looking for a topic may take for ever
            parcels = await pack(line.producer, Stamp.of(self.prefix, self.service), rows)
        return Load(rows, parcels)

    async def _mark_and_read(
        self, line: Line, acknowledged: Sequence[int], after: int | None
    ) -> Load | None:
        await _mark(line, acknowledged)
        return None if after is None else await self._read(line, after)

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


async def _carry(
    line: Line, load: Load, meanwhile: Coroutine[None, None, Load | None]
) -> Sequence[object]:
    """What became of each parcel, and last of what was done meanwhile: a result or an exception each."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            underway = await dispatch(line.producer, load.parcels)
        # Each has a limit of its own: what is acknowledged is marked, even if the next load cannot be read.
        bounded = [asyncio.wait_for(each, SEND_TIMEOUT_SECONDS) for each in underway]
        return await asyncio.gather(*bounded, meanwhile, return_exceptions=True)
    finally:
        meanwhile.close()


async def _mark(line: Line, positions: Sequence[int]) -> None:
    if positions:
        await line.connection.execute(_MARK, positions)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
