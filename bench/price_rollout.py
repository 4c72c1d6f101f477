"""A price change for a million subscriptions: previewed, approved, published, rolled out until every fact is in Kafka.

The worker is the product's own process; the storefront writes on meanwhile, and each of its writes is timed.
"""

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import asyncpg
import psutil

from bench.ground import Ground, service_url
from bench.pricing_shop import DELIVERY, RATES, ROWS, make_shop
from bench.result import Result
from services.pricing.decisions import Decision
from services.pricing.drafts import ConfigDraft
from services.pricing.life import approve, create_draft, latest_preview, start_preview
from services.pricing.versions import publish_version
from shared.clock import utc_now
from shared.db import Sessions, create_engine, create_sessions
from shared.trace import Cause

WATCH_SECONDS = 0.02
WRITES_PER_SECOND = 50
LIMIT_SECONDS = 1_800
# A higher fee, other delivery costs, one tax rate: every subscription's cents change.
CHANGED = {
    "admin_percentage": "12.5",
    "delivery_cost_minor": {c: {t: m + 25 for t, m in d.items()} for c, d in DELIVERY.items()},
    "tax_rates": RATES | {"US-NY": "0.09"},
}
BARE = (
    """UPDATE public.subscriptions SET total_minor = total_minor + 1, tax_minor = tax_minor + 1, price_version = 1,
        cost_breakdown = cost_breakdown || '{"total_minor": 1, "tax_minor": 1, "fee_minor": 1, "price_versions": [2]}'""",
    """INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version, kind, currency,
        old_breakdown, new_breakdown, old_total_minor, new_total_minor, effective_at, reason, changed_by,
        cause_id)
    SELECT id, user_id, 1, 'config', currency, cost_breakdown, cost_breakdown, total_minor, total_minor, now(),
        'r', 'b', 'c' FROM public.subscriptions""",
    """INSERT INTO pricing.outbox (id, aggregatetype, aggregateid, type, payload, headers)
    SELECT md5(id::text)::uuid, 'pricing', user_id, 'pricing.subscription_cost_changed',
        jsonb_build_object('subscription_id', id, 'old_breakdown', cost_breakdown,
            'new_breakdown', cost_breakdown), '{}' FROM public.subscriptions""",
)


@dataclass
class Seen:
    """What was watched while it ran."""

    longest_transaction_seconds: float = 0.0
    write_seconds: list[float] = field(default_factory=list)
    memory_bytes: int = 0


@dataclass
class Timings:
    preview_seconds: float
    moved_seconds: float  # until every subscription is moved
    facts_seconds: float  # until every fact is in Kafka
    seen: Seen


async def run(ground: Ground) -> list[Result]:
    print(f"  filling {ROWS:,} subscriptions", file=sys.stderr)
    shop = make_shop(ground)
    bare_url = ground.copy(shop)
    timings = await measure(ground, shop, roll_out=True)
    bare = await bare_rate(bare_url)
    return [preview_result(timings), rollout_result(timings, bare)]


async def measure(ground: Ground, shop: str, *, roll_out: bool) -> Timings:
    prefix = await ground.topics()
    engine = create_engine(service_url(shop, "pricing"), "pricing")
    sessions = create_sessions(engine)
    watch = await asyncpg.connect(shop)
    try:
        async with worker(ground, shop, prefix) as process, watched(shop, process) as seen:
            await drafted(sessions)
            began = time.perf_counter()
            await until(watch, "SELECT status = 'done' FROM pricing.previews")
            preview = time.perf_counter() - began
            if not roll_out:
                return Timings(preview, 0, 0, seen)
            await published(sessions)
            began = time.perf_counter()
            await until(
                watch, "SELECT status = 'done' FROM pricing.rollouts WHERE price_version = 2"
            )
            moved = time.perf_counter() - began
            await until(
                watch, "SELECT NOT EXISTS (SELECT FROM pricing.outbox WHERE published_at IS NULL)"
            )
            facts = time.perf_counter() - began
        await check(watch)
        return Timings(preview, moved, facts, seen)
    finally:
        await watch.close()
        await engine.dispose()


async def drafted(sessions: Sessions) -> None:
    decision = Decision("author", "dearer", utc_now(), Cause("bench:draft"))
    async with sessions.begin() as session:
        config = await create_draft(session, ConfigDraft.model_validate(CHANGED), decision)
        await start_preview(session, config.version, decision)


async def published(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        digest = (await latest_preview(session, 2)).hash or ""
        decision = Decision("approver", "looked at", utc_now(), Cause("bench:approve"))
        await approve(session, 2, digest, decision)
        await publish_version(session, 2, digest, decision)


async def check(watch: asyncpg.Connection) -> None:
    """To the cent what the preview said, for everybody but whom the storefront changed meanwhile."""
    wrong = await watch.fetchval("""
        SELECT count(*) FROM public.subscriptions s
        JOIN pricing.preview_items p ON p.preview_id = 1 AND p.subscription_id = s.id
        WHERE s.total_minor IS DISTINCT FROM p.new_total_minor OR s.price_version <> 2
    """)
    counts = dict(
        await watch.fetch(
            "SELECT outcome, count(*) FROM pricing.rollout_items WHERE price_version = 2 GROUP BY 1"
        )
    )
    if wrong or counts != {"moved": ROWS}:
        raise RuntimeError(f"{wrong} are not what the preview said; outcomes {counts}")


async def bare_rate(url: str) -> float:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT set_config('farebox.pricing', 'on', false)")
        began = time.perf_counter()
        async with connection.transaction():
            for statement in BARE:
                await connection.execute(statement)
        return ROWS / (time.perf_counter() - began)
    finally:
        await connection.close()


@asynccontextmanager
async def worker(ground: Ground, shop: str, prefix: str) -> AsyncIterator[psutil.Process]:
    """pricing's own worker process: preview, rollout, relay and consumer."""
    environment = os.environ | {
        "DATABASE_URL": shop,
        "PRICING_DATABASE_URL": service_url(shop, "pricing"),
        "KAFKA_BOOTSTRAP_SERVERS": ground.bootstrap_servers,
        "FAREBOX_TOPIC_PREFIX": prefix,
    }
    log = Path(ground.folder) / "pricing-worker.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.pricing.app", "worker"),
            env=environment,
            stdout=out,
            stderr=out,
        )
        try:
            yield psutil.Process(process.pid)
            if process.returncode is not None:
                raise RuntimeError(f"the worker died: {log.read_text()[-2_000:]}")
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


@asynccontextmanager
async def watched(shop: str, process: psutil.Process) -> AsyncIterator[Seen]:
    seen = Seen()
    tasks = [
        asyncio.create_task(watch_server(shop, process, seen)),
        asyncio.create_task(write_on(shop, seen)),
    ]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def watch_server(shop: str, process: psutil.Process, seen: Seen) -> None:
    """The longest transaction of pricing's role as seen every 20 ms, and the worker's memory."""
    connection = await asyncpg.connect(shop)
    while True:
        longest = await connection.fetchval(
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8"
            " FROM pg_stat_activity WHERE usename = 'pricing_app' AND state <> 'idle'"
        )
        seen.longest_transaction_seconds = max(seen.longest_transaction_seconds, longest)
        seen.memory_bytes = max(seen.memory_bytes, process.memory_info().rss)
        await asyncio.sleep(WATCH_SECONDS)


async def write_on(shop: str, seen: Seen) -> None:
    """The storefront moves deliveries of random subscriptions by a day: each stages a fact, none changes a price."""
    connection = await asyncpg.connect(shop)
    ids: list[UUID] = [
        row[0]
        for row in await connection.fetch(
            "SELECT id FROM public.subscriptions TABLESAMPLE system (1) LIMIT 5000"
        )
    ]
    due = time.perf_counter()
    while True:
        due += 1 / WRITES_PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        await connection.execute(
            "UPDATE public.subscriptions SET next_delivery_on = next_delivery_on + 1 WHERE id = $1",
            random.choice(ids),
        )
        seen.write_seconds.append(time.perf_counter() - began)


async def until(watch: asyncpg.Connection, query: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await watch.fetchval(query):
            await asyncio.sleep(WATCH_SECONDS)


def preview_result(timings: Timings) -> Result:
    return Result(
        "price_preview",
        ours=ROWS / timings.preview_seconds,
        bare=None,
        ratio=None,
        unit="subscriptions/s",
        n=ROWS,
        note=f"{ROWS:,} subscriptions previewed in {timings.preview_seconds:.0f} s by one pricing worker, an item each"
        " with old and new total, totals, extremes and the hash; the storefront wrote on; no bare figure: whatever"
        " computes nothing has nothing to show; fsync on, all on this machine",
    )


def rollout_result(timings: Timings, bare: float) -> Result:
    seen = timings.seen
    writes = sorted(seen.write_seconds)
    ours = ROWS / timings.facts_seconds
    return Result(
        "price_rollout",
        ours=ours,
        bare=bare,
        ratio=ours / bare,
        unit="subscriptions/s",
        n=ROWS,
        note=f"{ROWS:,} subscriptions moved in {timings.moved_seconds:.0f} s, their facts in Kafka after"
        f" {timings.facts_seconds:.0f} s, each as its preview said; worker's memory at most"
        f" {seen.memory_bytes / 2**20:.0f} MB, longest transaction {seen.longest_transaction_seconds:.2f} s;"
        f" storefront's {len(writes):,} writes p50 {writes[len(writes) // 2] * 1e3:.1f} ms,"
        f" p99 {writes[int(len(writes) * 0.99)] * 1e3:.0f} ms, longest {writes[-1] * 1e3:.0f} ms; bare is one"
        " UPDATE and two INSERT … SELECT of the same rows without a look at what they cost; one worker,"
        f" {WRITES_PER_SECOND} writes/s of the storefront, fsync on, acks=all",
    )
