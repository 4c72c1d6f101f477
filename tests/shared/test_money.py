"""Minor units, exponents and the one rounding."""

from decimal import Decimal

import pytest

from shared.errors import InvalidInput, UnknownCurrency
from shared.money import currency_code, exponent, format_minor, from_stripe, round_minor, to_stripe


@pytest.mark.parametrize(("currency", "places"), [("JPY", 0), ("USD", 2), ("kwd", 3)])
def test_the_exponent_is_the_currencys_own(currency: str, places: int) -> None:
    assert exponent(currency) == places


@pytest.mark.parametrize("text", ["", "US", "DOLLAR", "XXQ", "XAU"])
def test_what_is_no_currency_is_refused_by_name(text: str) -> None:
    with pytest.raises(UnknownCurrency, match="ISO 4217"):
        currency_code(text)


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
        (1_005, "KWD", 1_005),
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


def test_stripe_is_told_no_fraction_of_an_ariary() -> None:
    with pytest.raises(InvalidInput, match="multiples of 100"):
        to_stripe(150, "MGA")
