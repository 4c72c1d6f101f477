from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.domain import Box, Terms, cost
from services.pricing.proration import (
    By,
    NotInThisPeriod,
    ProratedLine,
    Proration,
    Window,
    charge_lines,
    credit_lines,
    prorate,
    total_lines,
)
from shared.events import CostBreakdown, VariantLine
from shared.money import payable_step

BERLIN = ZoneInfo("Europe/Berlin")


def window(start: str, end: str, at: str, by: By = "day", zone: ZoneInfo = BERLIN) -> Window:
    """Instants by the zone's own clocks."""
    moments = (datetime.fromisoformat(text).replace(tzinfo=zone) for text in (start, end, at))
    first, last, change = (moment.astimezone(UTC) for moment in moments)
    return Window(first, last, change, by, zone)


# credit, charge, net
@pytest.mark.parametrize(
    ("what", "old", "new", "expected"),
    [
        # 16 of 31 days left
        (window("2026-03-01T09:00", "2026-04-01T09:00", "2026-03-16T20:00"), 3_100, 6_200, (1_600, 3_200, 1_600)),
        (window("2026-03-01T09:00", "2026-04-01T09:00", "2026-03-16T20:00"), 6_200, 3_100, (3_200, 1_600, -1_600)),
        # on the day it starts: all of it; at its end: nothing
        (window("2026-03-01T09:00", "2026-04-01T09:00", "2026-03-01T23:59"), 3_100, 6_200, (3_100, 6_200, 3_100)),
        (window("2026-03-01T09:00", "2026-04-01T09:00", "2026-04-01T09:00"), 3_100, 6_200, (0, 0, 0)),
        # each is rounded once, half to even: 0.5 is 0, 1.5 is 2
        (window("2026-02-01T00:00", "2026-03-01T00:00", "2026-02-15T00:00"), 1, 3, (0, 2, 2)),
        # a leap February has 29 days, 15 of them left
        (window("2028-02-01T00:00", "2028-03-01T00:00", "2028-02-15T00:00"), 2_900, 5_800, (1_500, 3_000, 1_500)),
        # the night the clocks go forward is a day by the day, 23 hours by the second
        (window("2026-03-28T00:00", "2026-03-30T00:00", "2026-03-29T00:00"), 4_700, 0, (2_350, 0, -2_350)),
        (window("2026-03-28T00:00", "2026-03-30T00:00", "2026-03-29T00:00", "second"), 4_700, 0, (2_300, 0, -2_300)),
        # and 25 when they go back
        (window("2026-10-24T00:00", "2026-10-26T00:00", "2026-10-25T00:00", "second"), 4_900, 0, (2_500, 0, -2_500)),
        (window("2026-03-01T00:00", "2026-03-02T00:00", "2026-03-01T06:00", "second"), 1_000, 400, (750, 300, -450)),
    ],
)  # fmt: skip
def test_what_is_left_of_a_period_is_credited_and_charged(
    what: Window, old: int, new: int, expected: tuple[int, int, int]
) -> None:
    p = prorate(old, new, what, "EUR")
    assert (p.credit_minor, p.charge_minor, p.net_minor) == expected


def test_a_dinar_is_prorated_in_what_can_be_paid() -> None:
    third = window("2026-03-01T00:00", "2026-03-04T00:00", "2026-03-03T00:00")
    p = prorate(10_000, 20_000, third, "KWD")
    assert (p.credit_minor, p.charge_minor) == (3_330, 6_670)
    assert prorate(10_000, 20_000, third, "JPY").credit_minor == 3_333


@pytest.mark.parametrize(
    "what",
    [
        window("2026-03-01T00:00", "2026-04-01T00:00", "2026-02-28T23:59"),
        window("2026-03-01T00:00", "2026-04-01T00:00", "2026-04-01T00:01"),
        window("2026-03-01T00:00", "2026-03-01T00:00", "2026-03-01T00:00"),
        window("2026-03-01T00:00", "2026-03-01T12:00", "2026-03-01T06:00"),
    ],
)
def test_a_change_outside_its_period_is_refused(what: Window) -> None:
    with pytest.raises(NotInThisPeriod):
        prorate(100, 200, what, "EUR")


def priced(percentage: Decimal, rate: Decimal, inclusive: bool, box: Box) -> CostBreakdown:
    included = frozenset({box.place}) if inclusive else frozenset[str]()
    delivery = {box.currency: {box.delivery_type: 450}}
    return cost(Terms(percentage, delivery, {box.place: rate}, included), box)


breakdowns = st.builds(
    priced,
    st.decimals("0.1", "50", places=4),
    st.decimals(0, 1, places=6),
    st.booleans(),
    st.builds(
        Box,
        st.sampled_from(["EUR", "JPY", "KWD", "MGA"]),
        st.lists(
            st.builds(
                VariantLine,
                variant_id=st.sampled_from([UUID(int=n) for n in range(4)]),
                quantity=st.integers(1, 20),
                unit_price_minor=st.integers(0, 10**7),
            ),
            max_size=4,
        ).map(tuple),
        st.just("standard"),
        st.just("DE"),
        st.integers(0, 10**6),
    ),
)
seconds = st.integers(0, 30 * 86_400)


@settings(max_examples=40, deadline=None)
@given(breakdowns, breakdowns, seconds, st.sampled_from(["day", "second"]))
def test_lines_add_up_to_what_is_credited_and_charged(
    old: CostBreakdown, new: CostBreakdown, left: int, by: By
) -> None:
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
    at = datetime.fromtimestamp(end.timestamp() - left, UTC)
    p = prorate(old.total_minor, new.total_minor, Window(start, end, at, by, BERLIN), new.currency)
    for breakdown, amount, part in (
        (old, p.credit_minor, credit_lines(old, p)),
        (new, p.charge_minor, charge_lines(new, p)),
    ):
        whole = total_lines(breakdown)
        assert sum(line.amount_minor for line in whole) == breakdown.total_minor
        assert sum(line.amount_minor for line in part) == amount
        assert [line.what for line in part] == [line.what for line in whole]
        off = [
            abs(a.amount_minor * p.whole - b.amount_minor * p.left)
            for a, b in zip(part, whole, strict=True)
        ]
        assert max(off[:-1]) < p.whole  # each less than one unit from its share
        # Nothing but what cannot be paid is rounding: half a step of the total, and half of its share.
        step = max(payable_step(old.currency), payable_step(new.currency))
        assert abs(part[-1].amount_minor) <= (step if step > 1 else 0)
    assert 0 <= p.charge_minor <= new.total_minor
    assert p.charge_minor % payable_step(new.currency) == 0


def test_a_line_is_its_own_share_however_little_the_total_is() -> None:
    box = Box(
        "EUR",
        (VariantLine(variant_id=UUID(int=1), quantity=1, unit_price_minor=9_999),),
        "standard",
        "DE",
        11_446,
    )
    old = cost(Terms(Decimal(10), {"EUR": {"standard": 450}}, {"DE": Decimal(0)}), box)
    assert old.total_minor == 3
    half = Proration(2, 0, 15, 30)
    assert credit_lines(old, half) == (
        ProratedLine(str(UUID(int=1)), 5_000),
        ProratedLine("fee", 500),
        ProratedLine("delivery", 225),
        ProratedLine("discount", -5_723),
        ProratedLine("tax", 0),
        ProratedLine("rounding", 0),
    )
