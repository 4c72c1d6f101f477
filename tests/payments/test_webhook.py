"""The door: only what Stripe signed just now comes in, and what is answered 200 is durable."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import httpx
import orjson
import pytest

from embedded.stripe_sandbox import sign
from services.payments import store
from services.payments.app import create_web
from services.payments.gateway import open_envelope
from services.payments.intake import Intake
from services.payments.store import Arrival
from services.payments.webhook import MAX_BODY_BYTES
from shared.errors import Unavailable
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import NOW, Hands, Service
from tests.payments.lives import played

OLD, NEW = "whsec_old", "whsec_new"
NOW_SECONDS = int(NOW.timestamp())
EVENT: dict[str, object] = played(1, ["card_success"]).events[0]
BODY = orjson.dumps(EVENT)


@pytest.fixture
async def client(database: Database, hands: Hands) -> AsyncIterator[httpx.AsyncClient]:
    async with door(database, hands) as opened:
        yield opened


@asynccontextmanager
async def door(database: Database, hands: Hands) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        database_url=database.url, stripe_webhook_secrets=f"{OLD},{NEW}", farebox_log_json=False
    )
    door = create_web(settings, hands)
    async with door.app.router.lifespan_context(door.app):
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as opened:
            yield opened


async def post(client: httpx.AsyncClient, body: bytes, signature: str | None) -> httpx.Response:
    headers = {} if signature is None else {b"stripe-signature": signature.encode("latin-1")}
    return await client.post("/webhooks/stripe", content=body, headers=headers)


def signed(body: bytes = BODY, at: int = NOW_SECONDS) -> str:
    return sign(body, [NEW], at)


def mac(secret: str, at: int = NOW_SECONDS) -> str:
    return hmac.new(secret.encode(), b"%d." % at + BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("signature", "status"),
    [
        (signed(), 200),
        (signed(at=NOW_SECONDS - 299), 200),
        (signed(at=NOW_SECONDS - 301), 400),
        (signed(at=NOW_SECONDS + 299), 200),
        (signed(at=NOW_SECONDS + 301), 400),
        (sign(BODY, [OLD], NOW_SECONDS), 200),
        (sign(BODY, [OLD, NEW], NOW_SECONDS), 200),
        (sign(BODY, ["whsec_other", NEW], NOW_SECONDS), 200),
        (sign(BODY, ["whsec_other"], NOW_SECONDS), 400),
        (sign(BODY, [""], NOW_SECONDS), 400),
        (f"t={NOW_SECONDS},v0={mac(NEW)}", 400),
        (f"t={NOW_SECONDS},v0={mac(NEW)},v1={mac(NEW)}", 200),
        (f"t={NOW_SECONDS},v1={mac(NEW).upper()}", 400),
        (f"t={NOW_SECONDS - 1},v1={mac(NEW)}", 400),
        (f"t={NOW_SECONDS},t={NOW_SECONDS - 900},v1={mac(NEW)}", 200),
        (f"t={NOW_SECONDS - 900},t={NOW_SECONDS},v1={mac(NEW, NOW_SECONDS - 900)}", 400),
        (f"t={NOW_SECONDS}=5,v1={mac(NEW)}", 200),
        (f"v1={mac(NEW)}", 400),
        (f"t=,v1={mac(NEW)}", 400),
        ("t=now,v1=x", 400),
        ("", 400),
        (",,==", 400),
        ("t=1,v1=é", 400),
        (None, 400),
    ],
)
async def test_only_what_is_signed_with_a_current_secret_just_now_comes_in(
    client: httpx.AsyncClient, service: Service, signature: str | None, status: int
) -> None:
    answer = await post(client, BODY, signature)
    assert answer.status_code == status
    stored = await service.rows("SELECT id FROM stripe_events")
    assert stored == ([{"id": EVENT["id"]}] if status == 200 else [])
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:farebox:problem:signature-refused"


@pytest.mark.parametrize("position", [0, 100, len(BODY) - 1])
async def test_an_altered_byte_is_refused(client: httpx.AsyncClient, position: int) -> None:
    altered = bytearray(BODY)
    altered[position] ^= 1
    assert (await post(client, bytes(altered), signed())).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b"{}",
        b'{"object":"event"}',
        b'{"object":"customer","id":"evt_1","type":"a","created":1}',
        b'{"object":"event","id":"","type":"a","created":1}',
        b'{"object":"event","id":"evt_\\u0000","type":"a","created":1}',
        b'{"object":"event","id":7,"type":"a","created":1}',
        b'{"object":"event","id":"evt_1","type":"a"}',
        b'{"object":"event","id":"evt_1","type":"a","created":true}',
        b'{"object":"event","id":"evt_1","type":"a","created":99999999999999}',
        b'{"object":"v2.core.event","id":"evt_1","type":"a","created":"yesterday"}',
        orjson.dumps({"object": "event", "id": "e" * 256, "type": "a", "created": 1}),
        b"[" * 100_000,
    ],
)
async def test_what_is_signed_but_no_event_is_the_senders_mistake(
    client: httpx.AsyncClient, service: Service, body: bytes
) -> None:
    answer = await post(client, body, sign(body, [NEW], NOW_SECONDS))
    assert answer.status_code == 400
    assert answer.json()["detail"]
    assert await service.rows("SELECT id FROM stripe_events") == []


async def test_two_megabytes_are_refused_unread(client: httpx.AsyncClient) -> None:
    body = b" " * 2_000_000
    assert (await post(client, body, sign(body, [NEW], NOW_SECONDS))).status_code == 413


async def test_too_many_chunks_are_refused_before_all_have_come(
    client: httpx.AsyncClient,
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 4 * MAX_BODY_BYTES:
            sent += 65_536
            yield b" " * 65_536

    answer = await client.post(
        "/webhooks/stripe", content=chunks(), headers={"Stripe-Signature": signed()}
    )
    assert answer.status_code == 413
    assert sent <= 2 * MAX_BODY_BYTES


async def test_a_get_is_told_what_the_address_is_for(client: httpx.AsyncClient) -> None:
    for address in ("/webhooks/stripe", "/webhooks/stripe/"):
        answer = await client.get(address)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("kind", ["customer.created", "something.nobody.knows"])
async def test_an_unknown_type_is_stored_and_answered(
    client: httpx.AsyncClient, service: Service, kind: str
) -> None:
    body = orjson.dumps(EVENT | {"type": kind, "data": {"object": {"object": "mystery"}}})
    assert (await post(client, body, signed(body))).status_code == 200
    await service.fold_all()
    shown = (await client.get(f"/stripe-events/{EVENT['id']}")).json()
    assert shown["status"] == "ignored"
    assert "mystery" in shown["detail"]


async def test_a_repeated_delivery_is_one_row_with_the_trace_of_the_first(
    client: httpx.AsyncClient, service: Service
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for pending in (3, 2, 1):
        body = orjson.dumps(EVENT | {"pending_webhooks": pending})
        headers = {"Stripe-Signature": signed(body), "traceparent": trace}
        answer = await client.post("/webhooks/stripe", content=body, headers=headers)
        assert answer.status_code == 200
    [row] = await service.rows(
        "SELECT convert_from(body, 'utf-8')::json->>'pending_webhooks' AS pending, traceparent"
        " FROM stripe_events"
    )
    assert row["pending"] == "3"
    assert str(row["traceparent"]).startswith(trace[:36])


async def test_many_at_once_are_all_stored(client: httpx.AsyncClient, service: Service) -> None:
    events = played(2, ["card_success"] * 30).events
    bodies = [orjson.dumps(event) for event in events]
    answers = await asyncio.gather(*(post(client, body, signed(body)) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    [row] = await service.rows("SELECT count(*) AS stored FROM stripe_events")
    assert row["stored"] == len(events)


async def test_a_crash_between_insert_and_answer_ends_in_one_row(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.insert

    async def insert_then_die(
        connection: asyncpg.Connection, arrivals: Sequence[store.Arrival]
    ) -> None:
        await real(connection, arrivals)
        raise ConnectionError("killed after the commit, before the answer")

    with monkeypatch.context() as patched:
        patched.setattr(store, "insert", insert_then_die)
        first = await post(client, BODY, signed())
    assert (first.status_code, first.headers["retry-after"]) == (503, "1")
    assert (await post(client, BODY, signed())).status_code == 200
    assert len(await service.rows("SELECT id FROM stripe_events")) == 1


async def test_without_a_database_nothing_is_acknowledged(
    hands: Hands, database: Database, service: Service
) -> None:
    async with door(database, hands) as client:
        assert (await post(client, BODY, signed())).status_code == 200
        [gone] = await terminate_others(service)
        assert gone
        # The connection is gone; the next insert finds out, is not acknowledged, and the retry is stored.
        other = orjson.dumps(EVENT | {"id": "evt_other"})
        statuses = [(await post(client, other, signed(other))).status_code for _ in range(3)]
    assert statuses[-1] == 200
    assert {row["id"] for row in await service.rows("SELECT id FROM stripe_events")} == {
        EVENT["id"],
        "evt_other",
    }


async def terminate_others(service: Service) -> list[bool]:
    rows = await service.rows(
        "SELECT bool_and(pg_terminate_backend(pid)) AS gone FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query LIKE '%INSERT INTO stripe_events%' AND state = 'idle'"
    )
    return [bool(row["gone"]) for row in rows]


async def test_a_database_that_is_away_is_answered_503(hands: Hands) -> None:
    nowhere = Database("nowhere", "postgresql://postgres@127.0.0.1:9/nowhere")
    async with door(nowhere, hands) as client:
        answer = await post(client, BODY, signed())
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:farebox:problem:unavailable"


async def test_what_waits_is_bounded_in_bytes_too() -> None:
    """While the database hangs, large bodies must not fill the memory before 5,000 of them have come."""
    intake = Intake("postgresql://nowhere", "payments")
    body = bytes(2**20)
    arrival = Arrival(open_envelope(BODY), body, None)
    waiting = [asyncio.create_task(intake.store(arrival)) for _ in range(70)]
    await asyncio.sleep(0)
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 6
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    await intake.__aexit__(None)
    assert all(
        isinstance(each, Unavailable)
        for each in await asyncio.gather(*waiting, return_exceptions=True)
    )


async def test_the_clock_is_the_services_own(client: httpx.AsyncClient, hands: Hands) -> None:
    signature = signed()
    hands.now = NOW + timedelta(seconds=400)
    assert (await post(client, BODY, signature)).status_code == 400
