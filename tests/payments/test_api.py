"""Payments over HTTP, on rows that the fold made."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from services.payments.app import create_web
from shared.api_keys import create_key
from shared.db import create_engine, create_sessions
from shared.events import NAMESPACE, derived_id
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER, every_life, played

FIELDS = {
    "id",
    "stripe_id",
    "user_id",
    "subscription_id",
    "status",
    "currency",
    "amount_minor",
    "capturable_minor",
    "received_minor",
    "refunded_minor",
    "disputed_minor",
    "failure_code",
    "revision",
    "fee_minor",
    "net_minor",
    "decline_code",
    "payment_method_type",
    "three_d_secure",
    "mandate_id",
    "review",
    "invoice_id",
    "livemode",
    "account",
    "created_at",
    "succeeded_at",
    "canceled_at",
    "anomaly",
}


@pytest.fixture
async def client(database: Database, hands: Hands) -> AsyncIterator[httpx.AsyncClient]:
    web = create_web(Settings(database_url=database.url), hands)
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as opened:
            yield opened


async def test_a_payment_is_found_by_stripes_id_and_shown_with_its_facts(
    client: httpx.AsyncClient, service: Service
) -> None:
    lives = played(1, ["dispute_won_then_refunded"])
    await service.receive(lives.events)
    await service.fold_all()
    [truth] = lives.truth.values()
    found = (await client.get("/payments", params={"stripe_id": truth["stripe_id"]})).json()
    assert found["next"] is None
    [payment] = found["items"]
    assert set(payment) == FIELDS
    assert {name: payment[name] for name in truth} == truth
    details = lives.details[truth["stripe_id"]]
    asked_for = ("fee_minor", "net_minor")  # webhooks do not tell them
    assert {n: payment[n] for n in details if n not in asked_for} == {
        n: each for n, each in details.items() if n not in asked_for
    }
    assert payment["id"] == str(derived_id("payment", truth["stripe_id"]))

    shown = (await client.get(f"/payments/{payment['id']}")).json()
    assert set(shown) == FIELDS | {"stripe_facts", "refunds", "disputes"}
    assert {name: shown[name] for name in FIELDS} == payment
    assert {fact["event_id"] for fact in shown["stripe_facts"]} == {e["id"] for e in lives.events}
    assert {fact["status"] for fact in shown["stripe_facts"]} == {"applied"}
    assert set(shown["stripe_facts"][0]) == {
        "event_id",
        "type",
        "created_at",
        "received_at",
        "status",
    }
    [dispute] = shown["disputes"]
    assert (dispute["status"], dispute["withdrawn_minor"]) == ("won", 0)
    [refund] = shown["refunds"]
    assert refund["amount_minor"] == truth["refunded_minor"]


async def test_lists_are_narrowed_and_paged_without_gap_or_repeat(
    client: httpx.AsyncClient, service: Service
) -> None:
    lives = every_life(2)
    await service.receive(lives.events)
    await service.fold_all()
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        answer = await client.get("/payments", params={"limit": 7, **after})
        page = answer.raise_for_status().json()
        seen += [item["stripe_id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sorted(seen) == sorted(lives.truth)

    async def count(**only: str) -> int:
        answer = await client.get("/payments", params={"limit": "500", **only})
        return len(answer.raise_for_status().json()["items"])

    canceled = [t for t in lives.truth.values() if t["status"] == "canceled"]
    assert await count(status="canceled") == len(canceled) > 0
    assert await count(user_id=str(USER)) == len(lives.truth)
    assert await count(subscription_id=str(SUBSCRIPTION)) == len(lives.truth)
    assert await count(user_id=str(uuid4())) == 0
    assert await count(unlinked="true") == 0


async def test_a_payment_that_names_nobody_is_kept_and_listed(
    client: httpx.AsyncClient, service: Service
) -> None:
    lives = played(1, ["card_success", "card_success"])
    nameless = next(iter(lives.truth))
    for event in lives.events:
        content = event["data"]["object"]
        if nameless in (content["id"], content.get("payment_intent")):
            content["metadata"] = {"user_id": "bob"}
    await service.receive(lives.events)
    await service.fold_all()
    found = (await client.get("/payments", params={"unlinked": "true"})).json()["items"]
    assert [item["stripe_id"] for item in found] == [nameless]
    event_id = next(e["id"] for e in lives.events if e["data"]["object"]["id"] == nameless)
    shown = (await client.get(f"/stripe-events/{event_id}")).json()
    assert (shown["status"], shown["payment_id"]) == ("applied", found[0]["id"])
    assert "user_id is no UUID" in shown["detail"]


async def test_what_became_of_an_event_is_told_at_every_stage(
    client: httpx.AsyncClient, service: Service
) -> None:
    refund = next(
        e for e in played(1, ["full_refund"]).events if e["data"]["object"]["object"] == "refund"
    )
    refund["data"]["object"]["payment_intent"] = None
    await service.receive([refund])
    url = f"/stripe-events/{refund['id']}"
    fresh = (await client.get(url)).json()
    assert (fresh["status"], fresh["detail"], fresh["processed_at"]) == ("received", None, None)
    await service.fold_all()
    waiting = (await client.get(url)).json()
    assert waiting["status"] == "received"
    assert waiting["waiting_for"] == refund["data"]["object"]["charge"]
    assert waiting["waiting_for"] in waiting["detail"]


async def test_events_are_found_by_what_became_of_them(
    client: httpx.AsyncClient, service: Service
) -> None:
    events = played(1, ["full_refund", "card_success"]).events
    broken = [e for e in events if e["type"].startswith("payment_intent.")][:3]
    for event in broken:
        event["data"]["object"]["currency"] = "zzz"
    await service.receive(events)
    await service.fold_all()
    parked = (await client.get("/stripe-events?status=parked&limit=2")).json()
    assert [each["id"] for each in parked["items"]] == [broken[2]["id"], broken[1]["id"]]
    assert all("ISO 4217" in each["detail"] for each in parked["items"])
    rest = (await client.get(f"/stripe-events?status=parked&after={parked['next']}")).json()
    assert ([each["id"] for each in rest["items"]], rest["next"]) == ([broken[0]["id"]], None)
    everything = (await client.get("/stripe-events")).json()["items"]
    assert [each["id"] for each in everything] == [event["id"] for event in reversed(events)]
    for shown in everything:
        assert shown == (await client.get(f"/stripe-events/{shown['id']}")).json()
    applied = [each for each in everything if each["status"] == "applied"]
    assert applied
    assert all(each["payment_id"] for each in applied)
    waiting = (await client.get("/stripe-events?status=received")).json()["items"]
    assert waiting == [each for each in everything if each["waiting_for"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/payments/{NAMESPACE}", 404),
        ("/payments/pi_1", 422),
        ("/stripe-events/evt_nobody", 404),
        ("/stripe-events/%00", 422),
        ("/stripe-events?status=lost", 422),
        ("/stripe-events?limit=501", 422),
        ("/stripe-events?after=evt_nobody", 422),
        ("/payments?stripe_id=%00", 422),
        ("/payments?stripe_id=pi_nobody", 200),
        ("/payments?status=paid", 422),
        ("/payments?limit=0", 422),
        ("/payments?limit=501", 422),
        (f"/payments?after={NAMESPACE}", 422),
        ("/payments?after=x", 422),
    ],
)
async def test_what_is_asked_wrongly_is_answered_with_a_problem(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


async def test_metrics_count_webhooks(client: httpx.AsyncClient) -> None:
    await client.post("/webhooks/stripe", content=b"{}")
    text = (await client.get("/metrics")).text
    assert 'farebox_webhooks_total{status="400"} 1.0' in text


async def test_reading_asks_for_a_key_where_that_is_set(database: Database) -> None:
    settings = Settings(database_url=database.url, farebox_require_keys=True)
    web = create_web(settings)
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as client:
            assert (await client.get("/payments")).status_code == 401
            assert (await client.post("/webhooks/stripe", content=b"")).status_code == 400


async def test_a_parked_event_is_retried_by_whoever_may_write(
    database: Database, service: Service, client: httpx.AsyncClient
) -> None:
    lives = played(1, ["left_unpaid"])
    [event, *_] = lives.events
    await service.receive([event | {"data": {"object": {"object": "payment_intent"}}}])
    await service.fold_all()
    assert (await service.fate(event["id"]))[0] == "parked"
    url = f"/stripe-events/{event['id']}/retry"
    assert (await client.post(url)).status_code == 401
    async with create_sessions(
        engine := create_engine(database.url, "payments")
    ).begin() as session:
        key = await create_key(session, "payments", "operator", ["payments:read", "payments:write"])
    await engine.dispose()
    allowed = {"Authorization": f"Bearer {key}"}
    answer = await client.post(url, headers=allowed)
    assert (answer.status_code, answer.json()["status"]) == (200, "received")
    assert (await client.post(url, headers=allowed)).status_code == 409
    assert await service.fold_all() == 1
    assert (await service.fate(event["id"]))[0] == "parked"


async def test_metrics_say_what_needs_looking_at(
    database: Database, hands: Hands, service: Service
) -> None:
    lives = played(1, ["left_unpaid"])
    for event in lives.events:
        event["data"]["object"]["metadata"] = {}
    await service.receive([*lives.events, lives.events[0] | {"id": "evt_bad", "data": None}])
    await service.fold_all()
    web = create_web(Settings(database_url=database.url), hands)
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as client:
            while 'farebox_payments{kind="unlinked"}' not in (
                text := (await client.get("/metrics")).text
            ):
                await asyncio.sleep(0.05)
    assert 'farebox_payments{kind="unlinked"} 1.0' in text
    assert 'farebox_stripe_events{kind="parked"} 1.0' in text
