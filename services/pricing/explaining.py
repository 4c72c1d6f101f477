"""What a subscription cost at an instant, as known at another: each component, where it came from and what caused it.

Read from the append-only history alone, so that the answer for a day that is over never changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import DateTime, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer, order_of
from services.pricing.layers import layers
from services.pricing.models import SubscriptionCostHistory
from services.pricing.recomputing import Composed, fault_of, versions_of
from services.pricing.scopes import LAST
from services.pricing.subscriptions import check_there
from shared.errors import Conflict, NotFound
from shared.events import ConfigPublished, CostBreakdown, VariantLine, derived_id

Part = Literal["variant", "fee", "delivery", "discount", "tax", "rounding"]


class NoCostKnown(NotFound):
    title = "No cost was known then"


class UnreadableLine(Conflict):
    title = "This line of the cost history cannot be read"


@dataclass(frozen=True)
class Component:
    """One line of the document, in minor units; the amounts of all add up to the total.

    `price_version` is the version that says it; none where none does: a variant at the catalogue's price or at the
    one it carries, a customer's discount.  `cause_id` is the event or request that brought it: of what a version
    says its publication.  Tax that the prices include is told, and adds nothing.
    """

    part: Part
    amount_minor: int
    detail: str
    price_version: int | None = None
    variant_id: UUID | None = None
    cause_id: str | None = None


@dataclass(frozen=True)
class Caused:
    """An event or a request: `type` and `occurred_at` where it is an event that pricing itself published."""

    id: str
    type: str | None = None
    occurred_at: datetime | None = None


@dataclass(frozen=True)
class Explained:
    """A line of the history, taken apart.  `fault`: why computing it again from what it names gives another cost."""

    line: SubscriptionCostHistory
    breakdown: CostBreakdown
    price_versions: tuple[int, ...]
    components: tuple[Component, ...]
    causes: tuple[Caused, ...]
    fault: str | None
    canceled_at: datetime | None  # where that was before

    @property
    def recomputed(self) -> bool:
        return self.fault is None


async def explain(
    session: AsyncSession, subscription_id: UUID, at: datetime, as_known_at: datetime
) -> Explained:
    """`as_known_at` LAST: as it is known by now.

    Raises SubscriptionNotFound, NoCostKnown, UnreadableLine.
    """
    moments = {"subscription": subscription_id, "at": at, "known": as_known_at}
    line = await session.scalar(_LINE, moments)
    if line is None:
        await check_there(session, subscription_id)
        then = "is known" if as_known_at == LAST else f"was known at {as_known_at.isoformat()}"
        raise NoCostKnown(
            f"of subscription {subscription_id} no cost in effect at {at.isoformat()} {then}"
        )
    try:
        said = CostBreakdown.model_validate(line.new_breakdown)
    except ValidationError as error:
        raise UnreadableLine(f"line {line.id} holds no cost", cost_history_id=line.id) from error
    versions = versions_of(line, said)
    known = (await layers(session)).all
    # Whatever the line names: what it says is told even where it is wrong.
    on = sorted((known[n] for n in versions if n in known), key=order_of)
    brought = await _brought(session, line)
    return Explained(
        line=line,
        breakdown=said,
        price_versions=versions,
        components=components(said, on, brought),
        causes=await _causes(session, [line.cause_id, *brought.values()], versions),
        fault=fault_of(line, Composed(known)),
        canceled_at=await session.scalar(_CANCELED, moments),
    )


def components(
    said: CostBreakdown, on: Sequence[Layer], brought: Mapping[str, str]
) -> tuple[Component, ...]:
    """`on` in order: the last that says something is where it comes from.  `brought`: by variant, and of
    delivery and discount, what they came with.  Pure."""
    fee = _last(on, lambda layer: layer.changes.admin_percentage is not None)
    delivery, tax = _delivery_of(said, on), _tax_of(said, on)
    percent = f"{said.admin_percentage} % of {said.subtotal_minor}"
    parts = [
        *_variants(said, on, brought),
        Component("fee", said.fee_minor, percent, fee, None, publication(fee)),
        Component(
            *("delivery", said.delivery_minor, said.delivery_type),
            *(delivery, None, publication(delivery)),
        ),
        Component("discount", _discount(said), "loyalty", cause_id=brought.get("discount")),
        Component(
            *("tax", 0 if said.tax_inclusive else said.tax_minor, _tax_said(said, on)),
            *(tax, None, publication(tax)),
        ),
        Component("rounding", said.rounding_minor, "to an amount that can be paid"),
    ]
    return tuple(part for part in parts if part.amount_minor or part.part in ("variant", "tax"))


def publication(version: int | None) -> str | None:
    """The id of the event that published a version."""
    return None if version is None else str(derived_id(ConfigPublished.type, version))


def _variants(
    said: CostBreakdown, on: Sequence[Layer], brought: Mapping[str, str]
) -> list[Component]:
    return [
        Component(
            "variant",
            line.unit_price_minor * line.quantity,
            f"{line.quantity} × {line.unit_price_minor}",
            _last(on, partial(_names, currency=said.currency, line=line)),
            line.variant_id,
            brought.get(str(line.variant_id)),
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


def _tax_said(said: CostBreakdown, on: Sequence[Layer]) -> str:
    rate = f"{said.tax_rate} in {said.place}, on {said.taxable_minor}"
    if not said.tax_inclusive:
        return rate
    by = _last(on, lambda layer: layer.changes.tax_inclusive is not None)
    return f"{rate}: {said.tax_minor} included in the prices, as version {by} says"


def _discount(said: CostBreakdown) -> int:
    """What the discount took off, never more than there was."""
    before = said.subtotal_minor + said.fee_minor + said.delivery_minor
    return -min(said.loyalty_discount_minor, before)


def _last(on: Sequence[Layer], says: Callable[[Layer], bool]) -> int | None:
    return next((layer.number for layer in reversed(on) if says(layer)), None)


async def _brought(session: AsyncSession, line: SubscriptionCostHistory) -> Mapping[str, str]:
    """What brought the box, the delivery and the discount that the line is about."""
    values = {"subscription": line.subscription_id, "line": line.id}
    return {row.part: row.cause_id for row in await session.execute(_BROUGHT, values)}


async def _causes(
    session: AsyncSession, others: Sequence[str], versions: Sequence[int]
) -> tuple[Caused, ...]:
    """What the line and its parts came with, then each version's publication."""
    published = [str(derived_id(ConfigPublished.type, number)) for number in versions]
    ids = list(dict.fromkeys([*others, *published]))
    rows = await session.execute(_PUBLISHED, {"ids": ids})
    known = {row.id: Caused(row.id, row.type, row.occurred_at) for row in rows}
    return tuple(known.get(each, Caused(each)) for each in ids)


# The newest, by when it was written.  A rollout that is late moves a subscription since before its customer changed
# something: until then it cost what it did, for the box of then.
_OF_LINE = text("""
SELECT h.* FROM subscription_cost_history h
WHERE h.subscription_id = :subscription AND h.effective_at <= :at AND h.recorded_at <= :known
    AND NOT (h.kind IN ('config', 'revert') AND EXISTS (SELECT FROM subscription_cost_history own
        WHERE own.subscription_id = h.subscription_id AND own.id < h.id
        AND own.kind NOT IN ('config', 'revert') AND own.effective_at > :at))
ORDER BY h.id DESC LIMIT 1
""")
_LINE = select(SubscriptionCostHistory).from_statement(
    _OF_LINE.bindparams(
        bindparam("at", type_=DateTime(timezone=True)),
        bindparam("known", type_=DateTime(timezone=True)),
    )
)
_CANCELED = text("""
SELECT canceled_at FROM public.subscriptions
WHERE id = :subscription AND canceled_at <= :at AND canceled_at <= :known
""")
# The newest line up to this one that says otherwise than the one before it.
_BROUGHT = text("""
WITH parts (n, part, line) AS (
    SELECT v.n, v.line ->> 'variant_id', v.line FROM subscription_cost_history s
    CROSS JOIN LATERAL jsonb_array_elements(s.new_breakdown -> 'variants') WITH ORDINALITY AS v (line, n)
    WHERE s.id = :line
    UNION ALL VALUES (1000, 'delivery', NULL::jsonb), (1001, 'discount', NULL)
)
SELECT p.part, l.cause_id
FROM parts p CROSS JOIN LATERAL (
    SELECT h.cause_id FROM subscription_cost_history h
    WHERE h.subscription_id = :subscription AND h.id <= :line AND CASE p.part
        WHEN 'delivery' THEN (h.new_breakdown -> 'delivery_type', h.new_breakdown -> 'place')
            IS DISTINCT FROM (h.old_breakdown -> 'delivery_type', h.old_breakdown -> 'place')
        WHEN 'discount' THEN coalesce(h.new_breakdown ->> 'loyalty_discount_minor', '0')
            <> coalesce(h.old_breakdown ->> 'loyalty_discount_minor', '0')
        ELSE NOT coalesce(h.old_breakdown -> 'variants' @> jsonb_build_array(p.line), false) END
    ORDER BY h.id DESC LIMIT 1) l
ORDER BY p.n
""")
_PUBLISHED = text("""
SELECT o.id::text AS id, o.type, (o.payload ->> 'occurred_at')::timestamptz AS occurred_at
FROM outbox o JOIN unnest(CAST(:ids AS text[])) AS named (id) ON o.id = (CASE
    WHEN named.id ~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN named.id::uuid END)
""")
