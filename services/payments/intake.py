"""Group commit: what arrives while one insert is under way is written together by the next."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Self

import asyncpg

from services.payments import store
from services.payments.store import Arrival
from shared import log
from shared.db import raw_connect
from shared.errors import Unavailable

# A statement this large takes some 20 ms; beyond it waiting grows and nothing is gained.
GROUP_EVENTS = 500
GROUP_BYTES = 16 * 2**20
# Bodies held in memory at most; whoever comes after them is told to try again.
MAX_WAITING = 5_000
MAX_WAITING_BYTES = 64 * 2**20
# Stripe gives up after some 20 s; a database that takes this long is away.
INSERT_SECONDS = 8.0

logger = log.get("intake")


class Intake:
    """Stores arrivals; `store` returns when its event is durable.

    One statement at a time: a second connection halves the groups, and a group costs as much as ten of its events.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema
        self._waiting: deque[tuple[Arrival, asyncio.Future[None]]] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Whoever still waits is told to try again; Stripe will."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        _fail(list(self._waiting), Unavailable("this process is stopping"))

    async def store(self, arrival: Arrival) -> None:
        """Raises Unavailable where the event is not known to be durable."""
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            raise Unavailable("more webhooks wait than can be held")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((arrival, done))
        self._waiting_bytes += len(arrival.body)
        self._wake.set()
        await done

    async def _write(self) -> None:
        connection: asyncpg.Connection | None = None
        try:
            while True:
                await self._wake.wait()
                group = self._take()
                if group:
                    connection = await self._store_group(connection, group)
        finally:
            if connection is not None:
                connection.terminate()

    def _take(self) -> list[tuple[Arrival, asyncio.Future[None]]]:
        group: list[tuple[Arrival, asyncio.Future[None]]] = []
        size = 0
        while self._waiting and len(group) < GROUP_EVENTS and size < GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1][0].body)
        self._waiting_bytes -= size
        if not self._waiting:
            self._wake.clear()
        # Two processes that hold the same retries must lock them in the same order.
        return sorted(group, key=lambda each: each[0].envelope.id)

    async def _store_group(
        self,
        connection: asyncpg.Connection | None,
        group: list[tuple[Arrival, asyncio.Future[None]]],
    ) -> asyncpg.Connection | None:
        try:
            async with asyncio.timeout(INSERT_SECONDS):
                if connection is None or connection.is_closed():
                    connection = await raw_connect(self._url, self._schema)
                await store.insert(connection, [arrival for arrival, _ in group])
        except BaseException as error:
            logger.warning("webhooks not stored", count=len(group), error=repr(error))
            _fail(group, Unavailable("the webhook could not be stored; send it again"))
            if connection is not None:
                connection.terminate()
            # Whatever it was, the next group is another one; without its writer every webhook would hang.
            if not isinstance(error, Exception):
                raise
            return None
        for _, done in group:
            with suppress(asyncio.InvalidStateError):  # its client has gone
                done.set_result(None)
        return connection


def _fail(group: list[tuple[Arrival, asyncio.Future[None]]], error: Unavailable) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
