"""Requests sent at a steady rate over kept connections, each timed from when it was due."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedded.ports import LOOPBACK

OK = b"HTTP/1.1 200 "
# How late a request may leave by this alone.
TICK_SECONDS = 0.001
PATIENCE_SECONDS = 30.0


class Connection(asyncio.Protocol):
    """One request at a time; tells its pace when it is answered."""

    def __init__(self, pace: "Pace") -> None:
        self._pace = pace
        self._due = 0.0
        self.transport: asyncio.Transport | None = None

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None
        self._due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._pace.answered(self, data, time.perf_counter() - self._due)

    def connection_lost(self, error: Exception | None) -> None:
        self._pace.failures += 1

    def close(self) -> None:
        assert self.transport is not None
        self.transport.abort()


@dataclass
class Pace:
    """A stall of the server delays whoever is due meanwhile, and is counted for each of them."""

    idle: list[Connection] = field(default_factory=list)
    waiting: deque[tuple[bytes, float]] = field(default_factory=deque)
    seconds: list[float] = field(default_factory=list)
    failures: int = 0

    def due(self, request: bytes, at: float) -> None:
        if self.idle:
            self.idle.pop().send(request, at)
        else:
            self.waiting.append((request, at))

    def answered(self, connection: Connection, data: bytes, seconds: float) -> None:
        self.seconds.append(seconds)
        if not data.startswith(OK):
            self.failures += 1
        if self.waiting:
            connection.send(*self.waiting.popleft())
        else:
            self.idle.append(connection)


async def paced(
    port: int, requests: Sequence[bytes], per_second: float, connections: int
) -> list[float]:
    """Seconds that each took, sorted.  Raises RuntimeError where one was not answered 200."""
    pace = Pace()
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        transport, made = await loop.create_connection(lambda: Connection(pace), LOOPBACK, port)
        made.transport = transport
        pace.idle.append(made)
    every = list(pace.idle)
    started, sent = time.perf_counter(), 0
    deadline = started + len(requests) / per_second + PATIENCE_SECONDS
    while len(pace.seconds) < len(requests):
        now = time.perf_counter()
        if pace.failures or now > deadline:
            raise RuntimeError(f"{len(pace.seconds)} of {len(requests)}, {pace.failures} failed")
        while sent < len(requests) and started + sent / per_second <= now:
            pace.due(requests[sent], started + sent / per_second)
            sent += 1
        await asyncio.sleep(TICK_SECONDS)
    for connection in every:
        connection.close()
    return sorted(pace.seconds)
