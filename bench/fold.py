"""Raw events folded, staged and published per second, from a backlog; with an old transaction open; its memory."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import asyncpg
import orjson
import psutil

from bench.ground import Ground, service_url
from bench.result import Result
from bench.stripe_load import events
from embedded import processes
from services.payments.gateway import open_envelope
from services.payments.store import Arrival, insert
from shared.trace import new_traceparent

NAME = "fold"
# What comes in during 60 s at the 4,000/s that are aimed at.
BACKLOG = int(os.environ.get("FAREBOX_BENCH_EVENTS", "240000"))
STORE_EVENTS = 12_000
ABREAST = 1_000
BARE_EVENTS = 500
# Memory is compared from here on: batches and caches have their size by then.
SETTLED_EVENTS = 40_000
POLL_SECONDS = 0.05
PATIENCE = timedelta(minutes=10)

LAST = "SELECT max(position) FROM payments.stripe_events"
FOLDED = "SELECT status <> 'received' OR waiting_for IS NOT NULL FROM payments.stripe_events WHERE position = $1"
# The last row alone: to count would compete with what is measured.
PUBLISHED = """
SELECT published_at IS NOT NULL FROM payments.outbox ORDER BY position DESC LIMIT 1
"""
COUNTS = """
SELECT (SELECT count(*) FROM payments.stripe_events WHERE status = 'applied') AS applied,
    (SELECT count(*) FROM payments.stripe_events WHERE status = 'parked') AS parked,
    (SELECT count(*) FROM payments.payment_intents) AS payments,
    (SELECT count(*) FROM payments.outbox) AS facts,
    (SELECT count(*) FROM payments.outbox WHERE published_at IS NULL) AS unpublished
"""
BARE_READ = """
SELECT position, body FROM payments.stripe_events WHERE status = 'received' AND waiting_for IS NULL
ORDER BY position LIMIT $1
"""
BARE_MARK = """
UPDATE payments.stripe_events SET status = 'applied' WHERE position = ANY($1::bigint[])
"""


@dataclass
class Seen:
    """One run: its rate, what it made, and the worker's memory by events folded."""

    seconds: float
    applied: int
    facts: int
    payments: int
    cpu: dict[str, float] = field(default_factory=dict)
    memory_mb: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return BACKLOG / self.seconds


async def run(ground: Ground) -> list[Result]:
    template = ground.database()
    await store(template)
    bare = await bare_rate(ground.copy(template))
    plain = await folded(ground, ground.copy(template))
    owner_url = ground.copy(template)
    async with old_transaction(owner_url):
        held = await folded(ground, owner_url)
    return [result(NAME, plain, bare), result(f"{NAME}_xmin_held", held, bare), memory(plain)]


def result(name: str, seen: Seen, bare: float) -> Result:
    cpu = ", ".join(f"{part} {spent:.0f}" for part, spent in seen.cpu.items())
    return Result(
        name,
        ours=seen.per_second,
        bare=bare,
        ratio=seen.per_second / bare,
        unit="events/s",
        n=BACKLOG,
        note=f"{BACKLOG:,} raw events waiting, {seen.applied:,} applied to {seen.payments:,} payments and {seen.facts:,}"
        f" facts staged and acknowledged by Kafka in {seen.seconds:.0f} s by one `payments.app worker`; fsync on,"
        f" everything on this machine; µs of CPU for each event: {cpu}; bare reads, parses and marks the same rows"
        f" {BARE_EVENTS} at a time and folds nothing",
    )


def memory(seen: Seen) -> Result:
    settled = int(len(seen.memory_mb) * SETTLED_EVENTS / BACKLOG)
    later = seen.memory_mb[settled:]
    return Result(
        f"{NAME}_memory_growth",
        ours=max(later) - later[0],
        bare=None,
        ratio=None,
        unit="MB",
        n=BACKLOG,
        note=f"resident memory of the worker at its most, beyond what it was after {SETTLED_EVENTS:,} events"
        f" ({later[0]:.0f} MB), until {BACKLOG:,} were folded ({later[-1]:.0f} MB)",
    )


async def store(owner_url: str) -> None:
    """As webhooks store them."""
    connection = await asyncpg.connect(service_url(owner_url, "payments"))
    await connection.execute("SET search_path = payments")
    stored, seed = 0, 1
    while stored < BACKLOG:
        bodies = woven(events(STORE_EVENTS, seed), Random(seed))[: BACKLOG - stored]
        arrivals = [Arrival(open_envelope(each), each, new_traceparent()) for each in bodies]
        await insert(connection, arrivals)
        stored, seed = stored + len(bodies), seed + 1
    await connection.close()
    owner = await asyncpg.connect(owner_url)
    await owner.execute("VACUUM ANALYZE payments.stripe_events")
    await owner.close()


def woven(bodies: Iterable[bytes], random: Random) -> list[bytes]:
    """The same events, ABREAST payments under way at any time: neighbours are other customers'."""
    lives: dict[str, list[bytes]] = {}
    for body in bodies:
        about = orjson.loads(body)["data"]["object"]
        lives.setdefault(about.get("payment_intent") or about["id"], []).append(body)
    waiting = [life[::-1] for life in lives.values()]
    made: list[bytes] = []
    while waiting:
        at = random.randrange(min(ABREAST, len(waiting)))
        made.append(waiting[at].pop())
        if not waiting[at]:
            waiting[at] = waiting[-1]
            waiting.pop()
    return made


async def bare_rate(owner_url: str) -> float:
    connection = await asyncpg.connect(service_url(owner_url, "payments"))
    started = time.perf_counter()
    while rows := await connection.fetch(BARE_READ, BARE_EVENTS):
        for row in rows:
            orjson.loads(row["body"])
        await connection.execute(BARE_MARK, [row["position"] for row in rows])
    seconds = time.perf_counter() - started
    await connection.close()
    return BACKLOG / seconds


async def folded(ground: Ground, owner_url: str) -> Seen:
    environ = os.environ | {
        "DATABASE_URL": owner_url,
        "KAFKA_BOOTSTRAP_SERVERS": ground.bootstrap_servers,
        "FAREBOX_TOPIC_PREFIX": await ground.topics(),
        "STRIPE_API_KEY": "",
    }
    owner = await asyncpg.connect(owner_url)
    await owner.execute("CHECKPOINT")
    last = await owner.fetchval(LAST)
    command = [sys.executable, "-m", "services.payments.app", "worker"]
    log = ground.folder / "worker.log"
    child = processes.spawn(processes.tethered(command, signal.SIGKILL, os.getpid()), log, environ)
    try:
        cpu = Cpu.of(ground, child.pid)
        seconds, memory_mb = await _watch(owner, last, child.pid)
        spent = cpu.spent()
        counts = await owner.fetchrow(COUNTS)
    finally:
        child.terminate()
        child.wait(30)
        await owner.close()
    if counts["parked"] or counts["unpublished"]:
        raise RuntimeError(f"not done: {dict(counts)}; see {log}")
    return Seen(seconds, counts["applied"], counts["facts"], counts["payments"], spent, memory_mb)


async def _watch(owner: asyncpg.Connection, last: int, pid: int) -> tuple[float, list[float]]:
    """From the first event folded until the last fact is acknowledged; the worker's memory on the way, in MB."""
    worker = psutil.Process(pid)
    deadline = datetime.now(UTC) + PATIENCE
    started: float | None = None
    memory_mb: list[float] = []
    while datetime.now(UTC) < deadline:
        published = await owner.fetchval(PUBLISHED)
        if started is None and published is not None:
            started = time.perf_counter()
        if started is not None:
            memory_mb.append(worker.memory_info().rss / 1e6)
        folded = published and await owner.fetchval(FOLDED, last)
        # The last fold may have staged more since.
        if folded and started is not None and await owner.fetchval(PUBLISHED):
            return time.perf_counter() - started, memory_mb
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"not folded after {PATIENCE}")


@asynccontextmanager
async def old_transaction(owner_url: str) -> AsyncIterator[None]:
    """Began before the first event was folded: no dead row of the whole run can be cleared away."""
    connection = await asyncpg.connect(owner_url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.fetchval("SELECT count(*) FROM payments.payment_intents")
        yield
    finally:
        await connection.close()


@dataclass(frozen=True)
class Cpu:
    """Seconds that the parts of the system have taken so far."""

    roots: dict[str, psutil.Process]
    before: dict[str, float]

    @classmethod
    def of(cls, ground: Ground, worker: int) -> "Cpu":
        roots = {"worker": psutil.Process(worker)}
        for name, pid in ground.pids().items():
            roots[name] = psutil.Process(pid)
        return cls(roots, {name: _seconds(each) for name, each in roots.items()})

    def spent(self) -> dict[str, float]:
        """Microseconds an event."""
        return {
            name: (_seconds(each) - self.before[name]) / BACKLOG * 1e6
            for name, each in self.roots.items()
        }


def _seconds(root: psutil.Process) -> float:
    """Of a process and its children, also those that have ended."""
    total = 0.0
    for each in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
            if each == root:
                total += times.children_user + times.children_system
    return total
