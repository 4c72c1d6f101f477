"""The web process is killed under load: what it answered 200 is there, and what was sent again is there once."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson

from embedded.ports import LOOPBACK, free_port
from embedded.stripe_sandbox import sign
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import every_life

SECRET = "whsec_of_the_crash"
STARTS_WITHIN_SECONDS = 60.0


@contextmanager
def web(database: Database, port: int) -> Iterator[subprocess.Popen[bytes]]:
    env = os.environ | {
        "DATABASE_URL": database.url,
        "PAYMENTS_PORT": str(port),
        "STRIPE_WEBHOOK_SECRETS": SECRET,
    }
    command = [sys.executable, "-m", "services.payments.app", "web"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not answers(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/healthz", verify=False).status_code == 200
    except httpx.TransportError:
        return False


async def send(
    port: int, events: list[dict[str, object]], kill: subprocess.Popen[bytes] | None
) -> set[object]:
    """The ids that were answered 200; `kill` dies when a third of them were."""
    acknowledged: set[object] = set()
    gate = asyncio.Semaphore(16)

    async def post(client: httpx.AsyncClient, event: dict[str, object]) -> None:
        body = orjson.dumps(event)
        async with gate:
            headers = {"Stripe-Signature": sign(body, [SECRET], int(time.time()))}
            try:
                answer = await client.post("/webhooks/stripe", content=body, headers=headers)
            except httpx.TransportError:
                return
        if answer.status_code == 200:
            acknowledged.add(event["id"])
        if kill is not None and len(acknowledged) > len(events) // 3:
            kill.kill()

    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=30) as client:
        await asyncio.gather(*(post(client, event) for event in events))
    return acknowledged


async def test_killed_under_load_nothing_acknowledged_is_missing_and_nothing_is_twice(
    database: Database, service: Service
) -> None:
    port = free_port()
    events: list[dict[str, object]] = [*every_life(9).events]
    ids = {event["id"] for event in events}
    with web(database, port) as first:
        acknowledged = await send(port, events, kill=first)
    assert 0 < len(acknowledged) < len(events)
    stored = {row["id"] for row in await service.rows("SELECT id FROM stripe_events")}
    assert acknowledged <= stored <= ids

    with web(database, port):
        assert await send(port, events, kill=None) == ids
    [row] = await service.rows("SELECT count(*) AS stored FROM stripe_events")
    assert row["stored"] == len(ids)
