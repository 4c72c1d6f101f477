"""What a preview adds up to: by outcome and reason, by currency, tier, place and delivery type, extremes, a histogram.

Pure.  Amounts of different currencies are never added; kept as JSON in the preview's row between chunks.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.pricing.campaign import OUTCOMES, Outcome

EXTREMES = 20  # of each currency, upwards and downwards

Dimension = Literal["tier", "place", "delivery_type"]
DIMENSIONS: tuple[Dimension, ...] = ("tier", "place", "delivery_type")


class Counted(BaseModel):
    """Subscriptions alike in all that totals are asked for by."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Outcome
    code: str | None = None
    currency: str | None = None
    place: str | None = None
    delivery_type: str | None = None
    tier: str = "bronze"
    bucket: int | None = None  # of the histogram; None where there was no price before
    count: int = 1
    old_minor: int | None = None
    new_minor: int | None = None


class Extreme(BaseModel):
    """One of those whose price changes most."""

    model_config = ConfigDict(frozen=True)

    subscription_id: UUID
    currency: str
    old_minor: int
    new_minor: int

    @property
    def difference(self) -> int:
        return self.new_minor - self.old_minor


class Sums(BaseModel):
    """What subscriptions pay for one billing interval each, before and after."""

    count: int = 0
    moved: int = 0
    rises: int = 0
    falls: int = 0
    old_minor: int = 0
    new_minor: int = 0

    def add(self, counted: Counted) -> None:
        self.count += counted.count
        self.moved += counted.count if counted.outcome == "moved" else 0
        self.rises += counted.count if (counted.bucket or 0) > 0 else 0
        self.falls += counted.count if (counted.bucket or 0) < 0 else 0
        self.old_minor += counted.old_minor or 0
        self.new_minor += counted.new_minor or 0


class Totals(BaseModel):
    """`outcomes` and `codes` count everybody; the sums are of those with a price before or after."""

    outcomes: dict[Outcome, int] = Field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    codes: dict[Outcome, dict[str, int]] = Field(default_factory=dict)
    by_currency: dict[str, Sums] = Field(default_factory=dict)
    # dimension -> its value -> currency
    by: dict[Dimension, dict[str, dict[str, Sums]]] = Field(default_factory=dict)
    largest_rises: dict[str, list[Extreme]] = Field(default_factory=dict)
    largest_falls: dict[str, list[Extreme]] = Field(default_factory=dict)
    # currency -> where a bucket begins (see pricing_sql.STEPS; below zero: falls) -> subscriptions
    histogram: dict[str, dict[int, int]] = Field(default_factory=dict)

    def add(self, counted: Counted) -> None:
        outcome = counted.outcome
        self.outcomes[outcome] += counted.count
        if counted.code is not None:
            codes = self.codes.setdefault(outcome, {})
            codes[counted.code] = codes.get(counted.code, 0) + counted.count
        if counted.currency is None or counted.new_minor is None:
            return
        self.by_currency.setdefault(counted.currency, Sums()).add(counted)
        values = {
            "tier": counted.tier,
            "place": counted.place,
            "delivery_type": counted.delivery_type,
        }
        for dimension in DIMENSIONS:
            sums = self.by.setdefault(dimension, {}).setdefault(values[dimension] or "", {})
            sums.setdefault(counted.currency, Sums()).add(counted)
        if counted.bucket is not None:
            histogram = self.histogram.setdefault(counted.currency, {})
            histogram[counted.bucket] = histogram.get(counted.bucket, 0) + counted.count

    def note(self, found: Iterable[Extreme]) -> None:
        """Keep the largest; of equal ones those with the lower id."""
        for extreme in found:
            sides = self.largest_rises if extreme.difference > 0 else self.largest_falls
            sides.setdefault(extreme.currency, []).append(extreme)
        for sides in (self.largest_rises, self.largest_falls):
            for currency, extremes in sides.items():
                largest = sorted(extremes, key=lambda e: (-abs(e.difference), e.subscription_id))
                sides[currency] = largest[:EXTREMES]

    def floors(self) -> dict[str, dict[str, int]]:
        """By currency, the differences that an extreme must reach to be among the largest."""
        found: dict[str, dict[str, int]] = {}
        for name, sides in (("rise", self.largest_rises), ("fall", self.largest_falls)):
            for currency, extremes in sides.items():
                if len(extremes) == EXTREMES:
                    found.setdefault(currency, {})[name] = extremes[-1].difference
        return found

    @classmethod
    def of(cls, stored: Mapping[str, object]) -> Self:
        return cls.model_validate(stored)


def bucket_of(difference: int, steps: tuple[int, ...]) -> int:
    """Where the bucket begins that a difference lies in: 0, or the largest step it reaches, with its sign."""
    reached = [step for step in steps if step <= abs(difference)]
    if not reached:
        return 0
    return reached[-1] if difference > 0 else -reached[-1]
