"""What a subscription cost at an instant, as known at another: each component, where it came from and what caused it.

Read from the append-only history alone, so that the answer for a day that is over never changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer, compose, in_order
from services.pricing.domain import Box, cost, same_cents
from services.pricing.layers import layers
from services.pricing.models import SubscriptionCostHistory
from shared.errors import NotFound
from shared.events import ConfigPublished, CostBreakdown, VariantLine, derived_id

Part = Literal["variant", "fee", "delivery", "discount", "tax", "rounding"]


class NoCostKnown(NotFound):
    title = "No cost was known then"


@dataclass(frozen=True)
class Component:
    """One line of the document, in minor units; the amounts of all add up to the total.

    `price_version` is the version that says it; none where none does: a variant at the catalogue's price or at the
    one it carries, a customer's discount.  Tax that the prices include is told, and adds nothing.
    """

    part: Part
    amount_minor: int
    detail: str
    price_version: int | None = None
    variant_id: UUID | None = None


@dataclass(frozen=True)
class Caused:
    """An event or a request: `type` and `occurred_at` where it is an event that pricing itself published."""

    id: str
    type: str | None = None
    occurred_at: datetime | None = None


@dataclass(frozen=True)
class Explained:
    """A line of the history, taken apart.  `recomputed`: computing it again from what it names gives its cents."""

    line: SubscriptionCostHistory
    breakdown: CostBreakdown
    price_versions: tuple[int, ...]
    components: tuple[Component, ...]
    causes: tuple[Caused, ...]
    recomputed: bool


async def explain(
    session: AsyncSession, subscription_id: UUID, at: datetime, as_known_at: datetime
) -> Explained:
    """Raises NoCostKnown."""
    statement = (
        select(SubscriptionCostHistory)
        .where(
            SubscriptionCostHistory.subscription_id == subscription_id,
            SubscriptionCostHistory.effective_at <= at,
            SubscriptionCostHistory.recorded_at <= as_known_at,
        )
        .order_by(SubscriptionCostHistory.id.desc())
        .limit(1)
    )
    line = await session.scalar(statement)
    if line is None:
        raise NoCostKnown(
            f"of subscription {subscription_id} no cost in effect at {at.isoformat()} was known"
            f" at {as_known_at.isoformat()}"
        )
    said = CostBreakdown.model_validate(line.new_breakdown)
    # Lines of the first releases name one version, which was all there was.
    versions = said.price_versions or (line.price_version,)
    known = (await layers(session)).all
    on = in_order(known[number] for number in versions)
    return Explained(
        line=line,
        breakdown=said,
        price_versions=versions,
        components=components(said, on),
        causes=await _causes(session, line.cause_id, versions),
        recomputed=same_cents(said, again(said, on)),
    )


def again(said: CostBreakdown, on: Sequence[Layer]) -> CostBreakdown:
    """The cost computed once more, from the versions it names and the box it is about."""
    box = Box(
        said.currency,
        said.variants,
        said.delivery_type,
        said.place,
        said.loyalty_discount_minor,
    )
    return cost(compose(on), box)


def components(said: CostBreakdown, on: Sequence[Layer]) -> tuple[Component, ...]:
    """`on` in order: the last that says something is where it comes from.  Pure."""
    tax = said.tax_minor
    parts = [
        *_variants(said, on),
        Component(
            "fee",
            said.fee_minor,
            f"{said.admin_percentage} % of {said.subtotal_minor}",
            _last(on, lambda layer: layer.changes.admin_percentage is not None),
        ),
        Component("delivery", said.delivery_minor, said.delivery_type, _delivery_of(said, on)),
        Component("discount", _discount(said), "loyalty"),
        Component(
            "tax",
            0 if said.tax_inclusive else tax,
            f"{said.tax_rate} in {said.place}, on {said.taxable_minor}"
            + (f": {tax} included in the prices" if said.tax_inclusive else ""),
            _tax_of(said, on),
        ),
        Component("rounding", said.rounding_minor, "to an amount that can be paid"),
    ]
    return tuple(part for part in parts if part.amount_minor or part.part in ("variant", "tax"))


def _variants(said: CostBreakdown, on: Sequence[Layer]) -> list[Component]:
    return [
        Component(
            "variant",
            line.unit_price_minor * line.quantity,
            f"{line.quantity} × {line.unit_price_minor}",
            _last(on, partial(_names, currency=said.currency, line=line)),
            line.variant_id,
        )
        for line in said.variants
    ]


def _names(layer: Layer, currency: str, line: VariantLine) -> bool:
    prices = layer.changes.variant_prices.get(currency, {})
    return prices.get(line.variant_id) == line.unit_price_minor


def _delivery_of(said: CostBreakdown, on: Sequence[Layer]) -> int | None:
    return _last(
        on,
        lambda layer: (
            said.delivery_type in layer.changes.delivery_cost_minor.get(said.currency, {})
        ),
    )


def _tax_of(said: CostBreakdown, on: Sequence[Layer]) -> int | None:
    """The place's own rate where any layer has one, else its country's."""
    country = said.place.partition("-")[0]
    own = _last(on, lambda layer: said.place in layer.changes.tax_rates)
    return own or _last(on, lambda layer: country in layer.changes.tax_rates)


def _discount(said: CostBreakdown) -> int:
    """What the discount took off, never more than there was."""
    before = said.subtotal_minor + said.fee_minor + said.delivery_minor
    return -min(said.loyalty_discount_minor, before)


def _last(on: Sequence[Layer], says: Callable[[Layer], bool]) -> int | None:
    return next((layer.number for layer in reversed(on) if says(layer)), None)


async def _causes(
    session: AsyncSession, cause_id: str, versions: Sequence[int]
) -> tuple[Caused, ...]:
    """What the line came with, then each version's publication."""
    published = [str(derived_id(ConfigPublished.type, number)) for number in versions]
    ids = list(dict.fromkeys([cause_id, *published]))
    known = await _events(session, ids)
    return tuple(known.get(each, Caused(each)) for each in ids)


async def _events(session: AsyncSession, ids: Sequence[str]) -> Mapping[str, Caused]:
    rows = await session.execute(_PUBLISHED, {"ids": list(ids)})
    return {row.id: Caused(row.id, row.type, row.occurred_at) for row in rows}


_PUBLISHED = text("""
SELECT o.id::text AS id, o.type, (o.payload ->> 'occurred_at')::timestamptz AS occurred_at
FROM outbox o JOIN unnest(CAST(:ids AS text[])) AS named (id) ON o.id = (CASE
    WHEN named.id ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN named.id::uuid END)
""")
