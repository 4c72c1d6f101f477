"""What changing a price inside a period gives back and asks for.  Pure.

    credit = old total × time left ÷ whole period      for what was paid and will not be used
    charge = new total × time left ÷ whole period

Each is rounded once, half-even, to what the currency can pay.  Its lines are that share of each of the total's, the
remainder spread and what cannot be paid said as rounding: they add up to it.  By the day, days are the business's and the day of the change is the new price's; by the second,
a day of a clock change has as many as it has.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal, assert_never
from zoneinfo import ZoneInfo

from shared.errors import InvalidInput
from shared.events import CostBreakdown
from shared.money import payable_step, round_minor, spread_minor

By = Literal["day", "second"]


class NotInThisPeriod(InvalidInput):
    title = "A price changes within the billing period"


@dataclass(frozen=True)
class Window:
    """A billing period, when in it the price changes, and how its time is counted."""

    start: datetime
    end: datetime
    at: datetime
    by: By
    zone: ZoneInfo

    def share(self) -> tuple[int, int]:
        """Units left from `at` on, and of the whole period.  Raises NotInThisPeriod."""
        if not self.start <= self.at <= self.end or self.start == self.end:
            raise NotInThisPeriod(
                f"{self.at.isoformat()} is not between {self.start.isoformat()}"
                f" and {self.end.isoformat()}"
            )
        match self.by:
            case "day":
                first, day, last = (
                    moment.astimezone(self.zone).date()
                    for moment in (self.start, self.at, self.end)
                )
                left, whole = (last - day).days, (last - first).days
            case "second":
                left = round((self.end - self.at).total_seconds())
                whole = round((self.end - self.start).total_seconds())
            case _:
                assert_never(self.by)
        if whole == 0:
            raise NotInThisPeriod(f"the period is shorter than a {self.by}")
        return left, whole


@dataclass(frozen=True)
class Proration:
    """What a change inside a period moves, in minor units; `net_minor` below zero is the customer's."""

    credit_minor: int
    charge_minor: int
    left: int  # days or seconds of the period from the change on
    whole: int

    @property
    def net_minor(self) -> int:
        return self.charge_minor - self.credit_minor


@dataclass(frozen=True)
class ProratedLine:
    """One line of a credit or a charge: a variant, or the fee, delivery, discount, tax or rounding."""

    what: str
    amount_minor: int


def prorate(old_total_minor: int, new_total_minor: int, window: Window, currency: str) -> Proration:
    """Raises NotInThisPeriod."""
    left, whole = window.share()
    step = payable_step(currency)
    credit, charge = (
        round_minor(Decimal(total * left) / (whole * step)) * step
        for total in (old_total_minor, new_total_minor)
    )
    return Proration(credit, charge, left, whole)


def credit_lines(old: CostBreakdown, money: Proration) -> tuple[ProratedLine, ...]:
    return _prorated(old, money.credit_minor, Fraction(money.left, money.whole))


def charge_lines(new: CostBreakdown, money: Proration) -> tuple[ProratedLine, ...]:
    return _prorated(new, money.charge_minor, Fraction(money.left, money.whole))


def _prorated(
    breakdown: CostBreakdown, amount_minor: int, share: Fraction
) -> tuple[ProratedLine, ...]:
    """The share of each line of a total; `amount_minor` is that of the total, as it can be paid."""
    *lines, rounding = total_lines(breakdown)
    parts = spread_minor([line.amount_minor * share for line in lines])
    return (
        *(ProratedLine(line.what, part) for line, part in zip(lines, parts, strict=True)),
        ProratedLine(rounding.what, amount_minor - sum(parts)),
    )


def total_lines(breakdown: CostBreakdown) -> tuple[ProratedLine, ...]:
    """The lines that add up to the total: a discount counts as far as there was something to take it from."""
    before = breakdown.subtotal_minor + breakdown.fee_minor + breakdown.delivery_minor
    discount = min(breakdown.loyalty_discount_minor, before)
    return (
        *(
            ProratedLine(str(line.variant_id), line.unit_price_minor * line.quantity)
            for line in breakdown.variants
        ),
        ProratedLine("fee", breakdown.fee_minor),
        ProratedLine("delivery", breakdown.delivery_minor),
        ProratedLine("discount", -discount),
        ProratedLine("tax", 0 if breakdown.tax_inclusive else breakdown.tax_minor),
        ProratedLine("rounding", breakdown.rounding_minor),
    )
