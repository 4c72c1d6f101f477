"""What a box costs and how long a billing interval is.  Pure: no database, no clock, no settings.

    subtotal = Σ unit price × quantity
    fee      = subtotal × admin percentage
    taxable  = subtotal + fee + delivery − loyalty discount, not below zero
    tax      = taxable × rate of the delivery address's place
    total    = taxable + tax, and a rounding line where a currency cannot be paid to the minor unit

Where prices include the tax, gross is what is called taxable above; tax = gross × rate / (1 + rate) is taken out
of it, taxable = gross − tax, and the total is gross.  Each line is rounded once, half-even, and is a whole number of minor units: the lines add up to the total.
"""

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeVar, assert_never
from uuid import UUID

from shared.errors import Conflict, InvalidInput
from shared.events import (
    BillingInterval,
    BoxLine,
    CostBreakdown,
    SubscriptionStatus,
    VariantLine,
)
from shared.money import round_minor, round_payable

# The largest integer that every JSON reader holds exactly; PostgreSQL's bigint is far above it.
MAX_AMOUNT_MINOR = 2**53 - 1

Action = Literal["pause", "resume", "cancel"]
Line = TypeVar("Line", BoxLine, VariantLine)
CostKind = Literal["created", "variants", "delivery", "config", "discount", "revert"]


class NoDeliveryCost(InvalidInput):
    title = "No delivery cost is configured for this"


class NoTaxRate(InvalidInput):
    title = "No tax rate is configured for this place"


class UnknownVariant(InvalidInput):
    title = "There is no such product variant in this currency"


class DiscountBelowZero(InvalidInput):
    title = "A loyalty discount cannot be negative"


class AmountTooLarge(InvalidInput):
    title = "The amount is larger than farebox bills"


class NotInThisState(Conflict):
    title = "The subscription is not in a state for this"


@dataclass(frozen=True)
class Terms:
    """What an administrator decides: percentage, delivery costs, taxes and prices, of one version or several."""

    admin_percentage: Decimal  # 10 is 10 %
    delivery_cost_minor: Mapping[str, Mapping[str, int]]  # currency -> delivery type -> cost
    tax_rates: Mapping[str, Decimal]  # place -> fraction: 0.19 is 19 %
    tax_inclusive: frozenset[str] = frozenset()  # places whose prices include the tax
    # currency -> variant -> unit price; a variant that is missing costs what the storefront's catalogue says
    variant_prices: Mapping[str, Mapping[UUID, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """What a customer decides: what is delivered, how and where to, and what loyalty takes off."""

    currency: str
    variants: tuple[VariantLine, ...]
    delivery_type: str
    place: str  # of the delivery address: "US-CA" or "DE"
    loyalty_discount_minor: int = 0


def cost(terms: Terms, box: Box, price_versions: tuple[int, ...] = ()) -> CostBreakdown:
    """What one billing interval of `box` costs under `terms`, which those versions make up.

    Raises NoDeliveryCost, NoTaxRate, DiscountBelowZero, AmountTooLarge.
    """
    if box.loyalty_discount_minor < 0:
        raise DiscountBelowZero(f"the loyalty discount is {box.loyalty_discount_minor}")
    discount = _billable(box.loyalty_discount_minor)
    delivery = delivery_cost(terms, box.currency, box.delivery_type)
    rate = tax_rate(terms, box.place)
    inclusive = tax_included(terms, box.place)
    subtotal = _billable(sum(line.unit_price_minor * line.quantity for line in box.variants))
    fee = round_minor(subtotal * terms.admin_percentage / 100)
    due = _billable(max(0, subtotal + fee + delivery - discount))
    tax = round_minor(due * rate / (1 + rate)) if inclusive else round_minor(due * rate)
    taxable = due - tax if inclusive else due
    total = _billable(round_payable(taxable + tax, box.currency))
    return CostBreakdown(
        currency=box.currency,
        variants=box.variants,
        subtotal_minor=subtotal,
        admin_percentage=terms.admin_percentage,
        fee_minor=fee,
        delivery_type=box.delivery_type,
        delivery_minor=delivery,
        loyalty_discount_minor=discount,
        taxable_minor=taxable,
        place=box.place,
        tax_rate=rate,
        tax_minor=tax,
        total_minor=total,
        price_versions=price_versions,
        tax_inclusive=inclusive,
        rounding_minor=total - taxable - tax,
    )


def delivery_cost(terms: Terms, currency: str, delivery_type: str) -> int:
    types = terms.delivery_cost_minor.get(currency)
    if types is None:
        raise NoDeliveryCost(
            f"no delivery cost is configured for {currency}; publish a configuration that has it",
            currency=currency,
            configured=sorted(terms.delivery_cost_minor),
        )
    if delivery_type not in types:
        raise NoDeliveryCost(
            f"{currency} has no delivery type {delivery_type!r}; it has {', '.join(sorted(types))}",
            currency=currency,
            delivery_type=delivery_type,
            configured=sorted(types),
        )
    return types[delivery_type]


def tax_rate(terms: Terms, place: str) -> Decimal:
    """The rate of `place`, or of its country where the region has none of its own."""
    for candidate in _wider(place):
        if candidate in terms.tax_rates:
            return terms.tax_rates[candidate]
    choice = " or ".join(dict.fromkeys(_wider(place)))
    raise NoTaxRate(
        f"no tax rate is configured for {choice}; publish a configuration that has it (0 for untaxed)",
        place=place,
    )


def tax_included(terms: Terms, place: str) -> bool:
    """Whether prices in `place` include its tax: it is listed, or its country is."""
    return not terms.tax_inclusive.isdisjoint(_wider(place))


def place_of(country: str, region: str | None) -> str:
    """`US-CA` where the address names a region, else `DE`."""
    return f"{country}-{region.strip().upper()}" if region and region.strip() else country


def priced_lines(
    lines: Iterable[BoxLine], prices: Mapping[UUID, int], currency: str
) -> tuple[VariantLine, ...]:
    """Lines at the unit price they carry, else at the current price in `prices`.

    Raises UnknownVariant.
    """
    return tuple(
        VariantLine(
            variant_id=line.variant_id,
            quantity=line.quantity,
            unit_price_minor=_unit_price(line, prices, currency),
        )
        for line in lines
    )


def offered(terms: Terms, catalogue: Mapping[UUID, int], currency: str) -> Mapping[UUID, int]:
    """What variants sell for to whoever `terms` are for: their price, else the catalogue's."""
    named = terms.variant_prices.get(currency)
    return {**catalogue, **named} if named else catalogue


def moved_lines(lines: Iterable[Line], named: Mapping[UUID, int]) -> tuple[Line, ...]:
    """Lines as a version leaves them that names these prices: others keep the price they carry."""
    return tuple(
        line.model_copy(update={"unit_price_minor": named[line.variant_id]})
        if line.variant_id in named
        else line
        for line in lines
    )


def kind_of_change(old: CostBreakdown | None, new: Box) -> CostKind | None:
    """Which of the customer's inputs differ from those `old` was computed from; None: none does."""
    if old is None:
        return "created"
    if (old.currency, old.variants) != (new.currency, new.variants):
        return "variants"
    if (old.delivery_type, old.place) != (new.delivery_type, new.place):
        return "delivery"
    if old.loyalty_discount_minor != new.loyalty_discount_minor:
        return "discount"
    return None


def same_cents(old: CostBreakdown, new: CostBreakdown) -> bool:
    """Whether every line is the same money, whatever percentages led to it."""
    return old.variants == new.variants and _cents(old) == _cents(new)


def end_of_period(anchor: datetime, interval: BillingInterval, number: int = 1) -> datetime:
    """When the `number`-th billing interval since `anchor` ends.

    Months are the calendar's, counted from the anchor: 31 January, 28 February, 31 March.
    """
    match interval:
        case "week":
            return anchor + timedelta(weeks=number)
        case "month":
            return _months_later(anchor, number)
        case "quarter":
            return _months_later(anchor, 3 * number)
        case "year":
            return _months_later(anchor, 12 * number)
        case _:
            assert_never(interval)


def status_after(action: Action, status: SubscriptionStatus) -> SubscriptionStatus:
    """Raises NotInThisState: what is canceled stays so, and nothing is paused twice."""
    match (action, status):
        case ("pause", "active"):
            return "paused"
        case ("resume", "paused"):
            return "active"
        case ("cancel", "active" | "paused"):
            return "canceled"
        case _:
            raise NotInThisState(
                f"cannot {action} it: the subscription is {status}",
                action=action,
                subscription_status=status,
            )


def plain(number: Decimal) -> Decimal:
    """`10.0000` as `10`, `0.190000` as `0.19`: one way to write a number, whoever stored it."""
    whole, _, fraction = f"{number:f}".partition(".")
    return Decimal(f"{whole}.{fraction.rstrip('0')}".rstrip("."))


def _wider(place: str) -> tuple[str, str]:
    """A place and its country, which may be the same."""
    return place, place.partition("-")[0]


def _cents(breakdown: CostBreakdown) -> dict[str, object]:
    """The currency and whatever is counted in its minor units."""
    lines = breakdown.model_dump().items()
    return {name: value for name, value in lines if name == "currency" or name.endswith("_minor")}


def _months_later(anchor: datetime, months: int) -> datetime:
    years, month = divmod(anchor.month - 1 + months, 12)
    year = anchor.year + years
    last_day = calendar.monthrange(year, month + 1)[1]
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, last_day))


def _unit_price(line: BoxLine, prices: Mapping[UUID, int], currency: str) -> int:
    if line.unit_price_minor is not None:
        return line.unit_price_minor
    if line.variant_id not in prices:
        raise UnknownVariant(
            f"no product variant {line.variant_id} has a price in {currency}",
            variant_id=str(line.variant_id),
            currency=currency,
        )
    return prices[line.variant_id]


def _billable(amount_minor: int) -> int:
    if amount_minor > MAX_AMOUNT_MINOR:
        raise AmountTooLarge(f"{amount_minor} minor units; the most is {MAX_AMOUNT_MINOR}")
    return amount_minor
