"""When a subscription's periods begin and end.  Pure: instants and a time zone in, instants out.

Periods lie on a grid of the anchor's own day and time of day in the business's time zone: 31 January, 28 February,
31 March.  A period that was set otherwise (a trial of two weeks) begins a grid of its own where it ends.
"""

import calendar
from datetime import UTC, datetime, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from shared.events import BillingInterval

# A period whose end was counted in another time zone than the business's is at most this far beside the grid.
OFF_THE_GRID = timedelta(days=1)
# Shorter than any month: the index of the nearest month is found among its neighbours.
NEIGHBOURS = (-1, 0, 1)


def anchor_of(
    known: datetime | None,
    period: tuple[datetime | None, datetime],
    interval: BillingInterval,
    zone: ZoneInfo,
) -> datetime:
    """The first day of the grid on which `period` ends: the known one, its own start, or else its end."""
    start, end = period
    for candidate in (known, start):
        if candidate is None or candidate >= end:
            continue
        index = _nearest(candidate, end, interval, zone)
        if abs(_point(candidate, index, interval, zone) - end) <= OFF_THE_GRID:
            return candidate
    return end


def end_of(
    anchor: datetime, start: datetime, interval: BillingInterval, zone: ZoneInfo
) -> datetime:
    """The end of the period that begins at `start`, one interval further on the anchor's grid."""
    index = _nearest(anchor, start, interval, zone)
    return _point(anchor, index + _steps(interval), interval, zone)


def start_around(
    anchor: datetime, start: datetime, interval: BillingInterval, moment: tuple[datetime, ZoneInfo]
) -> datetime:
    """The start of the period that holds `moment`, where the periods from `start` on were never billed."""
    now, zone = moment
    while (end := end_of(anchor, start, interval, zone)) <= now:
        start = end
    return start


def _nearest(anchor: datetime, at: datetime, interval: BillingInterval, zone: ZoneInfo) -> int:
    """The index of the grid's point nearest to `at`."""
    if interval == "week":
        guess = round((at - anchor) / timedelta(weeks=1))
    else:
        first, then = anchor.astimezone(zone), at.astimezone(zone)
        guess = (then.year - first.year) * 12 + then.month - first.month
    return min(
        (guess + each for each in NEIGHBOURS),
        key=lambda index: abs(_point(anchor, index, interval, zone) - at),
    )


def _point(anchor: datetime, index: int, interval: BillingInterval, zone: ZoneInfo) -> datetime:
    """The `index`-th week or month after the anchor, at its time of day; none is ever skipped by a clock change."""
    local = anchor.astimezone(zone)
    if interval == "week":
        moved = local + timedelta(weeks=index)
    else:
        years, month = divmod(local.month - 1 + index, 12)
        year = local.year + years
        last_day = calendar.monthrange(year, month + 1)[1]
        moved = local.replace(year=year, month=month + 1, day=min(local.day, last_day))
    return moved.replace(fold=0).astimezone(UTC)


def _steps(interval: BillingInterval) -> int:
    """How many points of its grid an interval takes."""
    match interval:
        case "week" | "month":
            return 1
        case "quarter":
            return 3
        case "year":
            return 12
        case _:
            assert_never(interval)
