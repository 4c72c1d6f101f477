"""A paid renewal moves the subscription's period, forward only; a given-up one pauses it where that is wanted."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.pricing.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions
from shared.events import RenewalChanged, RenewalStatus, SubscriptionChanged
from tests.pricing.conftest import START, Shop

NEXT = START + timedelta(days=31)
AFTER = START + timedelta(days=61)


def renewal(
    subscription: UUID,
    status: RenewalStatus,
    period: tuple[datetime, datetime] = (NEXT, AFTER),
    *,
    pause: bool = False,
) -> RenewalChanged:
    return RenewalChanged(
        id=uuid4(),
        occurred_at=NEXT,
        customer_id=uuid4(),
        renewal_id=uuid4(),
        subscription_id=subscription,
        revision=1,
        status=status,
        period_start=period[0],
        period_end=period[1],
        currency="USD",
        total_minor=1_000,
        price_version=1,
        cost_history_id=1,
        attempts=1,
        pause=pause,
    )


@pytest.fixture
async def subscription(shop: Shop) -> UUID:
    made = await shop.subscription([(await shop.variant(1_000), 1)])
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_start = $1, period_end = $2", START, NEXT
    )
    return made


async def test_a_paid_renewal_moves_the_period_once_and_says_so(
    shop: Shop, sessions: Sessions, subscription: UUID
) -> None:
    said = len(await shop.facts(SubscriptionChanged.type))
    fact = renewal(subscription, "paid")
    for _ in range(2):
        await deliver(sessions, "pricing", HANDLERS, [fact])
    row = await shop.row(subscription)
    assert (row["period_start"], row["period_end"]) == (NEXT, AFTER)
    *_, told = await shop.facts(SubscriptionChanged.type)
    assert len(await shop.facts(SubscriptionChanged.type)) == said + 1
    assert told["cause"] == str(fact.id)


@pytest.mark.parametrize("status", ["paid", "recovered"])
async def test_a_period_never_goes_back(
    shop: Shop, sessions: Sessions, subscription: UUID, status: RenewalStatus
) -> None:
    late = renewal(subscription, status, (START - timedelta(days=31), START))
    inside = renewal(subscription, status, (START + timedelta(days=10), AFTER))
    await deliver(sessions, "pricing", HANDLERS, [renewal(subscription, "paid"), late, inside])
    row = await shop.row(subscription)
    assert (row["period_start"], row["period_end"]) == (NEXT, AFTER)


@pytest.mark.parametrize(
    ("state", "fact", "status"),
    [
        ("active", {"status": "given_up", "pause": True}, "paused"),
        ("active", {"status": "given_up", "pause": False}, "active"),
        ("active", {"status": "past_due"}, "active"),
        ("paused", {"status": "given_up", "pause": True}, "paused"),
        ("canceled", {"status": "given_up", "pause": True}, "canceled"),
    ],
)
async def test_who_is_given_up_is_paused_where_that_is_wanted(
    shop: Shop,
    sessions: Sessions,
    subscription: UUID,
    state: str,
    fact: dict[str, object],
    status: str,
) -> None:
    canceled_at = START if state == "canceled" else None
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET status = $1, canceled_at = $2", state, canceled_at
    )
    given = renewal(subscription, "past_due").model_copy(update=fact)
    await deliver(sessions, "pricing", HANDLERS, [given])
    row = await shop.row(subscription)
    assert (row["status"], row["period_end"]) == (status, NEXT)


async def test_a_subscription_that_went_on_without_us_is_not_paused(
    shop: Shop, sessions: Sessions, subscription: UUID
) -> None:
    await shop.storefront.execute("UPDATE public.subscriptions SET period_end = $1", AFTER)
    await deliver(sessions, "pricing", HANDLERS, [renewal(subscription, "given_up", pause=True)])
    assert (await shop.row(subscription))["status"] == "active"
