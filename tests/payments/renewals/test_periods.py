"""Periods keep the anchor's day and time of day in the business's time zone, whatever months and clocks do."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.renewals.periods import anchor_of, end_of, start_around
from shared.events import BillingInterval

UTC_ZONE = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")
INTERVALS: tuple[BillingInterval, ...] = ("week", "month", "quarter", "year")


def chain(
    anchor: datetime, interval: BillingInterval, zone: ZoneInfo, periods: int
) -> list[datetime]:
    bounds = [anchor]
    for _ in range(periods):
        start = bounds[-1]
        # As it comes about: each period is told before the next one is counted.
        bounds.append(end_of(anchor, start, interval, zone))
        assert anchor_of(anchor, (start, bounds[-1]), interval, zone) == anchor
    return bounds


@pytest.mark.parametrize(
    ("anchor", "interval", "days"),
    [
        ("2026-01-31T12:00", "month", ["01-31", "02-28", "03-31", "04-30", "05-31", "06-30"]),
        ("2028-01-31T12:00", "month", ["01-31", "02-29", "03-31"]),
        ("2028-02-29T12:00", "year", ["02-29", "02-28", "02-28", "02-28", "02-29"]),
        ("2026-11-30T12:00", "quarter", ["11-30", "02-28", "05-30", "08-30", "11-30"]),
        ("2026-12-29T12:00", "week", ["12-29", "01-05", "01-12"]),
    ],
)
def test_the_anchors_day_comes_back_after_a_shorter_month(
    anchor: str, interval: BillingInterval, days: list[str]
) -> None:
    first = datetime.fromisoformat(anchor).replace(tzinfo=UTC)
    bounds = chain(first, interval, UTC_ZONE, len(days) - 1)
    assert [f"{each:%m-%d}" for each in bounds] == days


def test_the_time_of_day_is_the_businesss_across_a_clock_change() -> None:
    first = datetime(2026, 3, 24, 8, tzinfo=UTC)  # 9 o'clock in Berlin, before the clocks change
    for interval in ("week", "month"):
        assert end_of(first, first, interval, BERLIN).astimezone(BERLIN).hour == 9
    assert end_of(first, first, "week", BERLIN) == datetime(2026, 3, 31, 7, tzinfo=UTC)


def test_the_day_is_the_businesss_where_utc_has_another() -> None:
    first = datetime(2026, 1, 30, 23, 30, tzinfo=UTC)  # the 31st in Berlin
    bounds = [each.astimezone(BERLIN).day for each in chain(first, "month", BERLIN, 3)]
    assert bounds == [31, 28, 31, 30]


def test_a_time_that_the_clocks_skip_is_still_an_instant() -> None:
    first = datetime(2026, 3, 22, 1, 30, tzinfo=UTC)  # 2:30 in Berlin, which 29 March does not have
    assert end_of(first, first, "week", BERLIN) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_trial_begins_a_grid_of_its_own_where_it_ends() -> None:
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
    anchor = anchor_of(None, (start, end), "month", UTC_ZONE)
    assert anchor == end
    assert end_of(anchor, end, "month", UTC_ZONE) == datetime(2026, 2, 15, tzinfo=UTC)


def test_an_end_counted_in_utc_keeps_the_businesss_grid() -> None:
    start = datetime(2026, 1, 30, 23, 30, tzinfo=UTC)
    end = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    anchor = anchor_of(None, (start, end), "month", BERLIN)
    assert anchor == start
    assert end_of(anchor, end, "month", BERLIN).astimezone(BERLIN).day == 31


def test_another_interval_keeps_the_anchors_day() -> None:
    anchor = datetime(2026, 1, 31, tzinfo=UTC)
    period = (datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC))
    assert anchor_of(anchor, period, "quarter", UTC_ZONE) == anchor
    assert end_of(anchor, period[1], "quarter", UTC_ZONE) == datetime(2026, 5, 31, tzinfo=UTC)


def test_periods_that_nobody_billed_are_not_billed_late() -> None:
    anchor = datetime(2026, 1, 31, tzinfo=UTC)
    now = datetime(2026, 6, 10, tzinfo=UTC)
    found = start_around(anchor, datetime(2026, 2, 28, tzinfo=UTC), "month", (now, UTC_ZONE))
    assert found == datetime(2026, 5, 31, tzinfo=UTC)


@given(
    anchor=st.integers(1_577_836_800, 1_893_456_000).map(lambda s: datetime.fromtimestamp(s, UTC)),
    interval=st.sampled_from(INTERVALS),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]),
)
def test_periods_follow_each_other_without_gap_and_none_is_much_longer(
    anchor: datetime, interval: BillingInterval, zone: str
) -> None:
    lengths = {"week": (7, 7), "month": (28, 31), "quarter": (89, 92), "year": (365, 366)}[interval]
    for start, end in pairwise(chain(anchor, interval, ZoneInfo(zone), 14)):
        days = (end - start) / timedelta(days=1)
        assert lengths[0] - 1 / 8 <= days <= lengths[1] + 1 / 8
