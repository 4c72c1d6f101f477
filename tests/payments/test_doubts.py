"""What contradicts itself is asked about and then told; what is another's is never joined."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from structlog.testing import capture_logs

from services.payments.app import create_web
from services.payments.audit import checks
from services.payments.gateway import StripeClient
from services.payments.rebuild import rebuild
from shared.db import Sessions, create_engine, create_sessions
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import played
from tests.payments.test_asking import Event, assert_true, client, life, waiting
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["client", "sandbox"]


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture(autouse=True)
async def rebuilds_alike(service: Service, sessions: Sessions) -> AsyncIterator[None]:
    yield
    async with sessions() as session:
        assert (await rebuild(session)).differed == []


def changed(event: Event, kind: str, name: str, **content: object) -> Event:
    copy: Event = orjson.loads(orjson.dumps(event))
    copy["id"], copy["type"] = name, kind
    copy["data"]["object"] |= content
    return copy


def contradicted(events: list[Event], how: str) -> list[Event]:
    """The same life, and something that cannot be."""
    last = next(e for e in events if e["type"] == "payment_intent.succeeded")
    charge = last["data"]["object"]["latest_charge"]
    match how:
        case "succeeded and canceled":
            at = last["created"] + 100
            return [
                *events,
                changed(
                    last, "payment_intent.canceled", "evt_1", status="canceled", canceled_at=at
                ),
            ]
        case "received above amount":
            less = changed(last, "payment_intent.succeeded", "evt_1", amount=8_999)
            return [*events, {**less, "created": last["created"] + 1}]
        case _:
            refund = {
                "id": "re_too_much",
                "object": "refund",
                "amount": 9_001,
                "charge": charge,
                "payment_intent": last["data"]["object"]["id"],
                "created": last["created"] + 5,
                "currency": "usd",
                "status": "succeeded",
            }
            made: Event = {**last, "id": "evt_1", "type": "refund.created"}
            return [*events, {**made, "data": {"object": refund}}]


CONTRADICTIONS = {
    "succeeded and canceled": ("succeeded and canceled", 1),
    "refunded above received": ("refunded 9001 and disputed 0 of 9000 received", 3),
}


@pytest.mark.parametrize("how", sorted(CONTRADICTIONS))
async def test_a_contradiction_asks_stripe_and_then_tells_the_operator(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands, how: str
) -> None:
    text, questions = CONTRADICTIONS[how]
    stripe_id, events = life(sandbox, "card_success")
    await service.receive(contradicted(events, how))
    await service.fold_all()
    assert (await service.payments())[stripe_id]["anomaly"] == text
    hands.later(61)
    with capture_logs() as logs:
        assert await service.ask_all(client) == questions
    told = [each for each in logs if each["event"] == "payment contradicts itself"]
    assert {each["log_level"] for each in told} == {"error"}
    assert {each["stripe_id"] for each in told} == {stripe_id}
    # Stripe's answer resolves nothing by itself: an operator must.
    assert (await service.payments())[stripe_id]["anomaly"] == text


async def test_where_stripe_itself_ends_a_contradiction_that_is_said_too(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "card_success")
    await service.receive(contradicted(events, "received above amount"))
    await service.fold_all()
    assert (await service.payments())[stripe_id]["anomaly"] == "received 9000 of 8999"
    hands.later(61)
    with capture_logs() as logs:
        assert await service.ask_all(client) == 1
    [said] = [each for each in logs if each["event"] == "stripe ended a contradiction"]
    assert (said["was"], said["log_level"]) == ("received 9000 of 8999", "warning")
    await assert_true(service, sandbox, stripe_id)


async def test_a_refund_whose_failure_was_never_told_is_found_by_asking(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "refund_failed_then_again")
    heard = [e for e in events if e["data"]["object"].get("status") != "failed"]
    await service.receive(heard)
    await service.fold_all()
    row = (await service.payments())[stripe_id]
    assert "refunded" in str(row["anomaly"])
    hands.later(61)
    with capture_logs() as logs:
        await service.ask_all(client)
    await assert_true(service, sandbox, stripe_id)
    row = (await service.payments())[stripe_id]
    assert row["anomaly"] is None
    assert logs


async def test_a_second_contradiction_is_asked_about_anew(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "card_success")
    await service.receive(contradicted(events, "refunded above received"))
    await service.fold_all()
    hands.later(61)
    assert await service.ask_all(client) == 3
    more = contradicted(events, "refunded above received")[-1]
    more["data"]["object"] |= {"id": "re_more", "amount": 3}
    await service.receive([{**more, "id": "evt_2", "created": more["created"] + 9}])
    await service.fold_all()
    hands.later(61)
    with capture_logs() as logs:
        assert await service.ask_all(client) == 3
    told = [each["anomaly"] for each in logs if each["event"] == "payment contradicts itself"]
    assert "refunded 9004 and disputed 0 of 9000 received" in told
    assert (await service.payments())[stripe_id]["refunded_minor"] == 9_004


async def test_contradictions_are_found_over_http_and_by_the_audit(
    service: Service, sandbox: RunningSandbox, database: Database, sessions: Sessions
) -> None:
    stripe_id, events = life(sandbox, "card_success")
    await service.receive(contradicted(events, "succeeded and canceled"))
    await service.receive(played(8, ["card_success", "full_refund"]).events)
    await service.fold_all()
    settings = Settings(payments_database_url=database.url_for("payments"))
    app = create_web(settings).app
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as web:
            shown = (await web.get("/payments?anomaly=true")).json()["items"]
            everything = (await web.get("/payments")).json()["items"]
            counts = (await web.get("/stripe-events/counts")).json()["items"]
    assert [each["stripe_id"] for each in shown] == [stripe_id]
    assert shown[0]["anomaly"] == "succeeded and canceled"
    assert len(everything) == 3
    [row] = await service.rows("SELECT count(*) FROM stripe_events")
    assert sum(each["count"] for each in counts) == row["count"]
    assert {each["status"] for each in counts} == {"applied"}
    async with sessions() as session:
        found = {check.id: check for check in await checks(session)}
    assert not found["S5"].ok
    assert stripe_id in found["S5"].detail


def elsewhere(events: list[Event], **head: object) -> list[Event]:
    return [{**each, **head, "id": f"{each['id']}_elsewhere"} for each in events]


@pytest.mark.parametrize(
    "head", [{"livemode": True}, {"account": "acct_other"}, {"context": "org_1/acct_other"}]
)
async def test_the_same_payment_of_another_account_or_mode_is_parked_and_not_joined(
    service: Service, head: dict[str, Any]
) -> None:
    lives = played(5, ["full_refund"])
    own = [e for e in lives.events if e["type"] != "refund.created"]
    foreign = elsewhere([e for e in lives.events if e["data"]["object"]["object"] != "charge"])
    foreign = [{**each, **head} for each in foreign]
    await service.receive(own)
    await service.fold_all()
    [before] = (await service.payments()).values()
    with capture_logs() as logs:
        await service.receive(foreign)
        await service.fold_all()
    [after] = (await service.payments()).values()
    assert after == before
    fates = {(await service.fate(each["id"]))[0] for each in foreign}
    assert fates == {"parked"}
    assert "another mode or account" in str((await service.fate(foreign[0]["id"]))[1])
    assert [each["log_level"] for each in logs if each["event"] == "stripe event parked"]
    assert await waiting(service) == []


async def test_in_one_batch_too_the_first_decides_whose_payment_it_is(service: Service) -> None:
    lives = played(5, ["card_success"])
    await service.receive([*lives.events, *elsewhere(lives.events, account="acct_other")])
    await service.fold_all()
    [row] = (await service.payments()).values()
    assert (row["account"], row["anomaly"]) == (None, None)
    assert row["received_minor"] == 9_000
    counted = await service.rows(
        "SELECT status, count(*) FROM stripe_events GROUP BY status ORDER BY status"
    )
    assert [(each["status"], each["count"]) for each in counted] == [
        ("applied", len(lives.events)),
        ("parked", len(lives.events)),
    ]


async def test_payments_of_a_connected_account_are_kept_with_its_name(service: Service) -> None:
    ours, theirs = played(5, ["card_success"]), played(6, ["full_refund"])
    await service.receive([*ours.events, *elsewhere(theirs.events, account="acct_shop")])
    await service.fold_all()
    accounts = {row["stripe_id"]: row["account"] for row in (await service.payments()).values()}
    assert accounts == dict.fromkeys(ours.truth, None) | dict.fromkeys(theirs.truth, "acct_shop")
    asked = await service.rows("SELECT DISTINCT status FROM stripe_events")
    assert asked == [{"status": "applied"}]
