"""The lowest price of a variant in the days before an instant, out of what it was sold for and when.  Pure.

The storefront's catalogue is overlaid by what versions for everything name while they are in force.  Before a price
reduction is announced in the European Union, the lowest price of at least 30 days before it must be shown (Directive
98/6/EC, article 6a): what was in force when the window began counts, what begins at its end does not.  So a reduction
that runs already ends the window where it began.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from shared.errors import NotFound

DAYS = 30


class NoPriceKnown(NotFound):
    title = "No price was known then"


@dataclass(frozen=True)
class Noted:
    """A line of the catalogue's log: from `at` on this is the variant's price, in this currency alone."""

    at: datetime
    currency: str
    price_minor: int


@dataclass(frozen=True)
class Named:
    """A version for everything that names a price of the variant, while it is in force."""

    price_version: int
    since: datetime
    until: datetime | None
    price_minor: int


@dataclass(frozen=True)
class Span:
    """A price and how long it was in force, `until` None: it still is.  `price_version` None: the catalogue's."""

    since: datetime
    until: datetime | None
    price_minor: int
    price_version: int | None = None

    def overlaps(self, since: datetime, until: datetime) -> bool:
        return self.since < until and (self.until is None or since < self.until)


@dataclass(frozen=True)
class Window:
    """The days before `at`."""

    since: datetime
    at: datetime

    @classmethod
    def before(cls, at: datetime, zone: ZoneInfo) -> Self:
        """DAYS of the business's calendar: from the same time of day on, whatever clocks did meanwhile."""
        return cls((at.astimezone(zone) - timedelta(days=DAYS)).astimezone(UTC), at)


def timeline(noted: Sequence[Noted], named: Sequence[Named], currency: str) -> tuple[Span, ...]:
    """What the variant was sold for in `currency`, oldest first.  `noted` in the order of the log."""
    versions = sorted(named, key=lambda version: version.since)
    moments = sorted(_moments(noted, versions))
    spans = list[Span]()
    lines, line = iter(sorted(noted, key=lambda each: each.at)), None
    following = next(lines, None)
    for n, moment in enumerate(moments):
        while following is not None and following.at <= moment:
            line, following = following, next(lines, None)
        until = moments[n + 1] if n + 1 < len(moments) else None
        version = _in_force(versions, moment)
        if version is not None:
            spans.append(Span(moment, until, version.price_minor, version.price_version))
        elif line is not None and line.currency == currency:
            spans.append(Span(moment, until, line.price_minor))
    return tuple(spans)


def lowest(spans: Iterable[Span], window: Window) -> Span:
    """The cheapest that was in force at some time in the window; of several alike the last.  Raises NoPriceKnown."""
    then = [span for span in spans if span.overlaps(window.since, window.at)]
    if not then:
        raise NoPriceKnown(
            f"no price is known between {window.since.isoformat()} and {window.at.isoformat()}"
        )
    return min(reversed(then), key=lambda span: span.price_minor)


def reduced_since(spans: Sequence[Span], at: datetime) -> datetime | None:
    """When the price in force `at` began, where it was a higher one until then.  `spans` oldest first."""
    told = [span for span in spans if span.since <= at]
    if not told or (told[-1].until is not None and told[-1].until <= at):
        return None
    running = told.pop()
    since = running.since
    for before in reversed(told):
        if before.until != since:
            return None
        if before.price_minor != running.price_minor:
            return since if before.price_minor > running.price_minor else None
        since = before.since
    return None


def price_at(spans: Iterable[Span], at: datetime) -> int | None:
    found = [s for s in spans if s.since <= at and (s.until is None or at < s.until)]
    return found[-1].price_minor if found else None


def _moments(noted: Iterable[Noted], named: Iterable[Named]) -> set[datetime]:
    """Whenever the price may have become another."""
    ends = {version.until for version in named if version.until is not None}
    return {line.at for line in noted} | {version.since for version in named} | ends


def _in_force(versions: Iterable[Named], at: datetime) -> Named | None:
    return next((v for v in versions if v.since <= at and (v.until is None or at < v.until)), None)
