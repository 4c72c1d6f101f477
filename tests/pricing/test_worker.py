"""The real worker process, on a real Kafka: the storefront's SQL comes back priced, and a kill loses nothing."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from subprocess import DEVNULL, Popen

from services.pricing.audit import checks
from shared.db import Sessions
from tests.conftest import Database
from tests.pricing.conftest import Shop, publish_config
from tests.servers import ROOT

SUBSCRIPTIONS = 3_000
PATIENCE_SECONDS = 60.0


@contextmanager
def worker(environment: dict[str, str]) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", "services.pricing.app", "worker"]
    process = Popen(command, cwd=ROOT, env=os.environ | environment, stderr=DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(shop: Shop, query: str, holds: Callable[[int], bool]) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found: int = await shop.storefront.fetchval(query)
        if holds(found):
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"still {found} after {PATIENCE_SECONDS} s: {query}")


async def test_a_worker_killed_in_the_middle_of_a_rollout_loses_and_repeats_nothing(
    database: Database, shop: Shop, sessions: Sessions, kafka_servers: str, topics: str
) -> None:
    environment = {
        "DATABASE_URL": database.url,
        "PRICING_DATABASE_URL": database.url_for("pricing"),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": topics,
    }
    await publish_config(sessions, datetime.now(UTC) - timedelta(days=1))
    first = await shop.subscription([(await shop.variant(1_000), 1)])
    await shop.storefront.execute(
        "INSERT INTO public.subscriptions (user_id, currency, variants, delivery_type, delivery_address_id)"
        " SELECT s.user_id, s.currency, s.variants, s.delivery_type, s.delivery_address_id"
        " FROM public.subscriptions s, generate_series(2, $1) WHERE s.id = $2",
        *(SUBSCRIPTIONS, first),
    )
    priced = "SELECT count(*) FROM pricing.subscription_cost_history WHERE kind = 'created'"
    moved = (
        "SELECT count(*) FROM pricing.rollout_items WHERE price_version = 2 AND outcome = 'moved'"
    )
    with worker(environment) as process:
        await until(shop, priced, lambda count: count == SUBSCRIPTIONS)
        await publish_config(sessions, datetime.now(UTC), {"admin_percentage": "20"})
        at = await until(shop, moved, lambda count: count > 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 0 < at < SUBSCRIPTIONS, "killed too late to prove anything"

    with worker(environment) as process:
        await until(shop, moved, lambda count: count == SUBSCRIPTIONS)
        unsent = "SELECT count(*) FROM pricing.outbox WHERE published_at IS NULL"
        await until(shop, unsent, lambda count: count == 0)
        process.terminate()
        assert process.wait(timeout=20) == 0

    async with sessions() as session:
        assert [check for check in await checks(session) if not check.ok] == []
    lines = await shop.storefront.fetch(
        "SELECT kind, count(*), count(DISTINCT subscription_id) AS subscriptions"
        " FROM pricing.subscription_cost_history GROUP BY kind ORDER BY kind"
    )
    assert [tuple(line) for line in lines] == [
        ("config", SUBSCRIPTIONS, SUBSCRIPTIONS),
        ("created", SUBSCRIPTIONS, SUBSCRIPTIONS),
    ]
