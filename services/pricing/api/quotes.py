"""Quotes over HTTP: what a box would cost, by the same rule that later bills it."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, StrictInt, model_validator
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.api.access import PRICING_READ
from services.pricing.api.shapes import Input, Instant, Lines, View, box_lines
from services.pricing.composition import compose, numbers
from services.pricing.costs import current_prices
from services.pricing.domain import MAX_AMOUNT_MINOR, Box, cost, offered, place_of, priced_lines
from services.pricing.fields import CurrencyCode, DeliveryType, Place
from services.pricing.layers import NoPriceInForce, layers
from services.pricing.subscriptions import UnknownAddress
from shared.events import CostBreakdown
from shared.storefront import Address
from shared.web import Now, Session

router = APIRouter(prefix="/quotes", tags=["quotes"])


class QuoteRequest(Input):
    """A box, how it is delivered, and where to: a place, or an address the storefront knows."""

    currency: CurrencyCode
    variants: Lines
    delivery_type: DeliveryType
    place: Place | None = None
    delivery_address_id: UUID | None = None
    loyalty_discount_minor: Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT_MINOR)] = 0
    at: Instant | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.place is None) == (self.delivery_address_id is None):
            raise ValueError("say either place or delivery_address_id")
        return self


class Quote(View):
    """What one billing interval costs at `at`, and by which price version."""

    price_version: int
    at: datetime
    breakdown: CostBreakdown


@router.post("", dependencies=[PRICING_READ])
async def quote(body: QuoteRequest, session: Session, now: Now) -> Quote:
    """Compute a cost.  Nothing is stored; unit prices are the current ones."""
    at = body.at or now
    whole = [each for each in (await layers(session)).in_force(at) if each.scope.everything]
    if not whole:
        raise NoPriceInForce(f"no price version is in force at {at.isoformat()}; publish one")
    terms = compose(whole)
    prices = await current_prices(session, {line.variant_id for line in body.variants})
    box = Box(
        body.currency,
        priced_lines(
            box_lines(body.variants),
            offered(terms, prices.get(body.currency, {}), body.currency),
            body.currency,
        ),
        body.delivery_type,
        body.place or await _place(session, body.delivery_address_id),
        body.loyalty_discount_minor,
    )
    return Quote(price_version=whole[0].number, at=at, breakdown=cost(terms, box, numbers(whole)))


async def _place(session: AsyncSession, address_id: UUID | None) -> str:
    statement = select(Address.country, Address.region).where(Address.id == address_id)
    found = (await session.execute(statement)).one_or_none()
    if found is None:
        raise UnknownAddress(f"there is no address {address_id}")
    return place_of(found.country, found.region)
