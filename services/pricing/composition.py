"""Price versions laid over each other: the one for everything, then each cohort's, in a stated order.  Pure.

The order is that of (effective_from, number) after the version for everything.  What a later one says overrides
what an earlier one said, entry by entry; what it leaves out is unchanged: none of several changes is lost.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from services.pricing.domain import Terms
from services.pricing.scopes import Member, Scope
from shared.errors import Conflict


class NothingToBuildOn(Conflict):
    title = "There is no price version for everything to build on"


class TwoOfOneScope(Conflict):
    title = "A subscription is priced by one version of a scope"


@dataclass(frozen=True)
class Changes:
    """What one version says; empty or None: it leaves that as it is."""

    admin_percentage: Decimal | None = None
    delivery_cost_minor: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    tax_rates: Mapping[str, Decimal] = field(default_factory=dict)
    tax_inclusive: frozenset[str] | None = None  # the whole list of places
    variant_prices: Mapping[str, Mapping[UUID, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One version as part of what a subscription is priced by."""

    number: int
    effective_from: datetime
    scope_id: int
    scope: Scope
    changes: Changes


def order_of(layer: Layer) -> tuple[bool, datetime, int]:
    """The version for everything first, then cohorts' by (effective_from, number)."""
    return not layer.scope.everything, layer.effective_from, layer.number


def in_order(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """As `order_of` says.

    Raises NothingToBuildOn, TwoOfOneScope.
    """
    ordered = sorted(layers, key=order_of)
    if not ordered or not ordered[0].scope.everything:
        raise NothingToBuildOn("no price version for everything is among them")
    numbers = {layer.scope_id: layer.number for layer in ordered}
    for layer in ordered:
        if layer.number != numbers[layer.scope_id]:
            raise TwoOfOneScope(
                f"price versions {layer.number} and {numbers[layer.scope_id]} are of the same scope",
                scope_id=layer.scope_id,
            )
    return tuple(ordered)


def compose(layers: Iterable[Layer]) -> Terms:
    """What the layers amount to, in whatever order they come.

    Raises NothingToBuildOn (also where no layer says a percentage), TwoOfOneScope.
    """
    percentage: Decimal | None = None
    delivery: dict[str, dict[str, int]] = {}
    rates: dict[str, Decimal] = {}
    inclusive = frozenset[str]()
    prices: dict[str, dict[UUID, int]] = {}
    for layer in in_order(layers):
        said = layer.changes
        if said.admin_percentage is not None:
            percentage = said.admin_percentage
        if said.tax_inclusive is not None:
            inclusive = said.tax_inclusive
        for currency, types in said.delivery_cost_minor.items():
            delivery[currency] = {**delivery.get(currency, {}), **types}
        for currency, variants in said.variant_prices.items():
            prices[currency] = {**prices.get(currency, {}), **variants}
        rates |= said.tax_rates
    if percentage is None:
        raise NothingToBuildOn("the price version for everything has no percentage")
    return Terms(percentage, delivery, rates, inclusive, prices)


def numbers(layers: Iterable[Layer]) -> tuple[int, ...]:
    """`CostBreakdown.price_versions` of a cost computed from these layers."""
    return tuple(layer.number for layer in in_order(layers))


def choose(
    member: Member, in_force: Collection[Layer], on: Iterable[Layer], held: Collection[int]
) -> tuple[Layer, ...]:
    """What a subscription is priced by when its customer changes something.

    Of each scope that covers it: the version in force, unless one of `held` — the versions whose rollouts keep it
    where it is — then the version of that scope it is on, if any.  Scopes that cover it no more fall away.
    """
    before = {layer.scope_id: layer for layer in on}
    chosen = list[Layer]()
    for layer in in_force:
        if not layer.scope.covers(member):
            continue
        if layer.number not in held:
            chosen.append(layer)
        elif layer.scope_id in before:
            chosen.append(before[layer.scope_id])
    if not any(layer.scope.everything for layer in chosen):
        # Held back from the first version there is: nothing older to stay on.
        chosen += [layer for layer in in_force if layer.scope.everything]
    return in_order(chosen)
