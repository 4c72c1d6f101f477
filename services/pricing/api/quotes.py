"""Quotes over HTTP: what a box would cost, by the same rule that later bills it."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictInt, model_validator

from services.pricing.api.access import PRICING_READ
from services.pricing.api.shapes import Input, Instant, Lines, View, box_lines
from services.pricing.domain import MAX_AMOUNT_MINOR
from services.pricing.fields import CurrencyCode, DeliveryType, Place
from services.pricing.quoting import Basket, place_there, quote, tier_of
from shared.events import CostBreakdown, TierName
from shared.web import Now, Session

router = APIRouter(prefix="/quotes", tags=["quotes"])

LoyaltyDiscount = Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class QuoteRequest(Input):
    """A box, how it is delivered, and where to: a place, or an address the storefront knows.

    With `user_id` the customer's tier counts, and an address must be his.
    """

    currency: CurrencyCode
    variants: Lines
    delivery_type: DeliveryType
    place: Place | None = None
    delivery_address_id: UUID | None = None
    user_id: UUID | None = None
    loyalty_discount_minor: LoyaltyDiscount = 0
    at: Instant | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.place is None) == (self.delivery_address_id is None):
            raise ValueError("say either place or delivery_address_id")
        return self


class Quote(View):
    """What one billing interval costs whoever subscribes `at`, as a customer of `tier`, and by which versions.

    `price_versions` in the order in which they are laid over each other, `price_version` the newest of them.
    """

    price_version: int
    price_versions: list[int]
    at: datetime
    tier: TierName
    breakdown: CostBreakdown


@router.post("", dependencies=[PRICING_READ])
async def compute(body: QuoteRequest, session: Session, now: Now) -> Quote:
    """Compute a cost.  Nothing is stored; unit prices are those of `at`, of today where that is to come."""
    at = body.at or now
    tier = await tier_of(session, body.user_id)
    basket = Basket(
        body.currency,
        box_lines(body.variants),
        body.delivery_type,
        body.place or await place_there(session, body.delivery_address_id, body.user_id),
        body.loyalty_discount_minor,
    )
    found = await quote(session, basket, tier, at, now)
    return Quote(
        price_version=found.price_version,
        price_versions=list(found.breakdown.price_versions),
        at=at,
        tier=tier,
        breakdown=found.breakdown,
    )
