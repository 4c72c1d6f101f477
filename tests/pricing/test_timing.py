from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.pricing.timing import RENEWAL_LEAD, Due, Situation, Stays, Timing, plan
from shared.events import BillingInterval

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")


def moment(text: str, zone: ZoneInfo = UTC_ZONE) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


FROM = moment("2026-03-10T00:00")
# A month from the 1st, delivered on the 20th, in Germany; its price rises.
RISING = Situation(
    created_at=moment("2025-01-01T09:00"),
    period_start=moment("2026-03-01T09:00"),
    period_end=moment("2026-04-01T09:00"),
    interval="month",
    place="DE",
    next_delivery_on=date(2026, 3, 20),
    rises=True,
)
FALLING = replace(RISING, rises=False)
NOW, RENEWAL = Timing(), Timing(when="next_renewal")


def planned(timing: Timing, situation: Situation, zone: ZoneInfo = UTC_ZONE) -> Due:
    due = plan(timing, FROM, situation, FROM, zone)
    assert isinstance(due, Due)
    return due


# at, notify_by
@pytest.mark.parametrize(
    ("timing", "situation", "at", "notify_by"),
    [
        (NOW, RISING, "2026-03-10T00:00", None),
        (RENEWAL, RISING, "2026-04-01T09:00", None),
        (RENEWAL, replace(RISING, period_end=FROM), "2026-03-10T00:00", None),
        # a period that ended before is counted on
        (RENEWAL, replace(RISING, period_start=moment("2026-02-05T09:00"), period_end=moment("2026-03-05T09:00")), "2026-04-05T09:00", None),
        (RENEWAL, replace(RISING, period_start=None, period_end=moment("2025-12-11T09:00")), "2026-03-11T09:00", None),
        (RENEWAL, replace(RISING, interval="week", period_start=None, period_end=moment("2026-03-03T09:00")), "2026-03-10T09:00", None),
        (RENEWAL, replace(RISING, interval="year", period_start=None, period_end=moment("2026-03-01T09:00")), "2027-03-01T09:00", None),
        # without periods there is nothing to wait for
        (RENEWAL, replace(RISING, period_start=None, period_end=None), "2026-03-10T00:00", None),
        (Timing(when="grandfathered", until=moment("2027-01-01T00:00")), RISING, "2027-01-01T00:00", None),
        (Timing(when="grandfathered", until=moment("2026-01-01T00:00")), RISING, "2026-03-10T00:00", None),
        # a rise waits until notice can be given: 3 days to get it out, then the days
        (Timing(notice_days=30), RISING, "2026-04-12T00:00", "2026-03-13T00:00"),
        (Timing(notice_days=30, notice_lead_days=0), RISING, "2026-04-09T00:00", "2026-03-10T00:00"),
        (Timing(notice_days=30), FALLING, "2026-03-10T00:00", None),
        (Timing(notice_days=30, notice_days_by_place={"DE": 60}), RISING, "2026-05-12T00:00", "2026-03-13T00:00"),
        (Timing(notice_days=30, notice_days_by_place={"US": 60}), RISING, "2026-04-12T00:00", "2026-03-13T00:00"),
        (Timing(notice_days=30, notice_days_by_place={"DE": 0}), RISING, "2026-03-10T00:00", None),
        (Timing(notice_days=1, notice_days_by_place={"US": 9, "US-CA": 2}), replace(RISING, place="US-CA"), "2026-03-15T00:00", "2026-03-13T00:00"),
        (Timing(notice_days=1, notice_days_by_place={"US": 9, "US-CA": 2}), replace(RISING, place="US-NY"), "2026-03-22T00:00", "2026-03-13T00:00"),
        # at a renewal: the first that leaves enough time
        (Timing(when="next_renewal", notice_days=14), RISING, "2026-04-01T09:00", "2026-03-18T09:00"),
        (Timing(when="next_renewal", notice_days=30), RISING, "2026-05-01T09:00", "2026-04-01T09:00"),
        (Timing(when="grandfathered", until=moment("2026-03-20T00:00"), notice_days=30), RISING, "2026-04-12T00:00", "2026-03-13T00:00"),
        (Timing(when="grandfathered", until=moment("2027-01-01T00:00"), notice_days=30), RISING, "2027-01-01T00:00", "2026-12-02T00:00"),
        # a delivery that is cut off keeps its price
        (Timing(cutoff_days=9), RISING, "2026-03-10T00:00", None),
        (Timing(cutoff_days=10), RISING, "2026-03-21T00:00", None),
        (Timing(cutoff_days=10), FALLING, "2026-03-21T00:00", None),
        (Timing(cutoff_days=10), replace(RISING, next_delivery_on=date(2026, 3, 9)), "2026-03-10T00:00", None),
        (Timing(cutoff_days=0), replace(RISING, next_delivery_on=date(2026, 3, 10)), "2026-03-11T00:00", None),
        (Timing(cutoff_days=10), replace(RISING, next_delivery_on=None), "2026-03-10T00:00", None),
        (Timing(when="next_renewal", cutoff_days=3), replace(RISING, next_delivery_on=date(2026, 4, 3)), "2026-04-04T00:00", None),
        (Timing(when="next_renewal", cutoff_days=3, notice_days=14), replace(RISING, next_delivery_on=date(2026, 4, 3)), "2026-04-04T00:00", "2026-03-21T00:00"),
    ],
)  # fmt: skip
def test_a_subscription_moves_when_the_rule_says(
    timing: Timing, situation: Situation, at: str, notify_by: str | None
) -> None:
    due = planned(timing, situation)
    assert due.at == moment(at)
    assert due.notify_by == (moment(notify_by) if notify_by else None)


def test_grandfathered_for_ever_stays() -> None:
    assert plan(Timing(when="grandfathered"), FROM, RISING, FROM, BERLIN) == Stays("grandfathered")


@pytest.mark.parametrize(
    "timing",
    [
        RENEWAL,
        Timing(when="grandfathered"),
        Timing(when="grandfathered", until=moment("2027-01-01T00:00")),
        Timing(notice_days=30, cutoff_days=30),
    ],
)
@pytest.mark.parametrize("later", [timedelta(0), timedelta(hours=5)])
def test_who_signs_up_when_it_is_in_force_knows_no_other_price(
    timing: Timing, later: timedelta
) -> None:
    new = replace(RISING, created_at=FROM + later, period_end=FROM + later + timedelta(days=30))
    assert planned(timing, new) == Due(FROM + later, FROM + later)
    existing = replace(new, created_at=FROM - timedelta(microseconds=1))
    assert plan(timing, FROM, existing, FROM, UTC_ZONE) != planned(timing, new)


def test_a_renewal_is_carried_out_before_it_is_charged() -> None:
    due = planned(RENEWAL, RISING)
    assert due.carry_out_at == due.at - RENEWAL_LEAD
    at_once = planned(RENEWAL, replace(RISING, period_end=FROM))
    assert at_once.carry_out_at == at_once.at == FROM
    cut_off = planned(
        Timing(when="next_renewal", cutoff_days=3),
        replace(RISING, next_delivery_on=date(2026, 4, 3)),
    )
    assert cut_off.carry_out_at == cut_off.at
    assert planned(NOW, RISING).carry_out_at == FROM


def test_a_leap_day_and_a_short_february_keep_the_day_of_the_month() -> None:
    short = replace(
        RISING, period_start=moment("2026-01-31T09:00"), period_end=moment("2026-02-28T09:00")
    )
    assert planned(RENEWAL, short).at == moment("2026-03-31T09:00")
    alone = replace(short, period_start=None)
    assert planned(RENEWAL, alone).at == moment("2026-03-28T09:00")
    leap = replace(
        RISING,
        interval="year",
        period_start=moment("2024-02-29T09:00"),
        period_end=moment("2025-02-28T09:00"),
    )
    assert planned(RENEWAL, leap).at == moment("2027-02-28T09:00")
    assert plan(RENEWAL, moment("2028-01-01T00:00"), leap, FROM, UTC_ZONE) == Due(
        moment("2028-02-29T09:00"), moment("2028-02-29T08:00")
    )


def test_clock_changes_move_no_renewal_notice_or_day() -> None:
    # Berlin goes from +01:00 to +02:00 on 29 March 2026.
    renewing = replace(RISING, period_start=None, period_end=moment("2026-03-05T09:00", BERLIN))
    assert planned(RENEWAL, renewing, BERLIN).at == moment("2026-04-05T09:00", BERLIN)
    noticed = planned(Timing(notice_days=30), RISING, BERLIN)
    assert noticed.at == moment("2026-04-12T01:00", BERLIN)  # FROM is one o'clock in Berlin
    assert noticed.notify_by == moment("2026-03-13T01:00", BERLIN)
    cut_off = planned(
        Timing(cutoff_days=30), replace(RISING, next_delivery_on=date(2026, 3, 29)), BERLIN
    )
    assert cut_off.at == moment("2026-03-30T00:00", BERLIN)
    # A renewal at half past two on the night that has none is at half past three.
    skipped = replace(RISING, period_start=None, period_end=moment("2026-02-28T02:30", BERLIN))
    again = plan(
        RENEWAL, moment("2026-03-01T00:00"), replace(skipped, interval="month"), FROM, BERLIN
    )
    assert isinstance(again, Due)
    assert again.at == moment("2026-03-28T02:30", BERLIN)
    weekly = replace(skipped, interval="week", period_end=moment("2026-03-22T02:30", BERLIN))
    on_the_night = plan(RENEWAL, moment("2026-03-23T00:00"), weekly, FROM, BERLIN)
    assert isinstance(on_the_night, Due)
    assert on_the_night.at.astimezone(BERLIN).isoformat() == "2026-03-29T03:30:00+02:00"


def test_a_delivery_day_is_the_businesss_own() -> None:
    # 23:30 in UTC is the next day in Berlin, where the delivery of that day is cut off.
    late = moment("2026-03-09T23:30")
    due_there = replace(FALLING, next_delivery_on=date(2026, 3, 10))
    there = plan(Timing(cutoff_days=0), late, due_there, late, BERLIN)
    assert there == Due(moment("2026-03-11T00:00", BERLIN), moment("2026-03-11T00:00", BERLIN))
    assert plan(Timing(cutoff_days=0), late, due_there, late, UTC_ZONE) == Due(late, late)


def test_told_too_late_or_never_is_not_told() -> None:
    due = planned(Timing(notice_days=30), RISING)
    assert due.notify_by is not None
    assert due.told_in_time(due.notify_by)
    assert not due.told_in_time(due.notify_by + timedelta(microseconds=1))
    assert not due.told_in_time(None)
    assert planned(NOW, RISING).told_in_time(None)


@pytest.mark.parametrize(
    "written",
    [
        {"when": "later"},
        {"when": "now", "until": "2027-01-01T00:00:00Z"},
        {"when": "grandfathered", "until": "2027-01-01T00:00:00"},
        {"notice_days": -1},
        {"notice_days": 1.5},
        {"notice_days_by_place": {"Germany": 3}},
        {"cutoff_days": 400},
        {"cutoff": 3},
    ],
)
def test_a_timing_that_says_nothing_sensible_is_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Timing.model_validate(written)


def test_a_timing_is_stored_as_it_is_written() -> None:
    timing = Timing(when="grandfathered", until=moment("2027-01-01T00:00"), cutoff_days=2)
    assert Timing.model_validate(timing.model_dump(mode="json")) == timing
    assert Timing.model_validate({}) == Timing()


instants = st.integers(-20_000, 30_000).map(lambda hours: FROM + timedelta(hours=hours))
timings = st.builds(
    Timing,
    when=st.sampled_from(["now", "next_renewal"]),
    notice_days=st.integers(0, 90),
    notice_lead_days=st.integers(0, 9),
    cutoff_days=st.none() | st.integers(0, 10),
)
situations = st.builds(
    Situation,
    created_at=st.just(moment("2023-01-01T00:00")),
    period_end=st.none() | instants,
    interval=st.sampled_from(["week", "month", "quarter", "year"]),
    place=st.sampled_from(["DE", "US-CA"]),
    next_delivery_on=st.none() | st.dates(date(2024, 1, 1), date(2030, 1, 1)),
    rises=st.booleans(),
    period_start=st.none() | instants,
)
zones = st.sampled_from(
    [ZoneInfo(z) for z in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe")]
)


@settings(max_examples=60, deadline=None)
@given(timings, instants, situations, zones)
def test_nobody_moves_early_or_unannounced_or_with_a_locked_box(
    timing: Timing, effective_from: datetime, situation: Situation, zone: ZoneInfo
) -> None:
    due = plan(timing, effective_from, situation, effective_from, zone)
    assert isinstance(due, Due)
    assert effective_from <= due.carry_out_at <= due.at
    assert (due.notify_by is None) == (not situation.rises or timing.notice_days == 0)
    if due.notify_by is not None:
        days = timing.notice_lead_days
        # By the calendar: an hour either way where the clocks change.
        assert due.notify_by >= effective_from + timedelta(days=days) - timedelta(hours=1)
    if timing.cutoff_days is not None and situation.next_delivery_on is not None:
        day = due.at.astimezone(zone).date()
        assert not (day <= situation.next_delivery_on <= day + timedelta(days=timing.cutoff_days))


@settings(max_examples=60, deadline=None)
@given(instants, situations, zones)
def test_no_renewal_is_passed_over(
    effective_from: datetime, situation: Situation, zone: ZoneInfo
) -> None:
    due = plan(RENEWAL, effective_from, situation, effective_from, zone)
    assert isinstance(due, Due)
    longest: dict[BillingInterval, int] = {"week": 7, "month": 31, "quarter": 92, "year": 366}
    wait = timedelta(days=longest[situation.interval], hours=1)
    if situation.period_end is not None and situation.period_end < effective_from:
        assert due.at - effective_from < wait
    else:
        assert due.at == (situation.period_end or effective_from)
