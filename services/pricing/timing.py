"""When a price version reaches a subscription that was there before it.  Pure: no clock, instants in and out.

First the moment that the version's rule names; then, for a rise that asks for notice, no earlier than notice can
be given; then past a delivery that is cut off already.  Days are the business's own.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Annotated, Literal, Self, assert_never
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from services.pricing.domain import end_of_period
from services.pricing.fields import Place
from services.pricing.scopes import Instant
from shared.events import BillingInterval

# Payments asks for a period's price when it begins: the row must say it by then, whatever the worker is busy with.
RENEWAL_LEAD = timedelta(hours=1)

Days = Annotated[StrictInt, Field(ge=0, le=366)]
# Why a subscription keeps its price.
StayCode = Literal["grandfathered"]


class Timing(BaseModel):
    """Who moves when: as written into a version, and kept in its column `timing`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: Literal["now", "next_renewal", "grandfathered"] = "now"
    until: Instant | None = None  # of grandfathered; none: for ever
    notice_days: Days = 0  # before a rise
    notice_days_by_place: Annotated[dict[Place, Days], Field(max_length=5_000)] = Field(
        default_factory=dict
    )
    notice_lead_days: Days = 3  # to get the notice out
    cutoff_days: Days | None = None  # before a delivery its price is fixed

    @model_validator(mode="after")
    def _until_of_grandfathered(self) -> Self:
        if self.until is not None and self.when != "grandfathered":
            raise ValueError(f"until is for when=grandfathered, not {self.when}")
        return self

    @property
    def at_once(self) -> bool:
        """Whether everybody is reached the moment it takes effect."""
        notice = self.notice_days or any(self.notice_days_by_place.values())
        return self.when == "now" and not notice and self.cutoff_days is None

    def notice_for(self, place: str) -> int:
        """Days of notice before a rise in `place`: its own, else its country's, else everybody's."""
        for candidate in (place, place.partition("-")[0]):
            if candidate in self.notice_days_by_place:
                return self.notice_days_by_place[candidate]
        return self.notice_days


@dataclass(frozen=True)
class Situation:
    """What the moment depends on: a subscription, and whether its total rises."""

    created_at: datetime
    period_end: datetime | None
    interval: BillingInterval
    place: str
    next_delivery_on: date | None
    rises: bool
    period_start: datetime | None = None  # keeps the 31st, where a February lies between


@dataclass(frozen=True)
class Due:
    """It moves: in effect from `at`, written at `carry_out_at`, if told by `notify_by` where that is set."""

    at: datetime
    carry_out_at: datetime
    notify_by: datetime | None = None

    def told_in_time(self, told_at: datetime | None) -> bool:
        return self.notify_by is None or (told_at is not None and told_at <= self.notify_by)


@dataclass(frozen=True)
class Stays:
    """It keeps its price for good."""

    code: StayCode


def plan(
    timing: Timing,
    effective_from: datetime,
    situation: Situation,
    started: datetime,
    zone: ZoneInfo,
) -> Due | Stays:
    """When the version in force from `effective_from`, whose rollout started at `started`, moves a subscription.

    Whoever signed up at or after `effective_from` has never known another price and waits for nothing.
    """
    if situation.created_at >= effective_from:
        return Due(situation.created_at, situation.created_at)
    notice = timing.notice_for(situation.place) if situation.rises else 0
    earliest = effective_from
    if notice:
        told = _days_later(started, timing.notice_lead_days + notice, zone)
        earliest = max(effective_from, told)
    match timing.when:
        case "now":
            at = earliest
        case "next_renewal":
            at = next_renewal(situation, earliest, zone)
        case "grandfathered":
            if timing.until is None:
                return Stays("grandfathered")
            at = max(timing.until, earliest)
        case _:
            assert_never(timing.when)
    unlocked = _past_cutoff(timing, situation, at, zone)
    renews = timing.when == "next_renewal" and situation.period_end is not None and unlocked == at
    carry_out_at = max(effective_from, at - RENEWAL_LEAD) if renews else unlocked
    notify_by = _days_later(unlocked, -notice, zone) if notice else None
    return Due(unlocked, carry_out_at, notify_by)


def next_renewal(situation: Situation, earliest: datetime, zone: ZoneInfo) -> datetime:
    """The first end of a period at or after `earliest`; without periods, `earliest` itself.

    Months are the calendar's in the business zone, counted on from the period's start where its end lies on the
    start's grid (31 January, 28 February, 31 March), else from its end.
    """
    end, interval = situation.period_end, situation.interval
    if end is None:
        return earliest
    if end >= earliest:
        return end
    start, first = situation.period_start, 2
    if start is None or _ends(start, interval, 1, zone) != end:
        start, first = end, 1
    return next(ends for n in count(first) if (ends := _ends(start, interval, n, zone)) >= earliest)


def _ends(anchor: datetime, interval: BillingInterval, number: int, zone: ZoneInfo) -> datetime:
    """By the business's clocks: a box renewed at nine is renewed at nine in summer too."""
    local = end_of_period(anchor.astimezone(zone), interval, number)
    return local.replace(fold=0).astimezone(UTC)


def _past_cutoff(timing: Timing, situation: Situation, at: datetime, zone: ZoneInfo) -> datetime:
    """`at`, or the day after the next delivery where that is cut off by then."""
    day, delivery = at.astimezone(zone).date(), situation.next_delivery_on
    if timing.cutoff_days is None or delivery is None:
        return at
    if not day <= delivery <= day + timedelta(days=timing.cutoff_days):
        return at
    return datetime.combine(delivery + timedelta(days=1), time.min, zone).astimezone(UTC)


def _days_later(at: datetime, days: int, zone: ZoneInfo) -> datetime:
    """The same time of day by the business's clocks: a day of a clock change is a day."""
    return (at.astimezone(zone) + timedelta(days=days)).replace(fold=0).astimezone(UTC)
