"""Money is an int of minor units and an ISO 4217 code; this is the one place that rounds."""

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from iso4217 import Currency

from shared.errors import InvalidInput, UnknownCurrency

# Fund codes and metals have no minor unit; nobody is billed in them.
CURRENT: dict[str, int] = {c.code: c.exponent for c in Currency if c.exponent is not None}

# What ISO 4217 has withdrawn since 2011, and STD, which is Stripe's for São Tomé to this day: payments made in
# them are still refunded and disputed, new prices are not.
RETIRED = {
    **dict.fromkeys(("ANG", "BGN", "CUC", "EEK", "HRK", "LTL", "LVL", "MRO", "SLL", "STD"), 2),
    **dict.fromkeys(("VEF", "ZMK", "ZWL"), 2),
    "BYR": 0,
}
EXPONENTS = CURRENT | {code: places for code, places in RETIRED.items() if code not in CURRENT}

# Where Stripe counts otherwise than ISO 4217: krónur and shillings, which have no parts, in hundredths;
# ariary, which have (fifths, written as hundredths), whole (docs.stripe.com/currencies).
STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}

# What an amount must be a multiple of to be paid at all: Stripe takes three-decimal currencies in tens of the
# minor unit, and ariary whole.
PAYABLE_STEPS = {"BHD": 10, "JOD": 10, "KWD": 10, "OMR": 10, "TND": 10, "MGA": 100}


def currency_code(text: str) -> str:
    """The upper-case ISO 4217 code.  Raises UnknownCurrency."""
    code = text.strip().upper()
    if code not in EXPONENTS:
        raise UnknownCurrency(
            f"{text!r} is not an ISO 4217 currency code; use one such as USD", currency=text
        )
    return code


def exponent(currency: str) -> int:
    """How many decimal places the minor unit stands behind: JPY 0, USD 2, KWD 3."""
    return EXPONENTS[currency_code(currency)]


def round_minor(amount: Decimal) -> int:
    """A document line in whole minor units: half-even, once per line."""
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def payable_step(currency: str) -> int:
    """The smallest amount that can be paid, in minor units: 10 fils of a dinar, one cent of a dollar."""
    return PAYABLE_STEPS.get(currency, 1)


def round_payable(amount_minor: int, currency: str) -> int:
    """What a document asks for: the nearest amount that can be paid, half-even as its lines."""
    step = payable_step(currency)
    return round_minor(Decimal(amount_minor) / step) * step


def spread_minor(exact: Sequence[Fraction]) -> list[int]:
    """Parts of a total in whole minor units: they add up to the total, half-even, and each is less than one off.

    Each is rounded down; the units that are left go one by one to the largest remainders, the earlier part first
    where two are equal.
    """
    total = round(sum(exact, Fraction(0)))
    shares = [part.numerator // part.denominator for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda n: shares[n] - exact[n])
    for n in by_remainder[: total - sum(shares)]:
        shares[n] += 1
    return shares


def format_minor(amount_minor: int, currency: str) -> str:
    """`1234, "USD"` as `12.34 USD`, for people."""
    places = exponent(currency)
    return f"{Decimal(amount_minor).scaleb(-places):,.{places}f} {currency}"


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's integer in our minor units.  Raises InvalidInput where it is no whole unit."""
    code = currency_code(currency)
    return _rescaled(amount, code, _stripe_exponent(code), EXPONENTS[code])


def to_stripe(amount_minor: int, currency: str) -> int:
    """Our minor units as Stripe's integer.  Raises InvalidInput where Stripe cannot say it, or would not take it."""
    code = currency_code(currency)
    if amount_minor % payable_step(code):
        step = payable_step(code)
        raise InvalidInput(f"{amount_minor} cannot be paid in {code}: it takes multiples of {step}")
    return _rescaled(amount_minor, code, EXPONENTS[code], _stripe_exponent(code))


def _stripe_exponent(code: str) -> int:
    return STRIPE_EXPONENTS.get(code, EXPONENTS[code])


def _rescaled(amount: int, code: str, places: int, wanted: int) -> int:
    if wanted >= places:
        return amount * int(10 ** (wanted - places))
    factor = int(10 ** (places - wanted))
    if amount % factor:
        raise InvalidInput(f"{amount} is no whole number of {code}: it takes multiples of {factor}")
    return amount // factor
