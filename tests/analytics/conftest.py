"""Analytics' own role on a database of one's own, and facts to count."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.db import Sessions, create_engine, create_sessions
from shared.events import (
    PaymentChanged,
    SubscriptionChanged,
    SubscriptionCostChanged,
    derived_id,
)
from tests.conftest import Database

CUSTOMER = uuid4()


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("analytics"), "analytics")
    yield create_sessions(engine)
    await engine.dispose()


def on(day: int, hour: int = 12) -> datetime:
    """A moment in January 2026, UTC."""
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def payment(payment_id: UUID | None = None, revision: int = 1, **state: Any) -> PaymentChanged:
    """A payment of 25 USD, created and succeeded on the 10th, but for what `state` says."""
    payment_id = payment_id or uuid4()
    known: dict[str, Any] = {
        "id": derived_id("payment", payment_id, revision),
        "occurred_at": on(10),
        "customer_id": CUSTOMER,
        "payment_id": payment_id,
        "stripe_id": f"pi_{payment_id.hex}",
        "revision": revision,
        "status": "succeeded",
        "currency": "USD",
        "amount_minor": 2_500,
        "received_minor": 2_500,
        "created_at": on(10),
        "succeeded_at": on(10),
    }
    if state.get("received_minor") == 0:
        known["succeeded_at"] = None
    return PaymentChanged.model_validate(known | state)


def changed(
    subscription: UUID, revision: int, status: str = "active", **state: Any
) -> SubscriptionChanged:
    """Said on the day of January that is its revision, unless `state` says otherwise."""
    known: dict[str, Any] = {
        "id": derived_id("subscription", subscription, revision),
        "occurred_at": on(revision),
        "customer_id": CUSTOMER,
        "subscription_id": subscription,
        "revision": revision,
        "status": status,
        "currency": "EUR",
        "billing_interval": "month",
        "created_at": on(1),
    }
    return SubscriptionChanged.model_validate(known | state)


def priced(
    subscription: UUID, revision: int, totals: tuple[int | None, int], **state: Any
) -> SubscriptionCostChanged:
    """`totals`: old (none: the first price) and new, of one billing interval."""
    old, new = totals
    breakdown = {
        "currency": "EUR",
        "variants": [],
        "subtotal_minor": new,
        "admin_percentage": "10",
        "fee_minor": 0,
        "delivery_type": "standard",
        "delivery_minor": 0,
        "taxable_minor": new,
        "place": "DE",
        "tax_rate": "0",
        "tax_minor": 0,
        "total_minor": new,
    }
    known: dict[str, Any] = {
        "id": derived_id("subscription", subscription, revision),
        "occurred_at": on(revision),
        "customer_id": CUSTOMER,
        "subscription_id": subscription,
        "revision": revision,
        "status": "active",
        "currency": "EUR",
        "billing_interval": "month",
        "price_version": 1,
        "cost_history_id": revision,
        "new_breakdown": breakdown,
        "old_total_minor": old,
        "new_total_minor": new,
        "effective_at": on(revision),
        "kind": "created" if old is None else "config",
        "reason": "a test",
        "changed_by": "a test",
    }
    return SubscriptionCostChanged.model_validate(known | state)
