"""Facts for tests of the machinery, whose content does not matter."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from shared.events import PaymentChanged, TierChanged

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def payment(customer_id: UUID | None = None, **changes: Any) -> PaymentChanged:
    values: dict[str, Any] = {
        "id": uuid4(),
        "occurred_at": AT,
        "customer_id": customer_id or uuid4(),
        "payment_id": uuid4(),
        "stripe_id": "pi_1",
        "revision": 1,
        "status": "succeeded",
        "currency": "USD",
        "amount_minor": 2_500,
        "received_minor": 2_500,
        "created_at": AT,
    }
    return PaymentChanged(**(values | changes))


def tier(customer_id: UUID) -> TierChanged:
    return TierChanged(
        id=uuid4(),
        occurred_at=AT,
        customer_id=customer_id,
        revision=1,
        old_tier="bronze",
        new_tier="silver",
        points_12_months=500,
    )
