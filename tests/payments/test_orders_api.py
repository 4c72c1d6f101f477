"""Doing, not only hearing: payments created, confirmed, captured, canceled and refunded through the API."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from services.payments.app import create_web
from shared.api_keys import create_key
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Hands
from tests.payments.orders_desk import Caller, adhoc, shop
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["sandbox", "shop"]

PROBLEM = "application/problem+json"
EXCEEDS = "urn:farebox:problem:refund-exceeds-payment"


async def test_a_payment_is_created_then_confirmed_at_the_amount_that_was_shown(
    shop: Caller,
) -> None:
    body = adhoc()
    created = await shop.write("/payments", body)
    assert created.status_code == 201, created.text
    order = created.json()
    assert created.headers["Location"] == f"/orders/{order['id']}"
    assert (order["status"], order["stripe_status"]) == ("done", "requires_payment_method")
    assert order["client_secret"].startswith(order["stripe_payment_id"])

    told = {"amount_minor": 9_000, "currency": "EUR", "payment_method": "pm_card_visa"}
    path = f"/payments/{order['payment_id']}/confirm"
    wrong = await shop.write(path, told | {"amount_minor": 8_999})
    assert (wrong.status_code, wrong.json()["amount_minor"]) == (409, 9_000)
    assert (await shop.write(path, told | {"currency": "USD"})).status_code == 409
    confirmed = await shop.write(path, told)
    assert (confirmed.status_code, confirmed.json()["stripe_status"]) == (200, "succeeded")
    payment = await shop.payment(order["payment_id"])
    assert (payment["status"], payment["received_minor"]) == ("succeeded", 9_000)
    assert payment["user_id"] == body["user_id"]
    assert (await shop.write(path, told)).status_code == 409


async def test_an_authorised_payment_is_captured_in_part_or_canceled(shop: Caller) -> None:
    first = await shop.paid(capture="manual")
    path = f"/payments/{first}/capture"
    above = await shop.write(path, {"amount_minor": 9_001})
    assert (above.status_code, above.json()["capturable_minor"]) == (409, 9_000)
    part = await shop.write(path, {"amount_minor": 4_000, "currency": "EUR"})
    assert (part.status_code, part.json()["amount_minor"]) == (200, 4_000)
    payment = await shop.payment(first)
    assert (payment["status"], payment["received_minor"]) == ("succeeded", 4_000)
    assert (await shop.write(path)).status_code == 409

    second = await shop.paid(capture="manual")
    assert (await shop.write(f"/payments/{second}/cancel", {"reason": "abandoned"})).is_success
    assert (await shop.payment(second))["status"] == "canceled"
    again = await shop.write(f"/payments/{second}/cancel")
    assert (again.status_code, again.json()["status"]) == (409, 409)

    third = await shop.paid(capture="manual")
    assert (await shop.write(f"/payments/{third}/capture")).json()["amount_minor"] == 9_000


async def test_a_refund_above_what_is_left_is_refused_before_stripe_sees_it(shop: Caller) -> None:
    payment_id = await shop.paid()
    path = f"/payments/{payment_id}/refund"
    part = await shop.write(path, {"amount_minor": 5_000, "reason": "duplicate"})
    assert (part.status_code, part.json()["stripe_status"]) == (200, "succeeded")
    above = await shop.write(path, {"amount_minor": 4_001})
    assert (above.status_code, above.json()["left_minor"]) == (409, 4_000)
    assert above.headers["content-type"] == PROBLEM
    assert (await shop.write(path, {"currency": "USD"})).status_code == 422
    assert (await shop.write(path)).json()["amount_minor"] == 4_000
    twice = await shop.write(path)
    assert (twice.status_code, twice.json()["left_minor"]) == (409, 0)
    payment = await shop.payment(payment_id)
    assert payment["refunded_minor"] == 9_000
    assert len(payment["refunds"]) == 2
    asked = await shop.service.rows("SELECT count(*) AS n FROM stripe_orders WHERE kind = 'refund'")
    assert asked == [{"n": 2}]


async def test_what_was_refunded_in_stripes_dashboard_counts_too(shop: Caller) -> None:
    payment_id = await shop.paid()
    stripe_id = (await shop.payment(payment_id))["stripe_id"]
    shop.sandbox.client().v1.refunds.create({"payment_intent": stripe_id, "amount": 6_000})
    await shop.hear(stripe_id)
    above = await shop.write(f"/payments/{payment_id}/refund", {"amount_minor": 3_001})
    assert (above.status_code, above.json()["left_minor"]) == (409, 3_000)
    assert (await shop.write(f"/payments/{payment_id}/refund")).json()["amount_minor"] == 3_000


async def test_a_refund_nobody_told_us_of_is_refused_by_stripe_and_said_so(shop: Caller) -> None:
    payment_id = await shop.paid()
    stripe_id = (await shop.payment(payment_id))["stripe_id"]
    shop.sandbox.client().v1.refunds.create({"payment_intent": stripe_id, "amount": 6_000})
    refused = await shop.write(f"/payments/{payment_id}/refund")
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)
    assert refused.json()["type"] == "urn:farebox:problem:stripe-refused"
    order = await shop.order(refused.json()["order_id"])
    assert (order["status"], order["failure_code"]) == ("refused", "amount_too_large")
    await shop.hear(stripe_id)
    assert (await shop.write(f"/payments/{payment_id}/refund")).json()["amount_minor"] == 3_000


async def test_a_disputed_payment_is_not_refunded_one_inquired_about_is(shop: Caller) -> None:
    for method, status in (("pm_card_createDispute", 409), ("pm_card_createDisputeInquiry", 200)):
        payment_id = await shop.paid(payment_method=method)
        await shop.hear((await shop.payment(payment_id))["stripe_id"])
        assert (await shop.payment(payment_id))["disputes"]
        answer = await shop.write(f"/payments/{payment_id}/refund", {"amount_minor": 1})
        assert answer.status_code == status, answer.text
    types = {each.json().get("type") for each in shop.answers}
    assert "urn:farebox:problem:payment-disputed" in types


async def test_twenty_refunds_at_once_never_exceed_the_payment(shop: Caller) -> None:
    payment_id = await shop.paid()
    stripe_id = (await shop.payment(payment_id))["stripe_id"]
    path = f"/payments/{payment_id}/refund"
    answers = await asyncio.gather(*(shop.write(path, {"amount_minor": 1_000}) for _ in range(20)))
    done = [each for each in answers if each.status_code == 200]
    assert len(done) == 9
    assert {each.status_code for each in answers} == {200, 409}
    refused = [each.json()["type"] for each in answers if each.status_code == 409]
    assert set(refused) == {EXCEEDS}
    assert shop.truth(stripe_id)["refunded_minor"] == 9_000


async def test_a_declined_card_is_402_and_the_payment_lives_on(shop: Caller) -> None:
    body = adhoc(confirm=True, payment_method="pm_card_chargeDeclinedInsufficientFunds")
    declined = await shop.write("/payments", body, key="a decline")
    assert (declined.status_code, declined.headers["content-type"]) == (402, PROBLEM)
    said = declined.json()
    assert said["failure_code"] == "insufficient_funds"
    again = await shop.write("/payments", body, key="a decline")
    assert (again.status_code, again.json()) == (402, said)
    assert again.headers["Idempotency-Replayed"] == "true"
    payment = await shop.payment(said["payment_id"])
    assert (payment["status"], payment["failure_code"]) == (
        "requires_payment_method",
        "insufficient_funds",
    )
    told = {"amount_minor": 9_000, "currency": "EUR", "payment_method": "pm_card_visa"}
    assert (await shop.write(f"/payments/{said['payment_id']}/confirm", told)).status_code == 200


async def test_a_payment_that_needs_its_customer_says_where_to_go(shop: Caller) -> None:
    body = adhoc(
        confirm=True,
        payment_method="pm_card_threeDSecure2Required",
        return_url="https://shop.example/back",
    )
    asked = await shop.write("/payments", body)
    assert (asked.status_code, asked.json()["stripe_status"]) == (201, "requires_action")
    assert asked.json()["client_secret"]
    assert (await shop.payment(asked.json()["payment_id"]))["status"] == "requires_action"
    shown = await shop.order(asked.json()["id"])
    assert "client_secret" not in shown
    told = {"amount_minor": 9_000, "currency": "EUR"}
    early = await shop.write(f"/payments/{asked.json()['payment_id']}/confirm", told)
    assert (early.status_code, early.json()["type"]) == (409, "urn:farebox:problem:payment-state")


async def test_a_key_is_needed_and_names_one_request_for_ever(shop: Caller) -> None:
    auth = {"Authorization": f"Bearer {shop.token}"}
    missing = await shop.http.post("/payments", json=adhoc(), headers=auth)
    assert missing.status_code == 400
    assert missing.json()["type"] == "urn:farebox:problem:idempotency-key-missing"

    body = adhoc(confirm=True, payment_method="pm_card_visa")
    first = await shop.write("/payments", body, key="one")
    replay = await shop.write("/payments", body, key="one")
    assert (replay.status_code, replay.json()) == (201, first.json())
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    other = await shop.write("/payments", adhoc(amount=9_001), key="one")
    assert other.status_code == 422
    assert other.json()["type"] == "urn:farebox:problem:idempotency-key-reused"
    elsewhere = await shop.write(f"/payments/{first.json()['payment_id']}/refund", key="one")
    assert elsewhere.status_code == 422
    assert len(await shop.service.payments()) == 1
    assert (await shop.write("/payments", body, key="k" * 256)).status_code == 422


async def test_a_request_that_a_rule_refused_leaves_its_key_free(shop: Caller) -> None:
    payment_id = await shop.paid(capture="manual")
    path = f"/payments/{payment_id}/refund"
    assert (await shop.write(path, {"amount_minor": 100}, key="later")).status_code == 409
    await shop.write(f"/payments/{payment_id}/capture")
    assert (await shop.write(path, {"amount_minor": 100}, key="later")).status_code == 200


async def test_the_same_request_while_the_first_is_under_way_is_409(shop: Caller) -> None:
    payment_id = await shop.paid()
    path, body = f"/payments/{payment_id}/refund", {"amount_minor": 100}
    slow = {"status": "timeout", "hang_seconds": 2, "count": 1, "after_effect": True}
    shop.sandbox.control("POST", "outage", slow)
    first = asyncio.create_task(shop.write(path, body, key="at once"))
    while not await shop.service.rows("SELECT id FROM stripe_orders WHERE kind = 'refund'"):
        await asyncio.sleep(0.01)
    second = await shop.write(path, body, key="at once")
    assert (second.status_code, second.json()["type"]) == (
        409,
        "urn:farebox:problem:idempotency-key-in-flight",
    )
    assert (await first).status_code == 200
    assert (await shop.payment(payment_id))["refunded_minor"] == 100


async def test_an_amount_changed_at_stripe_is_not_confirmed(
    shop: Caller, sandbox: RunningSandbox
) -> None:
    created = (await shop.write("/payments", adhoc(capture="manual"))).json()
    # No event tells of it: only Stripe knows.
    await shop.service.pool.execute(
        "UPDATE payment_intents SET amount_minor = 8000 WHERE stripe_id = $1",
        created["stripe_payment_id"],
    )
    told = {"amount_minor": 8_000, "currency": "EUR", "payment_method": "pm_card_visa"}
    refused = await shop.write(f"/payments/{created['payment_id']}/confirm", told)
    assert (refused.status_code, refused.json()["failure_code"]) == (409, "amount_not_told")
    assert shop.truth(created["stripe_payment_id"])["capturable_minor"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": str(uuid4())},
        adhoc(amount=0),
        adhoc(currency="XYZ"),
        adhoc(confirm=True),
        adhoc(unknown=1),
        adhoc(period_start="2026-07-01T00:00:00Z"),
        {**adhoc(), "amount_minor": 12.5},
        {**adhoc(), "amount_minor": True},
        {**adhoc(), "amount_minor": "100"},
        adhoc(confirm="yes", payment_method="pm_card_visa"),
        adhoc(off_session=True),
        {"subscription_id": str(uuid4()), "confirm": True, "payment_method": "pm_card_visa"},
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_written(
    shop: Caller, body: dict[str, object]
) -> None:
    assert (await shop.write("/payments", body)).status_code == 422
    assert await shop.service.rows("SELECT id FROM stripe_orders") == []


async def test_the_page_says_that_every_write_needs_its_idempotency_key(shop: Caller) -> None:
    paths = (await shop.http.get("/openapi.json")).json()["paths"]
    for path in [path for path in paths if path.startswith("/payments") and "post" in paths[path]]:
        [key] = [p for p in paths[path]["post"]["parameters"] if p["name"] == "Idempotency-Key"]
        assert (key["required"], key["in"]) == (True, "header")


async def test_writing_always_needs_a_key_with_its_scope(shop: Caller) -> None:
    async with shop.sessions.begin() as session:
        reader = await create_key(session, "payments", "reader", ["payments:read"])
    key = {"Idempotency-Key": "x"}
    assert (await shop.http.post("/payments", json=adhoc(), headers=key)).status_code == 401
    reads = {"Authorization": f"Bearer {reader}", **key}
    assert (await shop.http.post("/payments", json=adhoc(), headers=reads)).status_code == 403
    unknown = await shop.write(f"/payments/{uuid4()}/refund")
    assert unknown.status_code == 404


async def test_orders_are_listed_newest_first(shop: Caller) -> None:
    payment_id = await shop.paid()
    for _ in range(3):
        shop.hands.later(1)
        await shop.write(f"/payments/{payment_id}/refund", {"amount_minor": 10})
    page = (await shop.http.get("/orders", params={"payment_id": payment_id, "limit": 2})).json()
    rest = (await shop.http.get("/orders", params={"limit": 2, "after": page["next"]})).json()
    assert [each["kind"] for each in page["items"] + rest["items"]] == [*["refund"] * 3, "create"]
    assert rest["next"] is None
    assert (await shop.http.get("/orders", params={"after": str(uuid4())})).status_code == 422
    assert (await shop.http.get("/orders", params={"status": "open"})).json()["items"] == []
    assert (await shop.http.get(f"/orders/{uuid4()}")).status_code == 404


async def test_without_a_stripe_key_nothing_is_written_and_503_says_why(
    shop: Caller, database: Database, hands: Hands
) -> None:
    web = create_web(Settings(database_url=database.url), hands)
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as http:
            headers = {"Authorization": f"Bearer {shop.token}", "Idempotency-Key": "x"}
            answer = await http.post("/payments", json=adhoc(), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (
        503,
        "urn:farebox:problem:stripe-key-missing",
    )


async def test_what_may_send_the_customer_elsewhere_needs_a_way_back(shop: Caller) -> None:
    back = "https://shop.example/back"
    told = {"amount_minor": 9_000, "currency": "EUR", "payment_method": "pm_card_visa"}
    elsewhere = (await shop.write("/payments", adhoc(return_url=back))).json()
    path = f"/payments/{elsewhere['payment_id']}/confirm"
    refused = await shop.write(path, told)
    assert (refused.status_code, "return_url" in refused.json()["detail"]) == (422, True)
    assert (await shop.write(path, {**told, "return_url": back})).status_code == 200
    # Without an address nobody is sent anywhere, in two steps as in one.
    here = (await shop.write("/payments", adhoc())).json()
    [row] = await shop.service.rows(
        "SELECT parameters FROM stripe_orders WHERE id = $1", here["id"]
    )
    assert '"allow_redirects": "never"' in str(row["parameters"])
    assert (await shop.write(f"/payments/{here['payment_id']}/confirm", told)).status_code == 200
