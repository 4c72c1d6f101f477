"""Webhooks durable per second through one web process, against one that only checks signatures."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench.ground import Ground
from bench.paced import paced
from bench.result import ROUNDS, Result, interleaved
from bench.stripe_load import SECRET, Load, events, request_of, write_requests, wrk
from embedded import processes
from embedded.errors import ServerDidNotStart
from embedded.ports import accepts_connections, free_port

NAME = "webhook_durable"
# An insert carries what arrived during the one before: with fewer, both wait for each other.
CONNECTIONS = 128
SECONDS = 4
WARM_SECONDS = 1
WARM_EVENTS = 15_000
# At 15,000 a second none is sent twice.
EVENTS = WARM_EVENTS + 60_000
START_SECONDS = 30.0
POLL_SECONDS = 0.1


@dataclass
class Bench:
    ground: Ground
    bodies: Sequence[bytes]
    best: Load | None = None

    async def ours(self) -> float:
        owner_url = self.ground.database()
        port = free_port()
        environ = self._environ(owner_url, port)
        command = [sys.executable, "-m", "services.payments.app", "web"]
        with server(command, environ, self.ground.folder, port):
            warm, load = await self._load(port)
        stored = await rows_of(owner_url)
        answered = min(warm.answers, WARM_EVENTS) + min(load.answers, EVENTS - WARM_EVENTS)
        if load.failures or stored < answered:
            raise RuntimeError(f"{answered} answered, {load.failures} failed, {stored} stored")
        if self.best is None or load.per_second > self.best.per_second:
            self.best = load
        return load.per_second

    async def bare(self) -> float:
        port = free_port()
        command = [sys.executable, "-m", "bench.bare_web", str(port), SECRET]
        with server(command, {}, self.ground.folder, port):
            return (await self._load(port))[1].per_second

    async def at_rate(self, per_second: float) -> list[float]:
        """Seconds that each webhook took to be answered."""
        port = free_port()
        environ = self._environ(self.ground.database(), port)
        command = [sys.executable, "-m", "services.payments.app", "web"]
        with server(command, environ, self.ground.folder, port):
            now = int(time.time())
            warm, count = int(per_second * WARM_SECONDS), int(per_second * SECONDS)
            requests = [request_of(body, port, now) for body in self.bodies[: warm + count]]
            await paced(port, requests[:warm], per_second, CONNECTIONS)
            return await paced(port, requests[warm:], per_second, CONNECTIONS)

    def _environ(self, owner_url: str, port: int) -> dict[str, str]:
        return {
            "DATABASE_URL": owner_url,
            "KAFKA_BOOTSTRAP_SERVERS": self.ground.bootstrap_servers,
            "STRIPE_WEBHOOK_SECRETS": SECRET,
            "PAYMENTS_PORT": str(port),
        }

    async def _load(self, port: int) -> tuple[Load, Load]:
        """The first events warm the process up, the others are counted."""
        requests = self.ground.folder / "requests"
        write_requests(requests, self.bodies[:WARM_EVENTS], port)
        warm = await wrk(port, requests, CONNECTIONS, WARM_SECONDS)
        write_requests(requests, self.bodies[WARM_EVENTS:], port)
        return warm, await wrk(port, requests, CONNECTIONS, SECONDS)


async def run(ground: Ground) -> list[Result]:
    bench = Bench(ground, events(EVENTS))
    pair = await interleaved(bench.ours, bench.bare)
    assert bench.best is not None
    half = pair.ours / 2
    best = min([await bench.at_rate(half) for _ in range(ROUNDS)], key=lambda seconds: p99(seconds))
    size = sum(map(len, bench.bodies)) // len(bench.bodies)
    durable = Result(
        NAME,
        ours=pair.ours,
        bare=pair.bare,
        ratio=pair.ratio,
        unit="webhooks/s",
        n=bench.best.answers,
        note=f"wrk c={CONNECTIONS}, 1 thread, {SECONDS} s, distinct signed events of {size} B on average; one"
        f" `payments.app web` process, PostgreSQL with fsync on the same machine; p50 {bench.best.p50_ms:.1f} ms,"
        f" p99 {bench.best.p99_ms:.1f} ms; every answer's row is counted; bare checks the signature with the same"
        f" function and answers, on the same uvicorn; best of each in {ROUNDS} interleaved rounds ({pair.rounds})",
    )
    late = Result(
        "webhook_p99_ms",
        ours=p99(best) * 1e3,
        bare=None,
        ratio=None,
        unit="ms",
        n=len(best),
        note=f"{half:,.0f} webhooks/s, half of that maximum, for {SECONDS} s over {CONNECTIONS} connections, each timed from"
        f" when it was due to its answer; p50 {best[len(best) // 2] * 1e3:.1f} ms, worst {best[-1] * 1e3:.1f} ms;"
        f" best of {ROUNDS} rounds",
    )
    return [durable, late]


def p99(seconds: Sequence[float]) -> float:
    return seconds[len(seconds) * 99 // 100]


async def rows_of(owner_url: str) -> int:
    owner = await asyncpg.connect(owner_url)
    try:
        count: int = await owner.fetchval("SELECT count(*) FROM payments.stripe_events")
        return count
    finally:
        await owner.close()


@contextmanager
def server(
    command: list[str], environ: Mapping[str, str], folder: Path, port: int
) -> Iterator[None]:
    """A process that listens on `port` while the block runs."""
    log = folder / "server.log"
    tethered = processes.tethered(command, signal.SIGKILL, os.getpid())
    child = processes.spawn(tethered, log, os.environ | environ)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not accepts_connections(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise ServerDidNotStart(" ".join(command[1:]), log, processes.last_lines(log))
            time.sleep(POLL_SECONDS)
        yield
    finally:
        child.terminate()
        child.wait(START_SECONDS)
