"""From a webhook's answer to its row in analytics: the whole system running, at a steady rate."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import asyncpg
import orjson

from bench.ground import Ground
from bench.result import Result
from bench.stripe_load import SECRET, START, request_of, spec
from embedded.ports import LOOPBACK, free_ports
from embedded.postgres import client_programs
from embedded.stack import Stack, StackOptions
from embedded.stripe_sandbox import play
from shared.settings import PORTS

NAME = "webhook_to_analytics"
PER_SECOND = 200
WARM_SECONDS = 5
SECONDS = 20
CONNECTIONS = 16
# How often analytics is looked at: what is found may have been there this long.
WATCH_SECONDS = 0.02
PATIENCE_SECONDS = 60.0


@dataclass
class Sightings:
    """When each payment's webhook was answered, and when analytics showed it, by Stripe's id."""

    sent: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def waiting(self) -> list[str]:
        return [payment for payment in self.answered if payment not in self.seen]


async def run(ground: Ground) -> Result:
    owner_url = ground.database()
    stack = Stack.start(options(ground, owner_url))
    try:
        warm = await measure(stack, owner_url, payments("warm", WARM_SECONDS * PER_SECOND))
        if len(warm.seen) < len(warm.answered):
            raise RuntimeError("the warm-up's webhooks did not reach analytics")
        timed = await measure(stack, owner_url, payments("timed", SECONDS * PER_SECOND))
    finally:
        stack.stop()
    missing = timed.waiting()
    if missing:
        raise RuntimeError(f"{len(missing)} of {len(timed.answered)} did not reach analytics")
    delays = milliseconds(timed.seen[p] - at for p, at in timed.answered.items())
    answers = milliseconds(at - timed.sent[p] for p, at in timed.answered.items())
    return Result(
        NAME,
        ours=percentile(delays, 99),
        bare=None,
        ratio=None,
        unit="ms, p99",
        n=len(delays),
        note=f"p50 {percentile(delays, 50):.0f} ms, p99 {percentile(delays, 99):.0f} ms, worst {max(delays):.0f} ms from"
        f" answer to visible row, looked for every {WATCH_SECONDS * 1e3:.0f} ms; {PER_SECOND} webhooks/s for"
        f" {SECONDS} s, each a payment that succeeded; all eight processes on this machine, acks=all, fsync on;"
        f" answers took p50 {percentile(answers, 50):.1f} ms, p99 {percentile(answers, 99):.1f} ms; no bare figure:"
        " whatever stores nothing and sends nothing has no row to wait for",
    )


def options(ground: Ground, owner_url: str) -> StackOptions:
    """The benchmark's own servers, and ports that nobody has."""
    environ = dict(os.environ) | {
        "DATABASE_URL": owner_url,
        "KAFKA_BOOTSTRAP_SERVERS": ground.bootstrap_servers,
        "STRIPE_WEBHOOK_SECRETS": SECRET,
        # The migration job's pg_dump must be the server's own version.
        "PATH": f"{client_programs()}:{os.environ.get('PATH', '')}",
    }
    for service, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
        environ[f"{service.upper()}_PORT"] = str(port)
    return StackOptions(ground.folder / "stack", environ, die_with_caller=True)


def payments(seed: str, count: int) -> list[tuple[str, bytes]]:
    """Stripe's id and the event by which each payment succeeded."""
    specs = [spec(number, lifecycle="card_success") for number in range(count)]
    return [
        (event["data"]["object"]["id"], orjson.dumps(event))
        for event in play(f"bench-{seed}", specs, START).events
        if event["type"] == "payment_intent.succeeded"
    ]


async def measure(stack: Stack, owner_url: str, bodies: Sequence[tuple[str, bytes]]) -> Sightings:
    sightings = Sightings()
    port = int(stack.urls["payments"].rsplit(":", 1)[1])
    queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(owner_url, sightings, len(bodies)))
        senders = [group.create_task(send_from(queue, port, sightings)) for _ in range(CONNECTIONS)]
        started = time.perf_counter()
        for number, each in enumerate(bodies):
            await asyncio.sleep(max(0.0, started + number / PER_SECOND - time.perf_counter()))
            queue.put_nowait(each)
        await watching
        for sender in senders:
            sender.cancel()
    return sightings


async def send_from(
    queue: asyncio.Queue[tuple[str, bytes]], port: int, sightings: Sightings
) -> None:
    """One connection, kept open, as Stripe's are."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        while True:
            payment, body = await queue.get()
            sightings.sent[payment] = time.perf_counter()
            writer.write(request_of(body, port, int(time.time())))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"a webhook was answered {head.splitlines()[0]!r}")
            sightings.answered[payment] = time.perf_counter()
    finally:
        writer.close()


async def watch(owner_url: str, sightings: Sightings, count: int) -> None:
    """Until all are seen, or nothing came for PATIENCE_SECONDS."""
    connection = await asyncpg.connect(owner_url)
    # Ours alone, to look for many at once without disturbing.
    await connection.execute(
        "CREATE INDEX IF NOT EXISTS bench ON analytics.payment_facts ((state->>'stripe_id'))"
    )
    last = time.perf_counter()
    try:
        while len(sightings.seen) < count and time.perf_counter() - last < PATIENCE_SECONDS:
            rows = await connection.fetch(
                "SELECT state->>'stripe_id' AS payment FROM analytics.payment_facts"
                " WHERE state->>'stripe_id' = ANY($1::text[])",
                sightings.waiting(),
            )
            now = time.perf_counter()
            last = now if rows else last
            sightings.seen.update((row["payment"], now) for row in rows)
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        await connection.close()


def milliseconds(seconds: Iterable[float]) -> list[float]:
    return sorted(each * 1e3 for each in seconds)


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
