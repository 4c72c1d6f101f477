"""What a variant was sold for, read from the catalogue's log and the versions for everything."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.costs import Prices
from services.pricing.lowest import (
    Named,
    NoPriceKnown,
    Noted,
    Span,
    Window,
    lowest,
    price_at,
    reduced_since,
)
from services.pricing.lowest import timeline as timeline_of
from services.pricing.models import CataloguePrice
from shared.errors import NotFound
from shared.storefront import ProductVariant

# Lines of the log looked through for the beginning of the price that is in force: the newest say it.
NEWEST = 100


class VariantNotFound(NotFound):
    title = "There is no such product variant"


@dataclass(frozen=True)
class Asked:
    """`at`: when a reduction begins; None: when the one that runs `now` began, else now."""

    at: datetime | None
    now: datetime
    zone: ZoneInfo


@dataclass(frozen=True)
class LowestPrice:
    """`known_since`: when the log of this variant's prices in this currency begins."""

    window: Window
    found: Span
    known_since: datetime
    price_minor: int | None  # in force when the window ends


async def lowest_price(
    session: AsyncSession, variant_id: UUID, currency: str, asked: Asked
) -> LowestPrice:
    """Raises VariantNotFound, NoPriceKnown."""
    at = asked.at or await _running_since(session, variant_id, currency, asked.now) or asked.now
    window = Window.before(at, asked.zone)
    named = await _named(session, variant_id, currency, window.at)
    first = await _first_noted(session, variant_id, currency)
    known = [version.since for version in named] + ([first] if first else [])
    if not known and await session.get(ProductVariant, variant_id) is None:
        raise VariantNotFound(f"there is no product variant {variant_id}")
    if not known or min(known) >= window.at:
        raise NoPriceKnown(
            f"variant {variant_id} had no known price in {currency} before {window.at.isoformat()}"
        )
    spans = timeline_of(await _noted(session, variant_id, window), named, currency)
    return LowestPrice(window, lowest(spans, window), min(known), price_at(spans, window.at))


async def _running_since(
    session: AsyncSession, variant_id: UUID, currency: str, now: datetime
) -> datetime | None:
    """When the reduction that runs now began."""
    line = CataloguePrice
    statement = (
        select(line.effective_at, line.currency, line.price_minor)
        .where(line.variant_id == variant_id, line.effective_at <= now)
        .order_by(line.effective_at.desc(), line.id.desc())
        .limit(NEWEST)
    )
    noted = [Noted(*row) for row in await session.execute(statement)][::-1]
    named = await _named(session, variant_id, currency, now)
    return reduced_since(timeline_of(noted, named, currency), now)


async def prices_then(session: AsyncSession, variants: Collection[UUID], at: datetime) -> Prices:
    """What the storefront asked for these variants then, as far back as the log reaches."""
    line = CataloguePrice
    statement = (
        select(line.currency, line.variant_id, line.price_minor)
        .ext(distinct_on(line.variant_id))
        .where(line.variant_id.in_(variants), line.effective_at <= at)
        .order_by(line.variant_id, line.effective_at.desc(), line.id.desc())
    )
    prices: dict[str, dict[UUID, int]] = {}
    for currency, variant_id, price_minor in await session.execute(statement):
        prices.setdefault(currency, {})[variant_id] = price_minor
    return prices


async def _noted(session: AsyncSession, variant_id: UUID, window: Window) -> list[Noted]:
    """The lines of the window and the one before it, which was in force when it began."""
    line = CataloguePrice
    opening = (
        select(func.max(line.effective_at))
        .where(line.variant_id == variant_id, line.effective_at <= window.since)
        .scalar_subquery()
    )
    statement = (
        select(line.effective_at, line.currency, line.price_minor)
        .where(
            line.variant_id == variant_id,
            line.effective_at >= func.coalesce(opening, window.since),
            line.effective_at <= window.at,
        )
        .order_by(line.effective_at, line.id)
    )
    return [Noted(*row) for row in await session.execute(statement)]


async def _first_noted(session: AsyncSession, variant_id: UUID, currency: str) -> datetime | None:
    line = CataloguePrice
    statement = select(func.min(line.effective_at)).where(
        line.variant_id == variant_id, line.currency == currency
    )
    return await session.scalar(statement)


async def _named(
    session: AsyncSession, variant_id: UUID, currency: str, at: datetime
) -> list[Named]:
    values = {"currency": currency, "variant": str(variant_id), "at": at}
    return [Named(*row) for row in await session.execute(_NAMED, values)]


_NAMED = text("""
SELECT version, effective_from, effective_to, price_minor
FROM (
    SELECT *, (variant_prices_minor -> CAST(:currency AS text) ->> CAST(:variant AS text))::bigint AS price_minor
    FROM pricing_configs
    WHERE scope_id = 1 AND status IN ('scheduled', 'active', 'retired') AND effective_from <= :at
) v
WHERE price_minor IS NOT NULL ORDER BY effective_from
""")
