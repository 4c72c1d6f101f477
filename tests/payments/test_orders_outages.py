"""Stripe silent, broken or away while it is asked: what it did is found out, and done once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from services.payments import gauges
from services.payments.orders import carry
from tests.conftest import Database
from tests.payments.orders_desk import Caller, adhoc, shop
from tests.sandbox.conftest import sandbox
from tests.servers import url_of

__all__ = ["sandbox", "shop"]

EXCEEDS = "urn:farebox:problem:refund-exceeds-payment"


async def test_an_open_order_holds_up_what_would_build_on_it(shop: Caller) -> None:
    payment_id = await shop.paid(capture="manual")
    shop.sandbox.control("POST", "outage", {"status": 500, "count": 2})
    late = await shop.write(f"/payments/{payment_id}/capture", {"amount_minor": 5_000})
    assert late.status_code == 202
    for action in ("capture", "cancel"):
        held = await shop.write(f"/payments/{payment_id}/{action}")
        assert (held.status_code, held.json()["order_id"]) == (409, late.json()["id"])
    shop.hands.later(3)
    assert await shop.work() == 1
    assert (await shop.payment(payment_id))["received_minor"] == 5_000


LOST = [
    {"status": 500, "count": 2, "after_effect": True},
    {"status": 500, "count": 2},
    {"status": 429, "count": 1},
    {"status": 409, "count": 2},
    {"status": "garbage", "garbage": "html", "count": 1, "after_effect": True},
    {"status": "garbage", "garbage": "truncated", "count": 1, "after_effect": True},
    {"status": "disconnect", "count": 2, "after_effect": True},
]


@pytest.mark.parametrize(
    ("what", "outage"),
    [*(("creation", each) for each in LOST), *(("refund", each) for each in LOST[:2])],
    ids=lambda each: each if isinstance(each, str) else "-".join(map(str, each.values())),
)
async def test_an_unknown_outcome_is_found_out_and_never_guessed(
    shop: Caller, what: str, outage: dict[str, object]
) -> None:
    body = adhoc(confirm=True, payment_method="pm_card_visa")
    path = "/payments"
    if what == "refund":
        body = {"amount_minor": 6_000}
        path = f"/payments/{await shop.paid()}/refund"
    shop.sandbox.control("POST", "outage", outage)
    unknown = await shop.write(path, body, key="once")
    order_id = unknown.json()["id"]
    assert (unknown.status_code, unknown.json()["status"]) == (202, "open"), unknown.text
    assert unknown.headers["Location"] == f"/orders/{order_id}"
    assert (await shop.order(order_id))["status"] == "open"
    still = await shop.write(path, body, key="once")
    assert (still.status_code, still.json()["id"]) == (202, order_id)
    if what == "refund":
        above = await shop.write(path, {"amount_minor": 6_000})
        assert (above.status_code, above.json()["type"]) == (409, EXCEEDS)

    shop.hands.later(3)
    assert await shop.work() == 1
    assert (await shop.order(order_id))["status"] == "done"
    replay = await shop.write(path, body, key="once")
    assert replay.status_code == (200 if what == "refund" else 201)
    assert (replay.json()["id"], replay.json()["stripe_status"]) == (order_id, "succeeded")
    assert replay.headers["Idempotency-Replayed"] == "true"
    [payment] = (await shop.service.payments()).values()
    truth = shop.truth(payment["stripe_id"])
    assert truth["received_minor"] == payment["received_minor"] == 9_000
    refunded = 6_000 if what == "refund" else 0
    assert truth["refunded_minor"] == payment["refunded_minor"] == refunded
    assert await payments_at_stripe(shop) == 1


async def test_nobody_waits_for_stripe_longer_than_is_bearable(
    shop: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "ASK_SECONDS", 0.2)
    silence = {"status": "timeout", "hang_seconds": 3, "count": 1, "after_effect": True}
    shop.sandbox.control("POST", "outage", silence)
    unknown = await shop.write("/payments", adhoc(confirm=True, payment_method="pm_card_visa"))
    assert (unknown.status_code, unknown.json()["status"]) == (202, "open")
    shop.hands.later(3)
    assert await shop.work() == 1
    assert await payments_at_stripe(shop) == 1


async def test_a_database_that_goes_while_stripe_is_asked_leaves_the_order_to_the_worker(
    shop: Caller, database: Database
) -> None:
    payment_id = await shop.paid()
    path, body = f"/payments/{payment_id}/refund", {"amount_minor": 100}
    slow = {"status": "timeout", "hang_seconds": 2, "count": 1, "after_effect": True}
    shop.sandbox.control("POST", "outage", slow)
    headers = {"Authorization": f"Bearer {shop.token}", "Idempotency-Key": "away"}
    asked = asyncio.create_task(shop.http.post(path, json=body, headers=headers))
    while not await shop.service.rows("SELECT id FROM stripe_orders WHERE kind = 'refund'"):
        await asyncio.sleep(0.01)
    async with shut(database):
        answer = await asked
    assert (answer.status_code, answer.json()["status"]) == (202, "open")
    shop.hands.later(30)
    assert await shop.work() == 1
    replay = await shop.write(path, body, key="away")
    assert (replay.status_code, replay.json()["id"]) == (200, answer.json()["id"])
    assert (await shop.payment(payment_id))["refunded_minor"] == 100


@asynccontextmanager
async def shut(database: Database) -> AsyncIterator[None]:
    """Nobody is connected to the database, and nobody can connect."""
    admin = await asyncpg.connect(url_of(database.url, "postgres"))
    try:
        await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            database.name,
        )
        yield
    finally:
        await admin.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
        await admin.close()


async def payments_at_stripe(shop: Caller) -> int:
    """How many of this test's users were charged how often at Stripe."""
    mine = {
        str(each["user_id"])
        for each in await shop.service.rows("SELECT user_id FROM stripe_orders")
    }
    listed = shop.sandbox.client().v1.payment_intents.list({"limit": 100}).data
    return sum(each.metadata.to_dict().get("user_id") in mine for each in listed)


async def test_an_order_that_stays_open_is_counted_for_whoever_watches(
    shop: Caller,
) -> None:
    shop.sandbox.control("POST", "outage", {"status": 500, "count": 2})
    assert (await shop.write("/payments", adhoc())).status_code == 202
    counted = await gauges.count(shop.sessions)
    # Its clock is a test's, of months ago.
    assert (counted.open, counted.late) == (1, 1)
