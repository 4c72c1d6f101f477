"""The audit of a system that nobody stops for it."""

import asyncio
import itertools
import time
from uuid import uuid4

import orjson
import psycopg

from cli import audit
from embedded.stripe_sandbox import PaymentSpec, play
from migrations import after
from services.payments.gateway import open_envelope
from services.payments.store import Arrival, insert
from shared.db import raw_pool
from shared.settings import Settings
from tests.cli.running import everything_runs, until_quiet
from tests.conftest import Database
from tests.migrations import storefront

AUDITS = 3
SETTLE_SECONDS = 30
LIVES = ("card_success", "partial_refunds", "dispute_lost")
PAUSE_SECONDS = 0.02


async def write(settings: Settings, stop: asyncio.Event) -> int:
    """Customers subscribe and pay until `stop`; returns how many."""
    start = int(time.time())
    async with raw_pool(settings.url_of("payments"), "payments", size=1) as pool:
        for number in itertools.count():
            if stop.is_set():
                return number
            with psycopg.connect(settings.database_url) as connection:
                user = storefront.add_customer(connection)
                storefront.add_subscription(connection, user)
            life = LIVES[number % len(LIVES)]
            spec = PaymentSpec(str(user), None, 5_000, "USD", life)
            events = play(f"{uuid4()}", [spec], start).events
            for event in events:
                body = orjson.dumps(event)
                async with pool.acquire() as connection:
                    await insert(connection, [Arrival(open_envelope(body), body, None)])
                await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


async def test_an_audit_passes_while_customers_go_on_paying(
    database: Database, kafka_servers: str, topics: str
) -> None:
    settings = Settings(
        database_url=database.url,
        kafka_bootstrap_servers=kafka_servers,
        farebox_topic_prefix=topics,
    )
    await asyncio.to_thread(after.default_config, settings)
    stop = asyncio.Event()
    async with everything_runs(settings):
        writing = asyncio.create_task(write(settings, stop))
        counted = []
        for _ in range(AUDITS):
            results = {r.id: r for r in await audit.run(settings, SETTLE_SECONDS)}
            assert [result for result in results.values() if not result.ok] == []
            counted.append(results["S9"].counted)
        stop.set()
        written = await writing
        await until_quiet(settings)
    assert counted == sorted(set(counted)), "nobody paid during an audit: nothing is proven"
    assert counted[-1] > 0
    assert written > AUDITS
