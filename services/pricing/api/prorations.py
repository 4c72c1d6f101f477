"""What changing a subscription within its period would give back and ask for, over HTTP."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter

from services.pricing.api.access import SUBSCRIPTIONS_READ
from services.pricing.api.quotes import LoyaltyDiscount
from services.pricing.api.shapes import Input, Instant, Lines, View, box_lines
from services.pricing.fields import DeliveryType
from services.pricing.prorating import Change, Counting, Prorated, prorated
from services.pricing.proration import By
from shared.events import CostBreakdown
from shared.web import Configured, Now, Session

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])


class ProrationRequest(Input):
    """What would change, and when; what is left out stays as it is, `at` is now."""

    variants: Lines | None = None
    delivery_type: DeliveryType | None = None
    delivery_address_id: UUID | None = None
    loyalty_discount_minor: LoyaltyDiscount | None = None
    at: Instant | None = None

    def change(self) -> Change:
        return Change(
            None if self.variants is None else box_lines(self.variants),
            self.delivery_type,
            self.delivery_address_id,
            self.loyalty_discount_minor,
        )


class ProratedLineView(View):
    """`what`: a variant's id, or fee, delivery, discount, tax, rounding."""

    what: str
    amount_minor: int


class ProrationView(View):
    """For the `left` of `whole` days or seconds of the period that the change leaves: `credit_minor` of the price on
    the subscription, `charge_minor` of the one it would get, and `net_minor` between them, below zero the customer's.

    Each is rounded once, to what can be paid; its lines add up to it.
    """

    subscription_id: UUID
    currency: str
    at: datetime
    period_start: datetime
    period_end: datetime
    by: By
    left: int
    whole: int
    credit_minor: int
    charge_minor: int
    net_minor: int
    credit_lines: list[ProratedLineView]
    charge_lines: list[ProratedLineView]
    old_breakdown: CostBreakdown
    new_breakdown: CostBreakdown


@router.post("/{subscription_id}/proration", dependencies=[SUBSCRIPTIONS_READ])
async def proration(
    subscription_id: UUID,
    body: ProrationRequest,
    session: Session,
    now: Now,
    settings: Configured,
) -> ProrationView:
    """Compute it.  Nothing is stored and nothing charged; FAREBOX_PRORATION says how time is counted."""
    counting = Counting(body.at or now, settings.farebox_proration, settings.time_zone)
    found = await prorated(session, subscription_id, body.change(), counting)
    return _view(subscription_id, found)


def _view(subscription_id: UUID, found: Prorated) -> ProrationView:
    window, money = found.window, found.money
    return ProrationView(
        subscription_id=subscription_id,
        currency=found.new.currency,
        at=window.at,
        period_start=window.start,
        period_end=window.end,
        by=window.by,
        left=money.left,
        whole=money.whole,
        credit_minor=money.credit_minor,
        charge_minor=money.charge_minor,
        net_minor=money.net_minor,
        credit_lines=[ProratedLineView.model_validate(line) for line in found.credited],
        charge_lines=[ProratedLineView.model_validate(line) for line in found.charged],
        old_breakdown=found.old,
        new_breakdown=found.new,
    )
