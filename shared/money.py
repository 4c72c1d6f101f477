"""Money is an int of minor units and an ISO 4217 code; this is the one place that rounds."""

from decimal import ROUND_HALF_EVEN, Decimal

from iso4217 import Currency

from shared.errors import InvalidInput, UnknownCurrency

# Fund codes and metals have no minor unit; nobody is billed in them.
EXPONENTS: dict[str, int] = {c.code: c.exponent for c in Currency if c.exponent is not None}

# Where Stripe counts otherwise than ISO 4217: krónur and shillings, which have no parts, in hundredths;
# ariary, which have (fifths, written as hundredths), whole (docs.stripe.com/currencies).
STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}


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


def format_minor(amount_minor: int, currency: str) -> str:
    """`1234, "USD"` as `12.34 USD`, for people."""
    places = exponent(currency)
    return f"{Decimal(amount_minor).scaleb(-places):,.{places}f} {currency}"


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's integer in our minor units.  Raises InvalidInput where it is no whole unit."""
    code = currency_code(currency)
    return _rescaled(amount, code, _stripe_exponent(code), EXPONENTS[code])


def to_stripe(amount_minor: int, currency: str) -> int:
    """Our minor units as Stripe's integer.  Raises InvalidInput where Stripe cannot say it."""
    code = currency_code(currency)
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
