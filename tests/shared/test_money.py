"""Minor units, exponents and the one rounding."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidInput, UnknownCurrency
from shared.money import (
    currency_code,
    exponent,
    format_minor,
    from_stripe,
    round_minor,
    round_payable,
    spread_minor,
    to_stripe,
)


@pytest.mark.parametrize(("currency", "places"), [("JPY", 0), ("USD", 2), ("kwd", 3)])
def test_the_exponent_is_the_currencys_own(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("text", ["", "US", "DOLLAR", "XXQ", "XAU"])
def test_what_is_no_currency_is_refused_by_name(text: str) -> None:
    with pytest.raises(UnknownCurrency, match="ISO 4217"):
        currency_code(text)


@pytest.mark.parametrize(("currency", "places"), [("BGN", 2), ("HRK", 2), ("BYR", 0), ("STD", 2)])
def test_a_withdrawn_currency_is_still_refunded(currency: str, places: int) -> None:
    assert exponent(currency) == places
    assert from_stripe(1_234, currency) == 1_234


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("0.5", 0), ("1.5", 2), ("2.5", 2), ("2.500001", 3), ("-0.5", 0), ("-1.5", -2)],
)
def test_halves_go_to_the_even_neighbour(amount: str, expected: int) -> None:
    assert round_minor(Decimal(amount)) == expected


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(123456, "USD", "1,234.56 USD"), (500, "JPY", "500 JPY"), (-1005, "KWD", "-1.005 KWD")],
)
def test_amounts_are_written_with_the_currencys_places(
    minor: int, currency: str, text: str
) -> None:
    assert format_minor(minor, currency) == text


@pytest.mark.parametrize(
    ("stripe", "currency", "minor"),
    [
        (100_00, "ISK", 100),
        (100_00, "ugx", 100),
        (500, "JPY", 500),
        (999, "USD", 999),
        (1_010, "KWD", 1_010),
        (500, "MGA", 500_00),
        (-500, "mga", -500_00),
    ],
)
def test_stripes_own_exponents_are_honoured(stripe: int, currency: str, minor: int) -> None:
    assert from_stripe(stripe, currency) == minor
    assert to_stripe(minor, currency) == stripe


def test_a_fraction_of_a_krona_is_no_amount() -> None:
    with pytest.raises(InvalidInput, match="multiples of 100"):
        from_stripe(150, "ISK")


@pytest.mark.parametrize(
    ("minor", "currency", "step"),
    [(150, "MGA", 100), (1_005, "KWD", 10), (1, "BHD", 10), (-15, "jod", 10)],
)
def test_stripe_is_told_no_amount_that_it_does_not_take(
    minor: int, currency: str, step: int
) -> None:
    with pytest.raises(InvalidInput, match=f"multiples of {step}$"):
        to_stripe(minor, currency)


def test_stripe_is_believed_whatever_it_says_of_dinars() -> None:
    assert from_stripe(1_005, "KWD") == 1_005


@pytest.mark.parametrize(
    ("minor", "currency", "payable"),
    [
        (15_079, "KWD", 15_080),
        (15_075, "KWD", 15_080),
        (15_065, "KWD", 15_060),
        (150, "MGA", 200),
        (250, "MGA", 200),
        (199, "USD", 199),
        (199, "JPY", 199),
    ],
)
def test_what_is_asked_for_can_be_paid(minor: int, currency: str, payable: int) -> None:
    assert round_payable(minor, currency) == payable
    assert from_stripe(to_stripe(payable, currency), currency) == payable


@pytest.mark.parametrize(
    ("exact", "shares"),
    [
        (["100/3"] * 3, [34, 33, 33]),
        (["2", "3"], [2, 3]),
        (["7/6", "7/3", "7/2"], [1, 2, 4]),
        (["5/2", "-1/2"], [3, -1]),
        (["-10/3", "-20/3"], [-3, -7]),
        ([], []),
    ],
)
def test_a_remainder_goes_to_whom_rounding_down_cost_most(
    exact: list[str], shares: list[int]
) -> None:
    assert spread_minor([Fraction(part) for part in exact]) == shares


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fractions(-(10**9), 10**9), max_size=8))
def test_shares_add_up_and_none_is_a_unit_off(exact: list[Fraction]) -> None:
    shares = spread_minor(exact)
    assert sum(shares) == round(sum(exact, Fraction(0)))
    assert all(abs(share - part) < 1 for share, part in zip(shares, exact, strict=True))
