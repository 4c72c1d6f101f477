"""PostgreSQL is killed and started again under load, twice: no webhook that was answered 200 is missing."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from embedded.ports import LOOPBACK, free_port
from embedded.postgres import EmbeddedPostgres, running_server
from embedded.stripe_sandbox import sign
from services.payments import fold
from shared.db import raw_pool
from shared.faults import is_transient
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import every_life
from tests.payments.test_crash import SECRET, web
from tests.payments.test_fold import assert_announced, assert_true
from tests.servers import create_database, database_parent, make_run_folder, migrate, url_of

NAME = "fbx_dies"
AT_ONCE = 8
SETTLES_WITHIN_SECONDS = 60.0


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """Of the test's own, with fsync on."""
    folder = make_run_folder(database_parent())
    own = EmbeddedPostgres(folder / "postgres", port=free_port())
    try:
        own.start()
        create_database(own.url, NAME, "template1")
        migrate(url_of(own.url, NAME))
        yield own
    finally:
        own.remove()
        shutil.rmtree(folder, ignore_errors=True)


async def test_what_was_acknowledged_outlives_the_database(server: EmbeddedPostgres) -> None:
    lives = every_life(8)
    database = Database(NAME, url_of(server.url, NAME))
    port = free_port()
    acknowledged: set[object] = set()
    with web(database, port):
        sending = asyncio.create_task(send_each_until_taken(port, lives.events, acknowledged))
        folding = asyncio.create_task(fold_on(database))
        for share in (4, 2):
            await until(lambda share=share: len(acknowledged) > len(lives.events) // share)
            await asyncio.to_thread(restart, server)
        await sending
    folding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await folding
    async with raw_pool(database.url_for("payments"), "payments", size=2) as pool:
        service = Service(pool, lambda: datetime.now(UTC))
        # None was sent again once it had been answered 200.
        stored = {row["id"] for row in await service.rows("SELECT id FROM stripe_events")}
        assert stored == acknowledged == {event["id"] for event in lives.events}
        await pool.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
        await service.fold_all()
        await assert_true(service, lives)
        await assert_announced(service)


def restart(server: EmbeddedPostgres) -> None:
    """Without a checkpoint and with no word to anybody; what it had answered must be in its log."""
    running = running_server(server.data_dir)
    assert running is not None
    running.mark.send(signal.SIGQUIT)
    assert running.mark.wait_gone(20)
    server.stop()  # reaps it
    server.start()


async def send_each_until_taken(
    port: int, events: list[dict[str, object]], acknowledged: set[object]
) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def send(client: httpx.AsyncClient, event: dict[str, object]) -> None:
        body = orjson.dumps(event)
        async with gate:
            while event["id"] not in acknowledged:
                headers = {"Stripe-Signature": sign(body, [SECRET], int(time.time()))}
                answer = await client.post("/webhooks/stripe", content=body, headers=headers)
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 200:
                    acknowledged.add(event["id"])
                else:
                    await asyncio.sleep(0.05)

    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", timeout=30) as client:
        await asyncio.gather(*(send(client, event) for event in events))


async def fold_on(database: Database) -> None:
    """As the worker does: what passes by itself is tried again."""
    url = database.url_for("payments")
    holder = f"holder-{os.getpid()}"
    async with raw_pool(url, "payments", size=2, ready=0) as pool:
        while True:
            try:
                await fold.run_once(pool, holder, lambda: datetime.now(UTC))
            except Exception as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(0.02)


async def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + SETTLES_WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
