"""SIGTERM while everything flows: a process ends well in its time, keeps what it promised, and another goes on."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from subprocess import DEVNULL, Popen
from uuid import UUID

import httpx
import orjson
import psycopg

from cli.audit import snapshots
from cli.services import CHECKS
from embedded.ports import LOOPBACK, free_port
from embedded.stripe_sandbox import PaymentSpec, play, sign
from migrations import after
from shared.api_keys import create_key
from shared.db import create_engine, create_sessions
from shared.settings import Settings
from shared.web import GRACEFUL_SECONDS
from tests.conftest import Database
from tests.migrations import storefront
from tests.servers import ROOT

SECRET = "whsec_of_the_end"
PATIENCE_SECONDS = 60.0
# What is under way may take GRACEFUL_SECONDS; then the process closes what it opened.
ENDS_WITHIN_SECONDS = GRACEFUL_SECONDS + 5.0
WEB_ENDS_WITH = (0,)
REQUESTS, AT_ONCE = 400, 16
# More than two workers manage before they end: a successor that finds nothing is told before it listens.
SUBSCRIPTIONS = 8_000
WORKERS_ENDED = 2


@contextmanager
def process(service: str, role: str, environment: Mapping[str, str]) -> Iterator[Popen[bytes]]:
    command = [sys.executable, "-m", f"services.{service}.app", role]
    child = Popen(command, cwd=ROOT, env=os.environ | dict(environment), stderr=DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


def answers(port: int) -> bool:
    try:
        healthz = f"http://{LOOPBACK}:{port}/healthz"
        return httpx.get(healthz, verify=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def column(database: Database, query: str) -> list[object]:
    with psycopg.connect(database.url) as connection:
        return [row[0] for row in connection.execute(query.encode())]


async def ended_well(child: Popen[bytes], codes: tuple[int, ...] = (0,)) -> None:
    assert await asyncio.to_thread(child.wait, ENDS_WITHIN_SECONDS) in codes


async def send(
    port: int, requests: Sequence[Callable[[], httpx.Request]], child: Popen[bytes] | None = None
) -> list[tuple[int, httpx.Response]]:
    """What was answered 2xx, by number; `child` is told to end once a third was."""
    answered: list[tuple[int, httpx.Response]] = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        async with gate:
            try:
                answer = await client.send(requests[number]())
            except httpx.TransportError:
                return
        if answer.is_success:
            answered.append((number, answer))
        if child is not None and len(answered) == len(requests) // 3:
            child.send_signal(signal.SIGTERM)

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(one(client, number) for number in range(len(requests))))
    return answered


async def test_a_web_process_told_to_end_keeps_every_webhook_it_answered(
    database: Database,
) -> None:
    specs = [PaymentSpec(None, None, 5_000, "USD", "card_success")] * REQUESTS
    events = play("the end", specs, int(time.time())).events[:REQUESTS]
    port = free_port()
    environment = {
        "DATABASE_URL": database.url,
        "PAYMENTS_PORT": str(port),
        "STRIPE_WEBHOOK_SECRETS": SECRET,
    }

    def webhook(event: Mapping[str, object]) -> httpx.Request:
        body = orjson.dumps(event)
        headers = {"Stripe-Signature": sign(body, [SECRET], int(time.time()))}
        url = f"http://{LOOPBACK}:{port}/webhooks/stripe"
        return httpx.Request("POST", url, content=body, headers=headers)

    requests = [lambda event=event: webhook(event) for event in events]
    stored = "SELECT id FROM payments.stripe_events"
    with process("payments", "web", environment) as child:
        await until(lambda: answers(port), "the web process starts")
        answered = await send(port, requests, child)
        await ended_well(child, WEB_ENDS_WITH)
    kept = {events[number]["id"] for number, _ in answered}
    assert REQUESTS // 3 <= len(kept) < REQUESTS, "told too early or too late to prove anything"
    assert kept <= set(column(database, stored))

    with process("payments", "web", environment) as child:
        await until(lambda: answers(port), "the successor starts")
        assert len(await send(port, requests)) == REQUESTS
    assert sorted(map(str, column(database, stored))) == sorted(str(e["id"]) for e in events)


async def failed_checks(settings: Settings, service: str) -> list[object]:
    async with snapshots(settings) as sessions:
        return [check for check in await CHECKS[service](sessions[service]) if not check.ok]


async def test_a_web_process_told_to_end_leaves_no_order_half_done(database: Database) -> None:
    settings = Settings(database_url=database.url)
    await asyncio.to_thread(after.default_config, settings)
    engine = create_engine(settings.url_of("pricing"), "pricing")
    async with create_sessions(engine).begin() as session:
        key = await create_key(session, "pricing", "shop", ["subscriptions:write"])
    await engine.dispose()
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 1)
    [user] = column(database, "SELECT id FROM public.users")
    [address] = column(database, "SELECT id FROM public.addresses")
    [variant] = column(database, "SELECT id FROM public.product_variants")
    order = {
        "user_id": str(user),
        "currency": "USD",
        "billing_interval": "month",
        "variants": [{"variant_id": str(variant), "quantity": 1}],
        "delivery_type": "standard",
        "delivery_address_id": str(address),
    }
    port = free_port()
    headers = {"Authorization": f"Bearer {key}"}

    def request() -> httpx.Request:
        url = f"http://{LOOPBACK}:{port}/subscriptions"
        return httpx.Request("POST", url, json=order, headers=headers)

    environment = {"DATABASE_URL": database.url, "PRICING_PORT": str(port)}
    with process("pricing", "web", environment) as child:
        await until(lambda: answers(port), "the web process starts")
        answered = await send(port, [request] * REQUESTS, child)
        await ended_well(child, WEB_ENDS_WITH)
    assert REQUESTS // 3 <= len(answered) < REQUESTS
    promised = {UUID(answer.json()["id"]) for _, answer in answered}
    assert promised <= set(column(database, "SELECT id FROM public.subscriptions"))
    assert promised <= set(
        column(database, "SELECT subscription_id FROM pricing.subscription_cost_history")
    )
    assert await failed_checks(settings, "pricing") == []


async def test_a_worker_told_to_end_leaves_the_rest_to_the_next(
    database: Database, kafka_servers: str, topics: str
) -> None:
    settings = Settings(database_url=database.url)
    await asyncio.to_thread(after.default_config, settings)
    environment = {
        "DATABASE_URL": database.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": topics,
    }
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 1)
        connection.execute(
            "INSERT INTO public.subscriptions"
            " (user_id, currency, variants, delivery_type, delivery_address_id)"
            " SELECT a.user_id, 'USD', jsonb_build_array(jsonb_build_object("
            "'variant_id', v.id, 'quantity', 1)), 'standard', a.id"
            " FROM public.addresses a, public.product_variants v, generate_series(1, %s)",
            (SUBSCRIPTIONS,),
        )
    query = "SELECT count(*) FROM pricing.subscription_cost_history"

    def priced() -> int:
        return int(str(column(database, query)[0]))

    cut = []
    for _ in range(WORKERS_ENDED):
        before = priced()
        with process("pricing", "worker", environment) as child:
            await until(lambda before=before: priced() > before, "the worker goes on")  # type: ignore[misc]
            child.send_signal(signal.SIGTERM)
            await ended_well(child)
        cut.append(priced())
    assert cut[-1] < SUBSCRIPTIONS, "told too late to prove anything"
    with process("pricing", "worker", environment) as child:
        await until(lambda: priced() >= SUBSCRIPTIONS, "the successor finishes")
        unsent = "SELECT id FROM pricing.outbox WHERE published_at IS NULL"
        await until(lambda: not column(database, unsent), "the successor sends")
        child.send_signal(signal.SIGTERM)
        await ended_well(child)
    assert priced() == SUBSCRIPTIONS
    assert await failed_checks(settings, "pricing") == []
