"""A day as it is typed begins and ends when the business's does."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from cli.edge import UsageFault
from cli.moments import first_moment, last_moment


@pytest.mark.parametrize(
    ("text", "zone", "first", "last"),
    [
        ("2026-03-01", "UTC", "2026-03-01T00:00:00Z", "2026-03-01T23:59:59.999999Z"),
        ("20260301", "UTC", "2026-03-01T00:00:00Z", "2026-03-01T23:59:59.999999Z"),
        ("2026-W09-7", "UTC", "2026-03-01T00:00:00Z", "2026-03-01T23:59:59.999999Z"),
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59.999999Z"),
        # Clocks went back at midnight: 23:59 twice.
        ("2017-02-18", "America/Sao_Paulo", "2017-02-18T02:00:00Z", "2017-02-19T02:59:59.999999Z"),
        # And forward: there was no midnight.
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T01:59:59.999999Z"),
        ("2026-03-01T12:00", "Europe/Berlin", "2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z"),
        ("2026-03-01 12:00:00Z", "Europe/Berlin", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
    ],
)
def test_a_day_is_the_businesss_and_a_time_is_itself(
    text: str, zone: str, first: str, last: str
) -> None:
    where = ZoneInfo(zone)
    assert first_moment("--at", text, where) == datetime.fromisoformat(first)
    assert last_moment("--at", text, where) == datetime.fromisoformat(last)


@pytest.mark.parametrize(
    "text", ["9999-12-31", "0001-01-01T00:00+14:00", "20260301T1", "1772366400"]
)
def test_what_is_no_moment_is_said(text: str) -> None:
    with pytest.raises(UsageFault, match="write a day such as"):
        last_moment("--at", text, ZoneInfo("UTC"))
