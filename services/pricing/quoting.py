"""What a box would cost somebody who subscribes to it, by the code that later prices it.  Nothing is stored."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer, choose, compose, numbers
from services.pricing.costs import Prices, current_prices
from services.pricing.domain import Box, cost, offered, place_of, priced_lines
from services.pricing.layers import NoPriceInForce, layers
from services.pricing.models import UserTier
from services.pricing.price_log import prices_then
from services.pricing.reprice import FIRST_TIER, TIER, newest
from services.pricing.scopes import Member
from services.pricing.subscriptions import UnknownAddress, UnknownUser
from shared.events import BoxLine, CostBreakdown, TierName
from shared.storefront import Address, User

# Of a subscription that there is not yet: no list names it.
NOBODY = UUID(int=0)


@dataclass(frozen=True)
class Basket:
    """What somebody would subscribe to, and what loyalty takes off each interval."""

    currency: str
    lines: tuple[BoxLine, ...]
    delivery_type: str
    place: str
    loyalty_discount_minor: int


@dataclass(frozen=True)
class Quoted:
    breakdown: CostBreakdown
    layers: tuple[Layer, ...]

    @property
    def price_version(self) -> int:
        """The one that its first cost line would be named after."""
        return newest(self.layers)


async def quote(
    session: AsyncSession, basket: Basket, tier: TierName, at: datetime, now: datetime
) -> Quoted:
    """What one billing interval costs whoever subscribes `at`: at the catalogue's prices then, or of today.

    Raises NoPriceInForce, UnknownVariant and what the cost rule raises.
    """
    in_force = (await layers(session)).in_force(at)
    if not any(layer.scope.everything for layer in in_force):
        raise NoPriceInForce(f"no price version is in force at {at.isoformat()}; publish one")
    variants = {line.variant_id for line in basket.lines}
    member = Member(
        *(NOBODY, basket.currency, basket.place, basket.delivery_type),
        *(frozenset(variants), tier, at),
    )
    on = choose(member, in_force, (), ())
    terms = compose(on)
    catalogue = (await _catalogue(session, variants, at, now)).get(basket.currency, {})
    prices = offered(terms, catalogue, basket.currency)
    box = Box(
        basket.currency,
        priced_lines(basket.lines, prices, basket.currency),
        basket.delivery_type,
        basket.place,
        basket.loyalty_discount_minor,
    )
    return Quoted(cost(terms, box, numbers(on)), on)


async def tier_of(session: AsyncSession, user_id: UUID | None) -> TierName:
    """A customer's tier as last heard; whoever is nobody yet has the first.  Raises UnknownUser."""
    if user_id is None:
        return FIRST_TIER
    if await session.get(User, user_id) is None:
        raise UnknownUser(f"there is no user {user_id}")
    tier = await session.scalar(select(UserTier.tier).where(UserTier.user_id == user_id))
    return FIRST_TIER if tier is None else TIER.validate_python(tier)


async def place_there(session: AsyncSession, address_id: UUID | None, user_id: UUID | None) -> str:
    """The place of an address, of this user where one is given.  Raises UnknownAddress."""
    statement = select(Address.country, Address.region).where(Address.id == address_id)
    if user_id is not None:
        statement = statement.where(Address.user_id == user_id)
    found = (await session.execute(statement)).one_or_none()
    if found is None:
        whose = f"user {user_id} has" if user_id else "there is"
        raise UnknownAddress(f"{whose} no address {address_id}")
    return place_of(found.country, found.region)


async def _catalogue(
    session: AsyncSession, variants: Collection[UUID], at: datetime, now: datetime
) -> Prices:
    """What is over is read from the log; what a variant will cost one day nobody knows but from today's price."""
    if at < now:
        return await prices_then(session, variants, at)
    return await current_prices(session, variants)
