"""After the retention nobody's name is left in a raw body, and every payment is still what its bodies say."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from services.payments import redaction
from services.payments.audit import checks
from services.payments.gateway import redact, translate
from services.payments.gateway.retention import NotRedacted
from services.payments.rebuild import rebuild
from services.payments.redaction import Redaction
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER, every_life
from tests.payments.test_gateway import charge, event, intent, listed, refund

Json = dict[str, Any]
DAYS = 90
# What a person can be known by, wherever Stripe or the shop may have put it.
PERSONAL = {
    "email": "jenny.rosen@example.com",
    "name": "Jenny Rosen",
    "line1": "510 Townsend St",
    "phone": "+15555555555",
    "last4": "4242",
    "fingerprint": "fp_mT0sLRe3WBd6kNlX",
    "ip": "203.0.113.77",
    "note": "for my sister Anna",
    "secret": "pi_1_secret_Zq9",
}
PERSON: Json = {
    "billing_details": {
        "email": PERSONAL["email"],
        "name": PERSONAL["name"],
        "phone": PERSONAL["phone"],
        "address": {"line1": PERSONAL["line1"]},
    },
    "receipt_email": PERSONAL["email"],
    "shipping": {"name": PERSONAL["name"], "address": {"line1": PERSONAL["line1"]}},
    "description": PERSONAL["note"],
    "client_secret": PERSONAL["secret"],
    "customer": {"object": "customer", "id": "cus_1", "email": PERSONAL["email"]},
}
CARD = {
    "type": "card",
    "card": {
        "last4": PERSONAL["last4"],
        "fingerprint": PERSONAL["fingerprint"],
        "three_d_secure": {"result": "authenticated"},
    },
}
METADATA = {"user_id": str(USER), "farebox_order": "o-1", "gift_note": PERSONAL["note"]}
ERROR = {
    "code": "card_declined",
    "decline_code": "lost_card",
    "message": f"{PERSONAL['name']}'s card was declined",
    "payment_method": {"id": "pm_1", "type": "card", "billing_details": PERSON["billing_details"]},
}
CHARGE = charge(**PERSON, payment_method_details=CARD, metadata=METADATA, balance_transaction="t")
REVIEW = {
    "object": "review",
    "id": "prv_1",
    "created": 5,
    "open": True,
    "reason": "rule",
    "payment_intent": "pi_1",
    "ip_address": PERSONAL["ip"],
}
EVIDENCE = {"customer_email_address": PERSONAL["email"], "customer_purchase_ip": PERSONAL["ip"]}
BODIES = {
    "payment": event(intent(**PERSON, metadata=METADATA, latest_charge=CHARGE)),
    "payment of 2018": event(
        intent(**PERSON, charges=listed(CHARGE | {"refunds": listed(refund(**PERSON))}))
    ),
    "declined payment": event(intent(status="requires_payment_method", last_payment_error=ERROR)),
    "charge": event(CHARGE | {"source": {"object": "card", "name": PERSONAL["name"]}}, "charge.x"),
    "refund": event(refund(**PERSON, metadata=METADATA), "refund.created"),
    "dispute": event(
        {
            "object": "dispute",
            "id": "dp_1",
            "amount": 5,
            "created": 5,
            "currency": "usd",
            "status": "lost",
            "charge": CHARGE,
            "payment_intent": "pi_1",
            "evidence": EVIDENCE,
            "balance_transactions": [
                {"id": "t", "amount": -5, "created": 6, "currency": "usd", "description": "x"}
            ],
        },
        "charge.dispute.closed",
    ),
    "review": event(REVIEW, "review.opened"),
    "invoice": event(
        {
            "object": "invoice",
            "id": "in_1",
            "payment_intent": "pi_1",
            "customer_email": PERSONAL["email"],
            "customer_name": PERSONAL["name"],
            "parent": {"subscription_details": {"metadata": METADATA}},
        },
        "invoice.paid",
    ),
    "customer": event({"object": "customer", "id": "cus_1", **PERSON}, "customer.created"),
    "charge of nobody": event(CHARGE | {"payment_intent": None}, "charge.succeeded"),
    "list of refunds": event(
        {"object": "list", "data": [refund(**PERSON)]},
        "farebox.list_retrieved",
        asked={"second": 5, "at": 9, "about": "/v1/refunds?payment_intent=pi_1"},
    ),
    "previous attributes": event(CHARGE, "charge.updated", previous_attributes=PERSON),
    "request": event(intent(), request={"id": "req_1", "idempotency_key": PERSONAL["email"]}),
    "nul": event(intent(metadata={"user_id": "a\x00b", "x": PERSONAL["name"]})),
}


def people_in(body: bytes) -> list[str]:
    return [what for what, text in PERSONAL.items() if text.encode() in body]


@pytest.mark.parametrize("what", sorted(BODIES))
def test_nobody_is_left_in_a_redacted_body_and_it_says_the_same(what: str) -> None:
    whole = BODIES[what]
    left = redact(whole)
    assert people_in(left) == []
    assert translate(left) == translate(whole)
    assert redact(left) == left
    head = ("id", "type", "created", "livemode", "object")
    assert {n: orjson.loads(left)[n] for n in head} == {n: orjson.loads(whole)[n] for n in head}


def test_the_bodies_above_do_name_people() -> None:
    assert all(people_in(BODIES[what]) for what in BODIES if what not in ("list of refunds",))
    assert {each for body in BODIES.values() for each in people_in(body)} == set(PERSONAL)


def test_our_own_metadata_stays() -> None:
    left = orjson.loads(redact(BODIES["payment"]))
    assert left["data"]["object"]["metadata"] == {"user_id": str(USER), "farebox_order": "o-1"}


def test_who_is_named_in_the_place_of_a_uuid_is_kept_nowhere() -> None:
    named = {"user_id": " jane@example.com ", "subscription_id": str(SUBSCRIPTION)}
    body = event(intent(metadata=named))
    meant = translate(body)
    assert "jane" not in str(meant)
    left = redact(body)
    assert b"jane" not in left
    assert translate(left) == meant
    kept = orjson.loads(left)["data"]["object"]["metadata"]
    assert kept == {"user_id": "(no UUID)", "subscription_id": str(SUBSCRIPTION)}


@pytest.mark.parametrize("kind", [["a"], {"a": 1}, 7, None])
def test_an_object_that_is_no_kind_of_thing_keeps_its_head(kind: object) -> None:
    event = {"id": "evt_1", "object": "event", "type": "x", "created": 1, "livemode": False}
    left = redact(orjson.dumps(event | {"data": {"object": {"object": kind, "name": "Ada"}}}))
    assert orjson.loads(left)["data"] == {"object": {"object": kind}}


def test_of_what_was_never_understood_only_the_head_stays() -> None:
    strange = event(intent(**PERSON, currency="zzz"))
    assert orjson.loads(redact(strange))["data"]["object"] == {
        "id": "pi_1",
        "object": "payment_intent",
    }


def test_a_body_that_would_be_understood_otherwise_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.payments.gateway.retention.SHAPES", {})
    with pytest.raises(NotRedacted):
        redact(BODIES["payment"])


def test_whatever_the_sandbox_tells_is_told_alike_when_redacted() -> None:
    for told in every_life(3).events:
        body = orjson.dumps(told)
        assert translate(redact(body)) == translate(body)


async def bodies(service: Service) -> dict[str, bytes]:
    rows = await service.rows("SELECT id, body FROM stripe_events")
    return {str(row["id"]): bytes(row["body"]) for row in rows if isinstance(row["body"], bytes)}


async def aged(service: Service, days: float) -> None:
    """As though everything had come and been folded so long before the test's clock."""
    await service.pool.execute(
        "UPDATE stripe_events SET received_at = $1, processed_at = CASE WHEN processed_at IS NULL"
        " THEN NULL ELSE $1::timestamptz END",
        service.clock() - timedelta(days=days),
    )


def with_people(told: Mapping[str, Any]) -> Json:
    content = told["data"]["object"]
    metadata = {**content.get("metadata", {}), "gift_note": PERSONAL["note"]}
    return {**told, "data": {"object": {**content, **PERSON, "metadata": metadata}}}


async def lives_heard(service: Service, seed: int) -> None:
    await service.receive([with_people(told) for told in every_life(seed).events])
    await service.receive([orjson.loads(BODIES["customer"])])
    await service.fold_all()


async def sweep(step: Redaction) -> int:
    """To its end; how many positions it passed."""
    passed = 0
    while done := await step.run_once():
        passed += done
    return passed


async def test_after_the_retention_every_body_is_redacted_and_every_row_rebuilt_alike(
    service: Service, database: Database, hands: Hands
) -> None:
    await lives_heard(service, 4)
    before = await service.payments()
    # As an earlier release remarked it.
    await service.rows("UPDATE stripe_events SET detail = 'user_id ''bob'' is no UUID'")
    await aged(service, DAYS + 1)
    await sweep(Redaction(service.pool, "test", DAYS, hands))
    left = await bodies(service)
    details = await service.rows(
        "SELECT DISTINCT detail FROM stripe_events WHERE status = 'applied'"
    )
    assert details == [{"detail": None}]
    assert [name for name, body in left.items() if people_in(body)] == []
    assert await service.rows("SELECT id FROM stripe_events WHERE redacted_at IS NULL") == []
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine)() as session:
        rebuilt = await rebuild(session)
        audited = {check.id: check for check in await checks(session)}
    await engine.dispose()
    assert all(audited[each].ok for each in ("S2", "S4", "S5")), audited
    assert audited["S1"].detail.startswith("0 events not as they came"), audited["S1"]
    assert (rebuilt.agreed, rebuilt.differed) == (len(before), [])
    assert any(str(SUBSCRIPTION).encode() in body for body in left.values())


async def test_younger_parked_and_waiting_bodies_stay_whole(service: Service, hands: Hands) -> None:
    await lives_heard(service, 5)
    rows = await service.rows("SELECT id FROM stripe_events ORDER BY position")
    parked, waiting, *_ = [row["id"] for row in rows]
    await aged(service, DAYS + 1)
    await service.pool.execute("UPDATE stripe_events SET status = 'parked' WHERE id = $1", parked)
    await service.pool.execute(
        "UPDATE stripe_events SET status = 'received', waiting_for = 'ch_1', processed_at = NULL"
        " WHERE id = $1",
        waiting,
    )
    young = await service.rows(
        "UPDATE stripe_events SET received_at = $1, processed_at = $1 WHERE position > (SELECT"
        " max(position) - 20 FROM stripe_events) RETURNING id",
        service.clock() - timedelta(days=DAYS - 1),
    )
    before = await bodies(service)
    await sweep(Redaction(service.pool, "test", DAYS, hands))
    after = await bodies(service)
    untouched = {name for name in before if before[name] == after[name]}
    assert untouched == {parked, waiting, *(row["id"] for row in young)}


async def test_a_sweep_goes_on_where_a_killed_one_stopped(
    service: Service, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redaction, "BATCH_EVENTS", 50)
    await lives_heard(service, 6)
    await aged(service, DAYS + 1)
    await Redaction(service.pool, "test", DAYS, hands).run_once()
    [first] = await service.rows("SELECT count(*) FROM stripe_events WHERE redacted_at IS NULL")
    done = await service.rows("SELECT position, body FROM stripe_events WHERE redacted_at NOTNULL")
    assert len(done) == 50
    hands.later(60)
    await sweep(Redaction(service.pool, "test", DAYS, hands))
    [left] = await service.rows("SELECT count(*) FROM stripe_events WHERE redacted_at IS NULL")
    again = await service.rows(
        "SELECT position, body FROM stripe_events WHERE redacted_at < $1", hands.now
    )
    assert (first["count"], left["count"]) != (0, 0)
    assert left["count"] == 0
    assert sorted(again, key=str) == sorted(done, key=str)


async def test_a_sweep_rests_and_comes_back_for_what_was_parked(
    service: Service, hands: Hands
) -> None:
    await lives_heard(service, 7)
    await aged(service, DAYS + 1)
    [[parked]] = [await service.rows("SELECT min(id) AS id FROM stripe_events")]
    await service.pool.execute(
        "UPDATE stripe_events SET status = 'parked' WHERE id = $1", parked["id"]
    )
    step = Redaction(service.pool, "test", DAYS, hands)
    await sweep(step)
    await service.pool.execute("UPDATE stripe_events SET status = 'applied'")
    assert await sweep(step) == 0
    hands.now += redaction.SWEEP_EVERY
    await aged(service, DAYS + 1)
    await sweep(step)
    assert await service.rows("SELECT FROM stripe_events WHERE redacted_at IS NULL") == []


async def test_another_worker_redacts_nothing_meanwhile(service: Service, hands: Hands) -> None:
    await lives_heard(service, 8)
    await aged(service, DAYS + 1)
    assert await Redaction(service.pool, "one", DAYS, hands).run_once() > 0
    assert await Redaction(service.pool, "other", DAYS, hands).run_once() == 0


async def test_a_body_that_cannot_be_redacted_is_told_and_does_not_stop_the_others(
    service: Service, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lives_heard(service, 9)
    await aged(service, DAYS + 1)
    [row] = await service.rows("SELECT min(id) AS id FROM stripe_events")
    whole = (await bodies(service))[str(row["id"])]

    def fails_once(body: bytes) -> bytes:
        if body == whole:
            raise NotRedacted("it would be understood otherwise")
        return redact(body)

    monkeypatch.setattr(redaction, "redact", fails_once)
    with capture_logs() as logs:
        await sweep(Redaction(service.pool, "test", DAYS, hands))
    assert [each["event_id"] for each in logs if each["log_level"] == "error"] == [row["id"]]
    left = await service.rows("SELECT id FROM stripe_events WHERE redacted_at IS NULL")
    assert left == [{"id": row["id"]}]
