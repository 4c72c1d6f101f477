"""Orders to Stripe are carried out once, whatever Stripe answers or does not answer."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.payments.gateway import StripeClient
from services.payments.orders import work
from services.payments.orders.place import Kind, Order, place
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["sandbox"]


@pytest.fixture
async def client(sandbox: RunningSandbox) -> AsyncIterator[StripeClient]:
    opened = StripeClient("sk_test_orders", sandbox.url)
    yield opened
    await opened.close()


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


def creation(method: str = "pm_card_visa", amount: int = 2_500, /, **more: object) -> Order:
    order_id = uuid4()
    parameters = {
        "amount": amount,
        "currency": "eur",
        "confirm": True,
        "off_session": True,
        "payment_method": method,
        "metadata": {
            "user_id": str(USER),
            "subscription_id": str(SUBSCRIPTION),
            "farebox_order": str(order_id),
        },
        **more,
    }
    parameters = {name: value for name, value in parameters.items() if value is not None}
    return Order(order_id, "create", parameters, "renewals", currency="EUR", amount_minor=amount)


async def put(sessions: Sessions, hands: Hands, *orders: Order) -> None:
    async with sessions.begin() as session:
        for order in orders:
            assert await place(session, order, hands())


async def work_all(service: Service, client: StripeClient) -> int:
    ended = 0
    while done := await work.run_once(service.pool, client, "test", service.clock):
        ended += done
    await service.fold_all()
    return ended


async def order_row(service: Service, order_id: UUID) -> dict[str, object]:
    [row] = await service.rows("SELECT * FROM stripe_orders WHERE id = $1", order_id)
    return row


async def test_a_charge_is_made_and_known_before_any_webhook_comes(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    order = creation()
    await put(sessions, hands, order)
    assert await work_all(service, client) == 1
    row = await order_row(service, order.id)
    [payment] = (await service.payments()).values()
    assert (row["status"], row["stripe_object_id"]) == ("done", payment["stripe_id"])
    assert (row["payment_id"], row["attempts"]) == (payment["id"], 1)
    assert (payment["status"], payment["received_minor"]) == ("succeeded", 2_500)
    assert (payment["user_id"], payment["subscription_id"]) == (USER, SUBSCRIPTION)
    assert await work_all(service, client) == 0


async def test_a_placed_order_is_not_placed_again(
    service: Service, hands: Hands, sessions: Sessions
) -> None:
    order = creation()
    await put(sessions, hands, order)
    async with sessions.begin() as session:
        assert not await place(session, order, hands())


async def test_a_declined_card_ends_the_order_with_the_issuers_reason(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    order = creation("pm_card_chargeDeclinedInsufficientFunds")
    await put(sessions, hands, order)
    assert await work_all(service, client) == 1
    row = await order_row(service, order.id)
    [payment] = (await service.payments()).values()
    assert (row["status"], row["failure_code"]) == ("refused", "insufficient_funds")
    assert (row["refused_status"], row["payment_id"]) == (402, payment["id"])
    assert payment["status"] == "requires_payment_method"
    assert payment["failure_code"] == "insufficient_funds"


# stripe-python itself asks twice after a 5xx.
@pytest.mark.parametrize(("status", "count"), [(429, 1), (500, 2), (503, 2)])
async def test_an_outage_leaves_the_order_open_and_it_is_asked_again_later(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
    status: int,
    count: int,
) -> None:
    order = creation()
    await put(sessions, hands, order)
    sandbox.control("POST", "outage", {"status": status, "count": count})
    assert await work_all(service, client) == 0
    row = await order_row(service, order.id)
    assert (row["status"], row["attempts"]) == ("open", 1)
    assert "outage" in str(row["last_error"])
    assert await work_all(service, client) == 0
    hands.later(3)
    assert await work_all(service, client) == 1
    assert await charged(service, sandbox) == 1


async def charged(service: Service, sandbox: RunningSandbox) -> int:
    """How many payments of this test's orders Stripe itself has taken money for."""
    rows = await service.rows("SELECT id FROM stripe_orders WHERE kind = 'create'")
    mine = {str(row["id"]) for row in rows}
    listed = sandbox.client().v1.payment_intents.list({"limit": 100}).data
    return sum(
        1
        for each in listed
        if each.metadata.to_dict().get("farebox_order") in mine and each.status == "succeeded"
    )


@pytest.mark.parametrize("attempts_lost", [2, 4])
async def test_an_answer_lost_after_the_effect_charges_nobody_twice(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
    attempts_lost: int,
) -> None:
    order = creation()
    await put(sessions, hands, order)
    lost = {"status": 500, "count": attempts_lost, "after_effect": True}
    sandbox.control("POST", "outage", lost)
    for _ in range(3):
        await work_all(service, client)
        hands.later(15)
    row = await order_row(service, order.id)
    assert row["status"] == "done"
    assert await charged(service, sandbox) == 1


async def test_an_unknown_outcome_older_than_its_key_is_looked_for_before_it_is_asked_again(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    set_clocks(sandbox, hands)
    done, undone = creation(), creation("pm_card_visa", 2_600)
    await put(sessions, hands, done)
    sandbox.control("POST", "outage", {"status": 500, "count": 2, "after_effect": True})
    assert await work_all(service, client) == 0
    await put(sessions, hands, undone)
    sandbox.control("POST", "outage", {"status": 500, "count": 2})
    assert await work_all(service, client) == 0
    hands.now += timedelta(days=1, hours=1)
    set_clocks(sandbox, hands)
    assert await work_all(service, client) == 2
    assert (await order_row(service, done.id))["status"] == "done"
    assert (await order_row(service, undone.id))["status"] == "done"
    assert await charged(service, sandbox) == 2


def set_clocks(sandbox: RunningSandbox, hands: Hands) -> None:
    """Stripe forgets its keys a day after their first use."""
    sandbox.control("POST", "clock", {"now": int(hands.now.timestamp())})


@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("kind", ["refund", "capture", "cancel", "confirm"])
async def test_what_became_of_an_old_order_is_seen_on_the_payment_or_asked_again(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
    kind: Kind,
    is_done: bool,
) -> None:
    set_clocks(sandbox, hands)
    made = creation(**MADE[kind])
    await put(sessions, hands, made)
    assert await work_all(service, client) == 1
    payment = str((await order_row(service, made.id))["stripe_payment_id"])
    hands.later(60)
    set_clocks(sandbox, hands)
    order = later(payment, kind)
    await put(sessions, hands, order)
    # Only what is asked for is lost: a confirmation looks at the payment first.
    outage = {"status": 500, "count": 2, "method": "POST", "after_effect": is_done}
    sandbox.control("POST", "outage", outage)
    assert await work_all(service, client) == 0
    hands.now += timedelta(days=1, hours=1)
    set_clocks(sandbox, hands)
    assert await work_all(service, client) == 1
    row = await order_row(service, order.id)
    truth = sandbox.control("GET", "truth")[payment]
    told = {name: truth[name] for name in ("status", "received_minor", "refunded_minor")}
    if kind == "confirm" and not is_done:
        # Whoever clicked a day ago is not charged today.
        assert (row["status"], row["failure_code"]) == ("refused", "confirmation_expired")
        assert told == {
            "status": "requires_payment_method",
            "received_minor": 0,
            "refunded_minor": 0,
        }
        return
    assert row["status"] == "done", row
    assert told == COMES_TO[kind]
    [known] = (await service.payments()).values()
    assert {name: known[name] for name in told} == told


MADE: dict[Kind, dict[str, object]] = {
    "refund": {},
    "capture": {"capture_method": "manual"},
    "cancel": {"capture_method": "manual"},
    "confirm": {"confirm": False, "off_session": False, "payment_method": None},
}
COMES_TO: dict[Kind, dict[str, object]] = {
    "refund": {"status": "succeeded", "received_minor": 2_500, "refunded_minor": 1_000},
    "capture": {"status": "succeeded", "received_minor": 1_000, "refunded_minor": 0},
    "cancel": {"status": "canceled", "received_minor": 0, "refunded_minor": 0},
    "confirm": {"status": "succeeded", "received_minor": 2_500, "refunded_minor": 0},
}


def later(payment: str, kind: Kind) -> Order:
    """What is asked of a payment once it is there, as the API would write it."""
    order_id = uuid4()
    parameters: dict[Kind, dict[str, object]] = {
        "refund": {
            "payment_intent": payment,
            "amount": 1_000,
            "metadata": {"farebox_order": str(order_id)},
        },
        "capture": {"amount_to_capture": 1_000, "metadata": {"farebox_capture": str(order_id)}},
        "cancel": {"cancellation_reason": "abandoned"},
        "confirm": {"payment_method": "pm_card_visa"},
    }
    return Order(
        order_id,
        kind,
        parameters[kind],
        "a test",
        stripe_payment_id=payment,
        currency="EUR",
        amount_minor=2_500 if kind == "confirm" else 1_000,
    )


async def test_an_order_that_cannot_be_carried_out_does_not_hold_up_the_others(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    sessions: Sessions,
) -> None:
    good = creation()
    await put(sessions, hands, good)
    unreadable = creation("pm_card_visa", 2_700)
    await put(sessions, hands, unreadable)
    await service.pool.execute(
        "UPDATE stripe_orders SET parameters = '[]' WHERE id = $1", unreadable.id
    )
    assert await work_all(service, client) == 1
    assert (await order_row(service, good.id))["status"] == "done"
    row = await order_row(service, unreadable.id)
    assert (row["status"], row["attempts"]) == ("open", 1)
    assert row["last_error"]
