"""Health, keys, problems and the transaction around a request, on a real database and broker."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer
from fastapi import APIRouter, Depends
from pydantic import ValidationError
from sqlalchemy import select, text

from shared.api_keys import Caller, create_key
from shared.auth import require
from shared.db import create_engine, create_sessions
from shared.errors import Conflict
from shared.events import PaymentChanged
from shared.inbox import advance
from shared.outbox import OutboxMessage, publish
from shared.settings import Settings
from shared.trace import Cause
from shared.web import Now, RequestCause, Session, Web, create_app
from tests.conftest import Database
from tests.shared.facts import payment

NOW = datetime(2026, 3, 1, tzinfo=UTC)
router = APIRouter()


@router.post("/facts")
async def post_fact(session: Session, cause: RequestCause, fail: bool = False) -> dict[str, str]:
    await publish(session, [(payment(), cause)])
    if fail:
        raise Conflict("not possible now", reason="a test", status="paused")
    return {"cause": cause.id}


@router.post("/echo")
async def post_echo(said: dict[str, str]) -> dict[str, str]:
    return said


@router.get("/now")
async def get_now(now: Now) -> datetime:
    return now


@router.get("/broken")
async def get_broken() -> None:
    raise ZeroDivisionError


@router.get("/restarting")
async def get_restarting() -> None:
    raise asyncpg.AdminShutdownError("terminating connection due to administrator command")


@router.get("/secret")
async def get_secret(caller: Annotated[Caller, Depends(require("loyalty:read"))]) -> str:
    return caller.name


@router.get("/maybe")
async def get_maybe(
    caller: Annotated[Caller, Depends(require("loyalty:read", always=False))],
) -> str:
    return caller.name


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    web = Web(settings, "loyalty", router, hears=(PaymentChanged,), clock=lambda: NOW)
    app = create_app(web)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
def settings(database: Database, kafka_servers: str, topics: str) -> Settings:
    return Settings(
        database_url=database.url,
        loyalty_database_url=database.url_for("loyalty"),
        kafka_bootstrap_servers=kafka_servers,
        farebox_topic_prefix=topics,
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(settings) as client:
        yield client


async def staged(database: Database) -> list[OutboxMessage]:
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    async with create_sessions(engine)() as session:
        rows = list(await session.scalars(select(OutboxMessage)))
    await engine.dispose()
    return rows


async def test_an_answer_comes_after_the_commit_and_carries_the_trace(
    client: httpx.AsyncClient, database: Database
) -> None:
    given = f"00-{'ab' * 16}-{'cd' * 8}-01"
    response = await client.post("/facts", headers={"traceparent": given})

    assert response.status_code == 200
    [row] = await staged(database)
    cause = row.headers["ce_causationid"]
    assert cause == response.json()["cause"]
    assert cause.startswith(f"request:{'ab' * 16}-")
    again = await client.post("/facts", headers={"traceparent": given})
    assert again.json()["cause"] != cause
    assert row.headers["traceparent"].split("-")[1] == "ab" * 16
    assert response.headers["traceparent"].split("-")[1] == "ab" * 16


async def test_a_refused_request_leaves_nothing_and_says_why(
    client: httpx.AsyncClient, database: Database
) -> None:
    response = await client.post("/facts?fail=true")

    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (body["type"], body["status"]) == ("urn:farebox:problem:conflict", 409)
    assert (body["detail"], body["reason"]) == ("not possible now", "a test")
    assert await staged(database) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/facts", 405),
        ("POST", "/facts?fail=perhaps", 422),
        ("GET", "/broken", 500),
        ("GET", "/secret", 401),
        ("GET", "/readyz?only=weather", 422),
        ("GET", "/restarting", 503),
    ],
)
async def test_every_error_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize("said", [True, False])
async def test_a_body_larger_than_any_request_is_refused_unread(
    client: httpx.AsyncClient, said: bool
) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield b" " * 2**20

    headers = {"Content-Length": str(64 * 2**20)} if said else {}
    answer = await client.post("/echo", content=body(), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert read <= (1 if said else 9)


async def test_keys_open_what_their_scopes_cover(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    engine = create_engine(settings.url_of("loyalty"), "loyalty")
    async with create_sessions(engine).begin() as session:
        good = await create_key(session, "loyalty", "reporting", ["loyalty:read"])
        await session.execute(
            text("INSERT INTO api_keys SELECT sha256('poor'), 'poor', '{other:read}'")
        )
    await engine.dispose()

    async def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return (await client.get("/secret", headers=headers)).status_code

    assert await status(good) == 200
    assert await status("poor") == 403
    assert await status(f"fbx_{uuid4()}") == 401
    assert (await client.get("/maybe")).json() == "anonymous"


async def test_reading_asks_for_a_key_where_keys_are_required(settings: Settings) -> None:
    strict = settings.model_copy(update={"farebox_require_keys": True})
    async with client_of(strict) as client:
        assert (await client.get("/maybe")).status_code == 401


async def test_ready_when_all_is_there_and_metrics_say_the_same(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")

    assert response.json() == {
        "ready": True,
        "checks": dict.fromkeys(("database", "schema", "broker", "consumer", "outbox"), "ok"),
    }
    metrics = (await client.get("/metrics")).text
    assert 'farebox_state{name="ready",service="loyalty"} 1.0' in metrics
    assert 'farebox_state{name="outbox_unpublished",service="loyalty"} 0.0' in metrics


async def test_not_ready_without_broker_but_still_for_whom_the_database_is_enough(
    settings: Settings,
) -> None:
    lost = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    async with client_of(lost) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert "no answer from 127.0.0.1:1" in response.json()["checks"]["broker"]
        assert (await client.get("/readyz?only=database,schema")).status_code == 200


async def test_not_ready_on_an_older_schema_and_says_which_one_it_wants(
    client: httpx.AsyncClient, database: Database
) -> None:
    engine = create_engine(database.url, "public")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '004'"))
    await engine.dispose()

    response = await client.get("/readyz")
    assert response.status_code == 503
    assert "stands at 004, this release wants" in response.json()["checks"]["schema"]


async def test_not_ready_while_facts_lie_unsent(
    client: httpx.AsyncClient, database: Database
) -> None:
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    async with create_sessions(engine).begin() as session:
        await publish(session, [(payment(), Cause("test"))])
        await session.execute(text("UPDATE outbox SET created_at = now() - interval '2 minutes'"))
    await engine.dispose()

    report = (await client.get("/readyz")).json()
    assert not report["ready"]
    assert "120 s old" in report["checks"]["outbox"]


async def test_the_clock_is_the_one_passed_in(client: httpx.AsyncClient) -> None:
    assert (await client.get("/now")).json() == "2026-03-01T00:00:00Z"


async def test_not_ready_while_the_consumer_stands_still_but_ready_once_it_moves(
    client: httpx.AsyncClient,
    settings: Settings,
    kafka_servers: str,
    topics: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.health.STALE_SECONDS", 0.05)
    monkeypatch.setattr("shared.health.CACHE_SECONDS", 0.0)
    async with AIOKafkaProducer(bootstrap_servers=kafka_servers) as producer:
        record = await producer.send_and_wait(f"{topics}.payments", b"{}", partition=1)

    assert (await client.get("/readyz")).json()["checks"]["consumer"] == "ok"  # seen just now
    await asyncio.sleep(0.1)
    stalled = (await client.get("/readyz")).json()["checks"]["consumer"]
    assert stalled.startswith(f"no progress on {topics}.payments/1")
    assert 'name="consumer_lag",service="loyalty"} 1.0' in (await client.get("/metrics")).text

    engine = create_engine(settings.url_of("loyalty"), "loyalty")
    async with create_sessions(engine).begin() as session:
        await advance(session, "loyalty", {(f"{topics}.payments", 1): record.offset + 1})
    await engine.dispose()
    assert (await client.get("/readyz")).json()["checks"]["consumer"] == "ok"


def test_nobody_listens_on_the_network_without_keys() -> None:
    with pytest.raises(ValidationError, match="set FAREBOX_REQUIRE_KEYS=true"):
        Settings(farebox_host="0.0.0.0")
    assert Settings(farebox_host="0.0.0.0", farebox_require_keys=True).farebox_require_keys
    assert Settings(farebox_host="::1").farebox_host == "::1"


async def test_the_api_page_needs_no_network(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    scripts = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(scripts) >= 2
    for address in scripts:
        assert (await client.get(address)).status_code == 200, address
