"""The time is passed in; only composition roots say which clock it comes from."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def business_day(at: datetime, time_zone: ZoneInfo) -> date:
    """The date on the business's calendar on which the instant `at` falls."""
    return at.astimezone(time_zone).date()
