"""Days and times as they are typed.  A day is the business's, however it is written."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cli.edge import UsageFault

A_MOMENT = timedelta(microseconds=1)

OfDay = Callable[[date, ZoneInfo], datetime]


def first_moment(option: str, text: str, zone: ZoneInfo) -> datetime:
    """A time, or the first moment of a day.  Raises UsageFault."""
    return _moment(option, text, zone, _midnight)


def last_moment(option: str, text: str, zone: ZoneInfo) -> datetime:
    """A time, or the last moment of a day.  Raises UsageFault."""
    return _moment(option, text, zone, _end)


def _moment(option: str, text: str, zone: ZoneInfo, of_day: OfDay) -> datetime:
    try:
        day = _day(text)
        if day is not None:
            return of_day(day, zone)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageFault(
            f"{option} {text}: write a day such as 2026-03-01, or a time such as 2026-03-01T12:00:00Z"
        ) from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _end(day: date, zone: ZoneInfo) -> datetime:
    """Before the next midnight: where clocks go back then, the last hour comes twice."""
    return _midnight(day + timedelta(days=1), zone) - A_MOMENT


def _day(text: str) -> date | None:
    try:
        return None if "T" in text else date.fromisoformat(text)
    except ValueError:
        return None
