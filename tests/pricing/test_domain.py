from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.domain import (
    MAX_AMOUNT_MINOR,
    AmountTooLarge,
    Box,
    DiscountBelowZero,
    NoDeliveryCost,
    NoTaxRate,
    Terms,
    UnknownVariant,
    cost,
    end_of_period,
    kind_of_change,
    place_of,
    plain,
    priced_lines,
)
from shared.events import BillingInterval, BoxLine, CostBreakdown, VariantLine
from shared.money import payable_step

COFFEE = UUID(int=1)
TEA = UUID(int=2)
TERMS = Terms(
    admin_percentage=Decimal(10),
    delivery_cost_minor={
        "USD": {"standard": 500, "pickup": 0},
        "JPY": {"standard": 600},
        "KWD": {"standard": 1_500},
    },
    tax_rates={
        "US": Decimal(0),
        "US-CA": Decimal("0.0725"),
        "DE": Decimal("0.19"),
        "JP": Decimal("0.1"),
        "KW": Decimal(0),
    },
)


def box(
    *lines: tuple[int, int],
    currency: str = "USD",
    delivery: str = "standard",
    place: str = "US-CA",
    discount: int = 0,
) -> Box:
    variants = tuple(
        VariantLine(variant_id=UUID(int=n), quantity=quantity, unit_price_minor=price)
        for n, (quantity, price) in enumerate(lines, 1)
    )
    return Box(currency, variants, delivery, place, discount)


# subtotal, fee, delivery, taxable, tax, total
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (box((2, 1_999)), (3_998, 400, 500, 4_898, 355, 5_253)),
        (box((2, 1_999), (1, 500), delivery="pickup"), (4_498, 450, 0, 4_948, 359, 5_307)),
        # a region without a rate of its own pays its country's
        (box((1, 1_000), place="US-OR"), (1_000, 100, 500, 1_600, 0, 1_600)),
        (box((1, 1_000), place="DE"), (1_000, 100, 500, 1_600, 304, 1_904)),
        # halves go to the even neighbour: a fee of 0.5 is 0, of 1.5 is 2
        (box((1, 5), delivery="pickup", place="KW"), (5, 0, 0, 5, 0, 5)),
        (box((1, 15), delivery="pickup", place="KW"), (15, 2, 0, 17, 0, 17)),
        # the minor unit of yen is the yen; a dinar has a thousand fils
        (box((3, 980), currency="JPY", place="JP"), (2_940, 294, 600, 3_834, 383, 4_217)),
        # and is paid in tens of them: the total is rounded, its lines are not
        (box((1, 12_345), currency="KWD", place="KW"), (12_345, 1_234, 1_500, 15_079, 0, 15_080)),
        (box((1, 12_341), currency="KWD", place="KW"), (12_341, 1_234, 1_500, 15_075, 0, 15_080)),
        (box((1, 12_331), currency="KWD", place="KW"), (12_331, 1_233, 1_500, 15_064, 0, 15_060)),
        # a discount is taken before tax, and never below zero
        (box((1, 1_000), discount=600, place="DE"), (1_000, 100, 500, 1_000, 190, 1_190)),
        (box((1, 1_000), discount=1_600, place="DE"), (1_000, 100, 500, 0, 0, 0)),
        (box((1, 1_000), discount=999_999, place="DE"), (1_000, 100, 500, 0, 0, 0)),
        (box((4, 0), delivery="pickup", place="DE"), (0, 0, 0, 0, 0, 0)),
        (box(delivery="pickup", place="DE"), (0, 0, 0, 0, 0, 0)),
    ],
)
def test_a_box_costs_what_the_rule_says(
    what: Box, expected: tuple[int, int, int, int, int, int]
) -> None:
    c = cost(TERMS, what)
    assert expected == (
        c.subtotal_minor,
        c.fee_minor,
        c.delivery_minor,
        c.taxable_minor,
        c.tax_minor,
        c.total_minor,
    )
    assert c.total_minor == c.taxable_minor + c.tax_minor + c.rounding_minor
    assert (c.currency, c.variants, c.delivery_type) == (
        what.currency,
        what.variants,
        what.delivery_type,
    )
    assert c.admin_percentage == TERMS.admin_percentage


percentages = st.decimals("0.1", "50", places=4)
rates = st.decimals(0, 1, places=6)


# subtotal, fee, delivery, taxable, tax, total: where prices include the tax, it is taken out of what they add up to
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (box((1, 1_000), place="DE"), (1_000, 100, 500, 1_345, 255, 1_600)),
        (box((1, 1_190), delivery="pickup", place="DE"), (1_190, 119, 0, 1_100, 209, 1_309)),
        # a region of a country that is listed, by its own rate or by its country's
        (box((1, 1_000), place="US-CA"), (1_000, 100, 500, 1_492, 108, 1_600)),
        (box((1, 1_000), place="US-OR"), (1_000, 100, 500, 1_600, 0, 1_600)),
        # a discount of all of it: nothing is taxed
        (box((1, 1_000), place="DE", discount=1_600), (1_000, 100, 500, 0, 0, 0)),
        (box((1, 1_000), place="DE", discount=1_599), (1_000, 100, 500, 1, 0, 1)),
        (box((3, 980), currency="JPY", place="DE"), (2_940, 294, 600, 3_222, 612, 3_834)),
        # a place that is not listed pays its tax on top
        (box((3, 980), currency="JPY", place="JP"), (2_940, 294, 600, 3_834, 383, 4_217)),
        (
            box((1, 12_331), currency="KWD", place="DE"),
            (12_331, 1_233, 1_500, 12_659, 2_405, 15_060),
        ),
    ],
)
def test_a_price_that_includes_the_tax_names_it(
    what: Box, expected: tuple[int, int, int, int, int, int]
) -> None:
    c = cost(replace(TERMS, tax_inclusive=frozenset({"DE", "US"})), what, (3, 7))
    assert expected == (
        c.subtotal_minor,
        c.fee_minor,
        c.delivery_minor,
        c.taxable_minor,
        c.tax_minor,
        c.total_minor,
    )
    assert (c.tax_inclusive, c.price_versions) == (what.place != "JP", (3, 7))
    assert c.total_minor == c.taxable_minor + c.tax_minor + c.rounding_minor


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), rates)
def test_a_tax_taken_out_is_the_tax_put_on_but_for_a_rounding(gross: int, rate: Decimal) -> None:
    terms = Terms(Decimal("0.1"), {"USD": {"standard": gross}}, {"DE": rate}, frozenset({"DE"}))
    c = cost(terms, box(place="DE"))
    assert c.total_minor == gross == c.taxable_minor + c.tax_minor
    assert abs(c.taxable_minor * rate - c.tax_minor) <= 1


@pytest.mark.parametrize("percentage", ["0.1", "10", "33.3333", "50"])
def test_a_percentage_is_a_decimal_of_hundred(percentage: str) -> None:
    terms = Terms(Decimal(percentage), TERMS.delivery_cost_minor, TERMS.tax_rates)
    fee = cost(terms, box((1, 100_000))).fee_minor
    assert fee == round(Decimal(percentage) * 1_000)


def test_a_currency_without_delivery_costs_is_an_error() -> None:
    with pytest.raises(NoDeliveryCost, match="no delivery cost is configured for EUR"):
        cost(TERMS, box((1, 100), currency="EUR"))


def test_a_delivery_type_the_currency_does_not_have_is_an_error() -> None:
    with pytest.raises(NoDeliveryCost, match="JPY has no delivery type 'pickup'; it has standard"):
        cost(TERMS, box((1, 100), currency="JPY", delivery="pickup"))


@pytest.mark.parametrize(("place", "says"), [("FR", "for FR;"), ("FR-IDF", "for FR-IDF or FR;")])
def test_a_place_without_a_tax_rate_is_an_error_and_not_zero(place: str, says: str) -> None:
    with pytest.raises(NoTaxRate, match=says):
        cost(TERMS, box((1, 100), place=place))


def test_a_negative_discount_is_an_error() -> None:
    with pytest.raises(DiscountBelowZero):
        cost(TERMS, box((1, 100), discount=-1))


def test_an_amount_no_json_reader_could_hold_is_an_error() -> None:
    with pytest.raises(AmountTooLarge):
        cost(TERMS, box((10_000, MAX_AMOUNT_MINOR)))
    # A reader of JSON would round it.
    with pytest.raises(AmountTooLarge):
        cost(TERMS, box((1, 100), discount=MAX_AMOUNT_MINOR + 1))


amounts = st.integers(0, 10**9)
lines = st.lists(st.tuples(st.integers(1, 10_000), amounts), max_size=5)
currencies = st.sampled_from(["USD", "JPY", "KWD"])


def priced(
    percentage: Decimal, rate: Decimal, currency: str, delivery: int, what: Box
) -> CostBreakdown:
    terms = Terms(percentage, {currency: {what.delivery_type: delivery}}, {what.place: rate})
    return cost(terms, what)


@settings(max_examples=60, deadline=None)
@given(percentages, rates, currencies, amounts, lines, st.integers(0, 10**10))
def test_no_cent_is_lost_and_none_appears(
    percentage: Decimal,
    rate: Decimal,
    currency: str,
    delivery: int,
    lines: list[tuple[int, int]],
    discount: int,
) -> None:
    c = priced(
        percentage, rate, currency, delivery, box(*lines, currency=currency, discount=discount)
    )
    assert c.subtotal_minor == sum(quantity * price for quantity, price in lines)
    lines_sum = c.subtotal_minor + c.fee_minor + c.delivery_minor - c.loyalty_discount_minor
    assert c.taxable_minor == max(0, lines_sum)
    assert c.total_minor == c.taxable_minor + c.tax_minor + c.rounding_minor
    assert c.total_minor % payable_step(currency) == 0
    assert abs(c.rounding_minor) * 2 <= payable_step(currency)
    assert currency == "KWD" or not c.rounding_minor
    assert abs(c.fee_minor - c.subtotal_minor * percentage / 100) <= Decimal("0.5")
    assert abs(c.tax_minor - c.taxable_minor * rate) <= Decimal("0.5")
    assert min(c.fee_minor, c.taxable_minor, c.tax_minor, c.total_minor) >= 0


@settings(max_examples=60, deadline=None)
@given(st.tuples(percentages, percentages), rates, amounts, lines, st.integers(0, 10**10))
def test_a_higher_percentage_never_costs_less(
    pair: tuple[Decimal, Decimal],
    rate: Decimal,
    delivery: int,
    lines: list[tuple[int, int]],
    discount: int,
) -> None:
    what = box(*lines, discount=discount)
    low, high = (priced(p, rate, "USD", delivery, what).total_minor for p in sorted(pair))
    assert low <= high


@settings(max_examples=60, deadline=None)
@given(percentages, rates, amounts, lines)
def test_what_a_breakdown_names_recomputes_to_the_same_cents(
    percentage: Decimal, rate: Decimal, delivery: int, lines: list[tuple[int, int]]
) -> None:
    first = priced(percentage, rate, "USD", delivery, box(*lines))
    kept = CostBreakdown.model_validate_json(first.model_dump_json())
    again = Box(
        kept.currency,
        kept.variants,
        kept.delivery_type,
        kept.place,
        kept.loyalty_discount_minor,
    )
    assert (
        priced(kept.admin_percentage, kept.tax_rate, kept.currency, kept.delivery_minor, again)
        == first
    )


@pytest.mark.parametrize(
    ("country", "region", "place"),
    [("DE", None, "DE"), ("DE", " ", "DE"), ("US", "ca ", "US-CA"), ("US", "NY", "US-NY")],
)
def test_a_place_is_the_country_and_the_region_where_there_is_one(
    country: str, region: str | None, place: str
) -> None:
    assert place_of(country, region) == place


def test_a_line_keeps_the_price_it_carries_and_a_new_one_takes_the_current() -> None:
    carried = BoxLine(variant_id=COFFEE, quantity=1, unit_price_minor=700)
    new = BoxLine(variant_id=TEA, quantity=2)
    assert [
        line.unit_price_minor for line in priced_lines((carried, new), {COFFEE: 999, TEA: 5}, "USD")
    ] == [700, 5]


def test_a_variant_without_a_price_in_the_currency_is_an_error() -> None:
    with pytest.raises(UnknownVariant, match="has a price in EUR"):
        priced_lines((BoxLine(variant_id=uuid4(), quantity=1),), {}, "EUR")


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        (box((1, 100)), None),
        (box((2, 100)), "variants"),
        (box((1, 101)), "variants"),
        (box((1, 100), delivery="pickup"), "delivery"),
        (box((1, 100), place="DE"), "delivery"),
        (box((1, 100), discount=1), "discount"),
    ],
)
def test_a_change_is_named_for_what_the_customer_changed(changed: Box, kind: str | None) -> None:
    assert kind_of_change(cost(TERMS, box((1, 100))), changed) == kind
    assert kind_of_change(None, changed) == "created"


@pytest.mark.parametrize(
    ("anchor", "interval", "number", "end"),
    [
        ("2026-01-31", "month", 1, "2026-02-28"),
        ("2026-01-31", "month", 2, "2026-03-31"),  # anchored: February does not shorten March
        ("2028-01-31", "month", 1, "2028-02-29"),
        ("2026-11-30", "quarter", 1, "2027-02-28"),
        ("2028-02-29", "year", 1, "2029-02-28"),
        ("2028-02-29", "year", 4, "2032-02-29"),
        ("2026-12-31", "month", 1, "2027-01-31"),
        ("2026-12-28", "week", 1, "2027-01-04"),
    ],
)
def test_intervals_are_calendar_months_from_the_anchor(
    anchor: str, interval: BillingInterval, number: int, end: str
) -> None:
    start = datetime.fromisoformat(anchor).replace(hour=9, tzinfo=UTC)
    expected = datetime.fromisoformat(end).replace(hour=9, tzinfo=UTC)
    assert end_of_period(start, interval, number) == expected


@pytest.mark.parametrize(
    ("written", "shortest"),
    [("10.0000", "10"), ("0.190000", "0.19"), ("0.000", "0"), ("1E+1", "10"), ("50", "50")],
)
def test_a_number_is_written_in_one_way(written: str, shortest: str) -> None:
    assert str(plain(Decimal(written))) == shortest
