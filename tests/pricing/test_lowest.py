"""The lowest price of the 30 days before an instant, out of the catalogue's log and the versions for everything."""

from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.api.variants import LowestPrice
from services.pricing.lowest import (
    Named,
    NoPriceKnown,
    Noted,
    Span,
    Window,
    lowest,
    price_at,
    reduced_since,
    timeline,
)
from shared.db import Sessions
from tests.pricing.conftest import Api, Shop, Ticking, publish_config

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 7, 31, 12, tzinfo=UTC)
WINDOW = Window.before(AT, ZoneInfo("UTC"))


def day(number: float) -> datetime:
    """Of the window: 0 is its first moment, 30 its end."""
    return WINDOW.since + timedelta(days=number)


def eur(number: float, price: int) -> Noted:
    return Noted(day(number), "EUR", price)


# catalogue, versions, and the lowest: its price, since when, and the version that says it
@pytest.mark.parametrize(
    ("noted", "named", "expected"),
    [
        ([eur(-9, 100)], [], (100, -9, None)),
        # what was in force when the window began counts, however long before it was set
        ([eur(-9, 80), eur(5, 100)], [], (80, -9, None)),
        ([eur(-9, 80), eur(0, 100)], [], (100, 0, None)),  # replaced at that moment: it does not
        ([eur(-9, 100), eur(5, 70), eur(6, 90)], [], (70, 5, None)),
        # the reduction itself does not count, a moment before its beginning it would
        ([eur(-9, 100), eur(30, 50)], [], (100, -9, None)),
        ([eur(-9, 100), eur(29.999, 50)], [], (50, 29.999, None)),
        # of several alike the last
        ([eur(-9, 100), eur(5, 120), eur(6, 100)], [], (100, 6, None)),
        # known for a part of the window
        ([eur(20, 100)], [], (100, 20, None)),
        # a price that was replaced at once was never one
        ([eur(-9, 100), eur(5, 1), eur(5, 110)], [], (100, -9, None)),
        # sold for dollars meanwhile
        ([eur(-9, 100), Noted(day(-5), "USD", 10), eur(5, 110)], [], (110, 5, None)),
        # a version names a price while it is in force, and the catalogue's counts before and after
        ([eur(-9, 100)], [Named(7, day(5), day(6), 60)], (60, 5, 7)),
        ([eur(-9, 100)], [Named(7, day(5), None, 160)], (100, -9, None)),
        ([eur(-9, 100)], [Named(7, day(-5), day(6), 160)], (100, 6, None)),
        ([eur(-9, 100), eur(5, 10), eur(6, 100)], [Named(7, day(-5), day(7), 160)], (100, 7, None)),
        ([eur(-9, 100)], [Named(7, day(-8), day(0), 60)], (100, 0, None)),
        ([eur(-9, 100)], [Named(7, day(30), None, 60)], (100, -9, None)),
        ([], [Named(7, day(-5), day(6), 60), Named(8, day(6), None, 50)], (50, 6, 8)),
    ],
)
def test_the_lowest_that_was_in_force_in_the_window(
    noted: list[Noted], named: list[Named], expected: tuple[int, float, int | None]
) -> None:
    price, since, version = expected
    found = lowest(timeline(noted, named, "EUR"), WINDOW)
    assert (found.price_minor, found.since, found.price_version) == (price, day(since), version)


@pytest.mark.parametrize("noted", [[], [eur(30, 100)], [Noted(day(-1), "USD", 100)]])
def test_a_price_that_is_not_known_is_none(noted: list[Noted]) -> None:
    with pytest.raises(NoPriceKnown):
        lowest(timeline(noted, [], "EUR"), WINDOW)


moments = st.integers(-20, 50).map(lambda half: day(half / 2))
lines = st.lists(
    st.builds(Noted, moments, st.sampled_from(["EUR", "USD"]), st.integers(1, 9)), max_size=6
)


@st.composite
def windows(draw: st.DrawFn) -> list[Named]:
    """Versions of one scope: their times do not overlap, the last may be open."""
    edges = sorted(draw(st.sets(moments, max_size=6)))
    ends = [*edges[1:], None] if draw(st.booleans()) else [*edges[1:]]
    spans = zip(edges, ends, strict=False)
    return [
        Named(n, since, until, draw(st.integers(1, 9)))
        for n, (since, until) in enumerate(spans)
        if draw(st.booleans())
    ]


@settings(max_examples=200)
@given(lines, windows())
def test_it_is_what_asking_at_every_moment_of_the_window_gives(
    noted: list[Noted], named: list[Named]
) -> None:
    noted = sorted(noted, key=lambda line: line.at)
    spans = timeline(noted, named, "EUR")
    asked = [_plainly(noted, named, day(n / 4)) for n in range(120)]
    assert asked == [price_at(spans, day(n / 4)) for n in range(120)]
    known = [price for price in asked if price is not None]
    if known:
        assert lowest(spans, WINDOW).price_minor == min(known)
    else:
        with pytest.raises(NoPriceKnown):
            lowest(spans, WINDOW)


def _plainly(noted: list[Noted], named: list[Named], at: datetime) -> int | None:
    for version in named:
        if version.since <= at and (version.until is None or at < version.until):
            return version.price_minor
    before = [line for line in noted if line.at <= at]
    return before[-1].price_minor if before and before[-1].currency == "EUR" else None


# catalogue and versions as above, and since when the price of day 30 is a reduced one
@pytest.mark.parametrize(
    ("noted", "named", "expected"),
    [
        ([], [], None),
        ([eur(-9, 100)], [], None),
        ([eur(-9, 100), eur(5, 70)], [], 5),
        ([eur(-9, 100), eur(-3, 70)], [], -3),  # longer than the window
        ([eur(-9, 100), eur(5, 120)], [], None),
        ([eur(-9, 100), eur(5, 80), eur(9, 70)], [], 9),  # the last step
        ([eur(-9, 100), eur(5, 70), eur(9, 70)], [], 5),
        ([eur(-9, 100), eur(5, 70), eur(30, 60)], [], 30),
        ([eur(-9, 100), eur(5, 70), eur(31, 60)], [], 5),
        ([eur(-9, 100)], [Named(7, day(5), None, 60)], 5),
        ([eur(-9, 100)], [Named(7, day(5), None, 60), Named(8, day(9), None, 60)], 5),
        ([eur(-9, 100)], [Named(7, day(5), day(30), 60)], None),  # over
        ([eur(-9, 100), Noted(day(1), "USD", 100), eur(5, 70)], [], None),  # not sold before
    ],
)
def test_a_reduction_that_runs_began_when_the_price_fell(
    noted: list[Noted], named: list[Named], expected: float | None
) -> None:
    began = reduced_since(timeline(noted, named, "EUR"), AT)
    assert began == (None if expected is None else day(expected))


def test_thirty_days_are_the_calendars() -> None:
    # Between them the clocks went forward: 719 hours.
    at = datetime(2026, 4, 10, 9, 30, tzinfo=BERLIN)
    assert Window.before(at, BERLIN).since == datetime(2026, 3, 11, 9, 30, tzinfo=BERLIN)
    assert Span(at, None, 1).overlaps(at - timedelta(days=1), at) is False


async def test_it_is_told_over_http_from_the_catalogue_and_the_versions(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    variant = await shop.variant(1_000)

    async def sell(price_minor: int) -> None:
        await shop.storefront.execute(
            "SELECT set_config('farebox.now', $1, false)", clock.now.isoformat()
        )
        await shop.storefront.execute(
            "UPDATE public.product_variants SET price_minor = $2 WHERE id = $1",
            *(variant, price_minor),
        )

    async def ask(query: str = "currency=USD") -> LowestPrice:
        found = await api.done("GET", f"/variants/{variant}/lowest-price?{query}")
        return LowestPrice.model_validate(found)

    # The shop's clock is the test's: the first price was noted now, by the database's.
    clock.now = datetime.now(UTC) + timedelta(days=1)
    first = await ask()
    assert (first.lowest_price_minor, first.price_minor, first.complete) == (1_000, 1_000, False)
    assert first.since < first.in_force_from == first.known_since
    begun = clock.pass_(days=40)
    await publish_config(sessions, begun, {"variant_prices_minor": {"USD": {str(variant): 700}}})
    clock.pass_(days=1)
    reduced = await ask()  # what runs now does not count
    assert (reduced.lowest_price_minor, reduced.at, reduced.price_minor) == (1_000, begun, 700)
    await publish_config(sessions, clock.now)
    sold = clock.pass_(days=1)
    await sell(1_200)
    now = await ask()
    assert (now.lowest_price_minor, now.price_version, now.price_minor) == (700, 1, 1_200)
    assert (now.in_force_from, now.in_force_until) == (begun, begun + timedelta(days=1))
    assert now.complete
    clock.pass_(days=31)
    later = await ask()
    assert (later.lowest_price_minor, later.in_force_from) == (1_200, sold)
    # A cohort's price is not what the variant is sold for.
    cohort = {"scope": {"places": ["DE"]}, "variant_prices_minor": {"USD": {str(variant): 1}}}
    await publish_config(sessions, clock.now, cohort)
    clock.pass_(days=1)
    assert (await ask()).lowest_price_minor == 1_200
    then = begun.isoformat().replace("+", "%2B")
    assert (await ask(f"currency=USD&at={then}")).lowest_price_minor == 1_000


@pytest.mark.parametrize(
    ("query", "status", "slug"),
    [
        ("currency=EUR", 404, "no-price-known"),
        ("currency=USD&at=2001-01-01T00:00:00Z", 404, "no-price-known"),
        ("currency=usd", 422, "invalid-input"),
        ("", 422, "invalid-input"),
    ],
)
async def test_what_is_not_known_is_said(
    api: Api, shop: Shop, query: str, status: int, slug: str
) -> None:
    variant = await shop.variant(1_000)
    answer = await api.ask("GET", f"/variants/{variant}/lowest-price?{query}")
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:farebox:problem:{slug}")
    nobody = await api.ask("GET", f"/variants/{UUID(int=1)}/lowest-price?currency=EUR")
    assert nobody.json()["type"] == "urn:farebox:problem:variant-not-found"
