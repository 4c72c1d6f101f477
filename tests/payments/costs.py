"""What pricing says that one subscription costs."""

from datetime import timedelta
from uuid import UUID, uuid4

from shared.events import CostBreakdown, SubscriptionCostChanged
from tests.payments.conftest import NOW

USER, SUBSCRIPTION = UUID(int=3), UUID(int=7)


def cost(
    revision: int, total_minor: int, after: timedelta = timedelta(0)
) -> SubscriptionCostChanged:
    breakdown = CostBreakdown(
        currency="EUR",
        variants=(),
        subtotal_minor=total_minor,
        admin_percentage="1",
        fee_minor=0,
        delivery_type="standard",
        delivery_minor=0,
        taxable_minor=total_minor,
        place="DE",
        tax_rate="0",
        tax_minor=0,
        total_minor=total_minor,
    )
    return SubscriptionCostChanged(
        id=uuid4(),
        occurred_at=NOW,
        customer_id=USER,
        subscription_id=SUBSCRIPTION,
        revision=revision,
        status="active",
        currency="EUR",
        billing_interval="month",
        price_version=10 + revision,
        cost_history_id=100 + revision,
        new_breakdown=breakdown,
        new_total_minor=total_minor,
        effective_at=NOW + after,
        kind="config",
        reason="new prices",
        changed_by="admin",
    )
