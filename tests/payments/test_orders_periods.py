"""A subscription's period is paid once, at what the customer was told it costs."""

import asyncio
from datetime import timedelta
from uuid import uuid4

from services.payments.handlers import HANDLERS
from services.payments.renewals.models import BillableSubscription, Renewal
from shared.consumer import deliver
from shared.events import SubscriptionCostChanged
from tests.payments.conftest import NOW
from tests.payments.costs import SUBSCRIPTION, USER, cost
from tests.payments.orders_desk import Caller, shop
from tests.sandbox.conftest import sandbox

__all__ = ["sandbox", "shop"]

PERIOD = NOW - timedelta(days=1)


async def hear(shop: Caller, *facts: SubscriptionCostChanged) -> None:
    await deliver(shop.sessions, "payments", HANDLERS, facts)


async def live(shop: Caller, status: str = "active") -> None:
    async with shop.sessions.begin() as session:
        session.add(
            BillableSubscription(
                subscription_id=SUBSCRIPTION,
                user_id=USER,
                revision=1,
                status=status,
                billing_interval="month",
                period_start=PERIOD,
                period_end=PERIOD + timedelta(days=30),
                created_at=PERIOD,
            )
        )


def period(**more: object) -> dict[str, object]:
    return {"subscription_id": str(SUBSCRIPTION), **more}


CARD = {"payment_method": "pm_card_visa"}


async def test_a_period_is_charged_at_what_it_costs_and_names_the_price_it_is_for(
    shop: Caller,
) -> None:
    await hear(shop, cost(1, 2_500))
    await live(shop)
    created = await shop.write(
        "/payments", period(amount_minor=2_500, currency="EUR", confirm=True, **CARD)
    )
    assert (created.status_code, created.json()["amount_minor"]) == (201, 2_500), created.text
    stripe_id = created.json()["stripe_payment_id"]
    metadata = shop.sandbox.client().v1.payment_intents.retrieve(stripe_id).metadata.to_dict()
    assert metadata == {
        "user_id": str(USER),
        "subscription_id": str(SUBSCRIPTION),
        "farebox_order": created.json()["id"],
        "price_version": "11",
        "cost_history_id": "101",
        "period_start": PERIOD.isoformat(),
    }
    again = await shop.write("/payments", period())
    assert (again.status_code, again.json()["type"]) == (409, "urn:farebox:problem:period-ordered")


async def test_a_price_that_changed_before_it_was_agreed_to_is_shown_and_not_charged(
    shop: Caller,
) -> None:
    await hear(shop, cost(1, 2_500))
    await live(shop)
    created = (await shop.write("/payments", period())).json()
    await hear(shop, cost(2, 2_900))
    path = f"/payments/{created['payment_id']}"
    told = {"amount_minor": 2_500, "currency": "EUR", **CARD}
    for amount in (2_500, 2_900):
        refused = await shop.write(f"{path}/confirm", told | {"amount_minor": amount})
        assert refused.status_code == 409, refused.text
    assert refused.json()["amount_minor"] == 2_500
    assert shop.truth(created["stripe_payment_id"])["received_minor"] == 0

    stale = await shop.write("/payments", period(confirm=True, **told))
    assert stale.status_code == 409
    assert (await shop.write(f"{path}/cancel")).status_code == 200
    stale = await shop.write("/payments", period(confirm=True, **told))
    assert (stale.status_code, stale.json()["amount_minor"]) == (409, 2_900)
    assert stale.json()["type"] == "urn:farebox:problem:price-changed"
    now = await shop.write("/payments", period(confirm=True, **told | {"amount_minor": 2_900}))
    assert (now.status_code, now.json()["stripe_status"]) == (201, "succeeded")


async def test_a_price_for_later_does_not_change_what_is_paid_today(shop: Caller) -> None:
    await hear(shop, cost(1, 2_500), cost(2, 2_900, after=timedelta(days=5)))
    await live(shop)
    created = (await shop.write("/payments", period())).json()
    assert created["amount_minor"] == 2_500
    later = PERIOD + timedelta(days=30)
    coming = await shop.write("/payments", period(period_start=later.isoformat()))
    assert coming.json()["amount_minor"] == 2_900
    told = {"amount_minor": 2_500, "currency": "EUR", **CARD}
    path = f"/payments/{created['payment_id']}/confirm"
    assert (await shop.write(path, told)).status_code == 200


async def test_of_ten_requests_for_one_period_one_is_carried_out(shop: Caller) -> None:
    await hear(shop, cost(1, 2_500))
    await live(shop)
    body = period(amount_minor=2_500, currency="EUR", confirm=True, **CARD)
    answers = await asyncio.gather(*(shop.write("/payments", body) for _ in range(10)))
    assert sorted(each.status_code for each in answers) == [201] + [409] * 9


async def test_a_period_that_is_renewed_by_itself_is_not_paid_a_second_time(shop: Caller) -> None:
    await hear(shop, cost(1, 2_500))
    await live(shop)
    async with shop.sessions.begin() as session:
        session.add(
            Renewal(
                id=uuid4(),
                subscription_id=SUBSCRIPTION,
                user_id=USER,
                period_start=PERIOD,
                period_end=PERIOD + timedelta(days=30),
                currency="EUR",
                total_minor=2_500,
                price_version=11,
                cost_history_id=101,
                status="past_due",
            )
        )
    refused = await shop.write("/payments", period())
    assert (refused.status_code, refused.json()["type"]) == (
        409,
        "urn:farebox:problem:period-ordered",
    )


async def test_a_subscription_that_is_unknown_anothers_or_canceled_is_not_charged(
    shop: Caller,
) -> None:
    assert (await shop.write("/payments", period())).status_code == 404
    await hear(shop, cost(1, 2_500))
    other = period(user_id=str(uuid4()))
    assert (await shop.write("/payments", other)).status_code == 422
    await live(shop, status="canceled")
    assert (await shop.write("/payments", period())).status_code == 409
    assert await shop.service.rows("SELECT id FROM stripe_orders") == []


async def test_what_costs_nothing_is_no_payment(shop: Caller) -> None:
    await hear(shop, cost(1, 0))
    assert (await shop.write("/payments", period())).status_code == 422
