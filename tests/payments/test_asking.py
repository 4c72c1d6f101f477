"""What no fact can say is asked from Stripe, once; the answer is a fact, and a rebuild knows it too."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest

from embedded.stripe_sandbox import LIFECYCLES
from services.payments import asking
from services.payments.gateway import StripeClient
from services.payments.gateway.client import PAGE_ITEMS
from services.payments.rebuild import rebuild
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import played
from tests.sandbox.conftest import PLAIN, START, RunningSandbox, sandbox

__all__ = ["sandbox"]

MONEY = (
    "status",
    "amount_minor",
    "capturable_minor",
    "received_minor",
    "refunded_minor",
    "disputed_minor",
    "failure_code",
)
Event = dict[str, Any]


@pytest.fixture
async def client(sandbox: RunningSandbox) -> AsyncIterator[StripeClient]:
    opened = StripeClient("sk_test_payments", sandbox.url)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
async def rebuilds_alike(service: Service, database: Database) -> AsyncIterator[None]:
    """Whatever a test did: replaying the raw rows, answers among them, gives the same payments."""
    yield
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine)() as session:
        assert (await rebuild(session)).differed == []
    await engine.dispose()


def events_of(sandbox: RunningSandbox, stripe_id: str) -> list[Event]:
    """A payment's events, the oldest first, as Stripe's list gives them."""
    return [
        event for event in all_events(sandbox) if stripe_id in named_by(event["data"]["object"])
    ]


def all_events(sandbox: RunningSandbox) -> list[Event]:
    found: list[Event] = []
    params: dict[str, str | int] = {"limit": PAGE_ITEMS}
    has_more = True
    while has_more:
        listed = PLAIN.get(
            f"{sandbox.url}/v1/events",
            params=params,
            headers={"Authorization": "Bearer sk_test_x"},
        )
        page = listed.raise_for_status().json()
        found += page["data"]
        has_more = page["has_more"]
        params["starting_after"] = found[-1]["id"]
    return found[::-1]


def named_by(content: Event) -> tuple[object, ...]:
    part = content.get("payment") or {}  # an invoice's
    return content["id"], content.get("payment_intent"), part.get("payment_intent")


def life(sandbox: RunningSandbox, lifecycle: str, seed: int = 1) -> tuple[str, list[Event]]:
    [stripe_id] = sandbox.play(lifecycle, seed=seed)
    return stripe_id, events_of(sandbox, stripe_id)


async def assert_true(service: Service, sandbox: RunningSandbox, stripe_id: str) -> None:
    truth = sandbox.control("GET", "truth")[stripe_id]
    row = (await service.payments())[stripe_id]
    assert {name: row[name] for name in MONEY} == {name: truth[name] for name in MONEY}


async def waiting(service: Service) -> list[object]:
    rows = await service.rows("SELECT id FROM stripe_events WHERE status = 'received'")
    return [row["id"] for row in rows]


def tied(event: Event, other: Event) -> Event:
    return {**event, "created": other["created"]}


async def test_a_tie_is_settled_by_asking_once_its_second_is_over(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "declined_then_challenged", seed=3)
    own = [e for e in events if e["type"].startswith("payment_intent.")]
    unpaid = [e for e in own if e["type"] != "payment_intent.succeeded"]
    last, before = unpaid[-1], unpaid[-2]
    # Both in one second, and only they: which was the later one?
    await service.receive([tied(before, last), last])
    await service.fold_all()
    assert await service.ask_all(client) == 0
    hands.later(4)
    assert await service.ask_all(client) == 1
    await assert_true(service, sandbox, stripe_id)
    assert await service.ask_all(client) == 0
    [answer] = await service.rows("SELECT id, type FROM stripe_events WHERE id LIKE 'farebox%'")
    assert answer["type"] == "farebox.payment_retrieved"


async def test_an_answer_and_the_tie_fold_alike_in_any_order(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "three_ds_failed")
    own = [e for e in events if e["type"].startswith("payment_intent.")]
    await service.receive([tied(own[-2], own[-1]), own[-1]])
    await service.fold_all()
    hands.later(4)
    await service.ask_all(client)
    [before] = (await service.payments()).values()
    # All again, from nothing, the answer first.
    await service.pool.execute("DELETE FROM payment_intents")
    await service.pool.execute("DELETE FROM outbox")
    await service.pool.execute("UPDATE stripe_events SET status = 'received' WHERE id LIKE 'far%'")
    await service.fold_all()
    await service.pool.execute("UPDATE stripe_events SET status = 'received'")
    await service.fold_all()
    [after] = (await service.payments()).values()
    assert after["fold"] == before["fold"]
    await assert_true(service, sandbox, stripe_id)


async def test_a_refund_of_an_unknown_charge_is_asked_about(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "full_refund")
    own = [e for e in events if e["type"].startswith("payment_intent.")]
    refunds = [e for e in events if e["data"]["object"]["object"] == "refund"]
    for event in refunds:
        event["data"]["object"]["payment_intent"] = None
    await service.receive([*refunds, own[0]])
    await service.fold_all()
    assert await service.ask_all(client) == 0
    assert len(await waiting(service)) == len(refunds)
    hands.later(61)
    assert await service.ask_all(client) == 1
    assert await waiting(service) == []
    await service.receive(own)
    await service.fold_all()
    await assert_true(service, sandbox, stripe_id)


async def test_a_payment_of_which_only_refunds_are_heard_is_asked_about(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "full_refund")
    await service.receive([e for e in events if e["data"]["object"]["object"] == "refund"])
    await service.fold_all()
    assert await service.payments() == {}
    hands.later(61)
    await service.ask_all(client)
    await assert_true(service, sandbox, stripe_id)
    assert await waiting(service) == []


async def test_a_thin_event_is_fetched(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, _ = life(sandbox, "card_success")
    thin: Mapping[str, object] = {
        "id": "evt_thin",
        "object": "v2.core.event",
        "type": "v1.payment_intent.succeeded",
        "livemode": False,
        "created": "2026-07-01T11:59:00.000Z",
        "related_object": {
            "id": stripe_id,
            "type": "payment_intent",
            "url": f"/v1/payment_intents/{stripe_id}",
        },
    }
    other = {**thin, "id": "evt_other", "related_object": {"url": "/v2/core/accounts/acct_1"}}
    await service.receive([thin, other])
    await service.fold_all()
    assert await service.fate("evt_other") == (
        "ignored",
        "a thin event about nothing of a payment's money",
    )
    hands.later(4)
    await service.ask_all(client)
    await assert_true(service, sandbox, stripe_id)
    status, detail = await service.fate("evt_thin")
    assert status == "applied"
    assert "farebox_" in str(detail)


def nameless(event: Event) -> Event:
    """As Stripe's own billing makes it: only the subscription names the customer."""
    content = event["data"]["object"]
    if content["object"] in ("payment_intent", "charge"):
        content = {**content, "metadata": {}}
    return {**event, "data": {"object": content}}


async def test_whom_a_payment_of_stripes_billing_is_of_is_asked_of_its_invoice(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    user = "11111111-1111-4111-8111-111111111111"
    payment = {"user_id": user, "amount_minor": 900, "currency": "USD", "lifecycle": "invoiced"}
    order = {"seed": 55, "start_at": START, "payments": [payment]}
    [stripe_id] = [e["stripe_id"] for e in sandbox.control("POST", "play", order)["payments"]]
    await service.receive(map(nameless, events_of(sandbox, stripe_id)))
    await service.fold_all()
    row = (await service.payments())[stripe_id]
    assert (row["user_id"], str(row["invoice_id"])[:3]) == (None, "in_")
    hands.later(61)
    assert await service.ask_all(client) == 1
    assert str((await service.payments())[stripe_id]["user_id"]) == user
    hands.later(61)
    assert await service.ask_all(client) == 0


async def test_what_stripe_does_not_know_is_parked_for_an_operator(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    _, events = life(sandbox, "full_refund")
    event = next(e for e in events if e["data"]["object"]["object"] == "refund")
    event["data"]["object"] |= {"payment_intent": None, "charge": "ch_nobody"}
    await service.receive([event])
    await service.fold_all()
    hands.later(61)
    await service.ask_all(client)
    status, detail = await service.fate(event["id"])
    assert status == "parked"
    assert "ch_nobody" in str(detail)


async def test_a_contradiction_is_asked_about_and_stays_for_the_operator(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "card_success")
    canceled = orjson.loads(orjson.dumps(events[0]))
    canceled["id"], canceled["type"] = "evt_canceled", "payment_intent.canceled"
    canceled["created"] = events[-1]["created"] + 100
    canceled["data"]["object"] |= {"status": "canceled", "canceled_at": canceled["created"]}
    await service.receive([*events, canceled])
    await service.fold_all()
    hands.later(61)
    assert await service.ask_all(client) == 1
    row = (await service.payments())[stripe_id]
    assert row["status"] == "succeeded"
    assert row["anomaly"] == "succeeded and canceled"


async def test_a_contradiction_that_passes_is_not_asked_about(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "full_refund")
    own = [e for e in events if e["type"].startswith("payment_intent.")]
    await service.receive([own[0], *(e for e in events if e not in own)])
    await service.fold_all()
    assert "refunded" in str((await service.payments())[stripe_id]["anomaly"])
    await service.receive(own)
    await service.fold_all()
    await asking.tidy_once(service.pool)
    hands.later(61)
    assert await service.ask_all(client) == 0
    assert (await service.payments())[stripe_id]["anomaly"] is None
    await assert_true(service, sandbox, stripe_id)


TOLD_BY_REFUNDS = ("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")


# Of one that waits for its customer no charge tells yet, and of what a capture released: nothing has moved.
UNMOVED = ("refund_awaits_customer", "partial_capture_refunded")
REFUNDED = [n for n in sorted(LIFECYCLES) if "refund" in n and n not in UNMOVED]


@pytest.mark.parametrize("lifecycle", REFUNDED)
async def test_refunds_of_which_only_the_charge_tells_are_asked_for(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    lifecycle: str,
) -> None:
    stripe_id, events = life(sandbox, lifecycle)
    heard = [e for e in events if e["type"] not in TOLD_BY_REFUNDS]
    for event in heard:
        await service.receive([event])
        await service.fold_all()
    assert "refunded, 0 known" in str((await service.payments())[stripe_id]["anomaly"])
    await asking.tidy_once(service.pool)
    hands.later(61)
    await service.ask_all(client)
    await assert_true(service, sandbox, stripe_id)
    assert (await service.payments())[stripe_id]["anomaly"] is None
    hands.later(61)
    assert await service.ask_all(client) == 0
    # What comes late after all changes nothing more.
    await service.receive(events)
    await service.fold_all()
    await assert_true(service, sandbox, stripe_id)


async def test_a_list_of_refunds_is_read_to_its_end(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, _ = life(sandbox, "card_success")
    buyer = sandbox.client().v1
    for _ in range(PAGE_ITEMS + 1):
        buyer.refunds.create({"payment_intent": stripe_id, "amount": 3})
    heard = [e for e in events_of(sandbox, stripe_id) if e["type"] == "charge.refunded"]
    await service.receive([heard[-1]])
    await service.fold_all()
    hands.later(61)
    await service.ask_all(client)  # what the payment itself is
    hands.later(61)
    await service.ask_all(client)
    await assert_true(service, sandbox, stripe_id)
    assert (await service.payments())[stripe_id]["refunded_minor"] == 3 * (PAGE_ITEMS + 1)


async def test_what_came_by_itself_is_not_asked_about(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    _, events = life(sandbox, "card_success")
    charges = [e for e in events if e["data"]["object"]["object"] == "charge"]
    await service.receive(charges)
    await service.fold_all()
    await service.receive(events)
    await service.fold_all()
    await asking.tidy_once(service.pool)
    hands.later(61)
    assert await service.ask_all(client) == 0


async def test_tidying_releases_what_a_lost_lease_left_waiting(
    service: Service, sandbox: RunningSandbox
) -> None:
    _, events = life(sandbox, "card_success")
    await service.receive(events)
    await service.fold_all()
    [charge] = await service.rows("SELECT id FROM stripe_charges")
    await service.pool.execute(
        "UPDATE stripe_events SET status = 'received', waiting_for = $1"
        " WHERE type = 'charge.succeeded'",
        charge["id"],
    )
    assert await asking.tidy_once(service.pool) == 1
    await service.fold_all()
    assert await waiting(service) == []


async def test_what_was_answered_a_week_ago_is_forgotten(service: Service) -> None:
    await service.rows(
        "INSERT INTO stripe_questions (subject, phase, second, livemode, reason, ask_after, answered_at)"
        " SELECT '/v1/charges/ch_' || coalesce(days::text, 'open'), 0, 0, false, 'x', now(), now() - days * interval '1 day'"
        " FROM unnest(ARRAY[6.9, 7.1, NULL]) AS days"
    )
    await asking.tidy_once(service.pool)
    left = await service.rows("SELECT subject FROM stripe_questions ORDER BY id")
    assert [row["subject"] for row in left] == ["/v1/charges/ch_6.9", "/v1/charges/ch_open"]


async def test_what_was_left_alone_with_its_charge_is_taken_up_with_it(service: Service) -> None:
    """That a charge belongs to no payment may have been said too early: the order of the events changes nothing."""
    events = played(1, ["full_refund"]).events
    [charge] = [e for e in events if e["type"] == "charge.succeeded"]
    refunds = [e for e in events if e["data"]["object"]["object"] == "refund"]
    for event in refunds:
        event["data"]["object"]["payment_intent"] = None
    alone = {**charge["data"]["object"], "payment_intent": None}
    lonely = {**charge, "id": "evt_lonely", "data": {"object": alone}}
    await service.receive([lonely, *refunds])
    await service.fold_all()
    assert {(await service.fate(each["id"]))[0] for each in refunds} == {"ignored"}
    await service.receive(event for event in events if event not in refunds)
    await service.fold_all()
    await service.fold_all()
    assert {(await service.fate(each["id"]))[0] for each in refunds} == {"applied"}
    [row] = (await service.payments()).values()
    assert row["refunded_minor"] == row["received_minor"]
