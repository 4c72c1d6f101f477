"""The fields an administrator fills in, checked as they come.  Pure; a float is refused, since it cannot be exact."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, WithJsonSchema

from services.pricing.domain import MAX_AMOUNT_MINOR, plain
from shared.errors import UnknownCurrency
from shared.money import CURRENT, currency_code

ADMIN_PERCENTAGE_MIN = Decimal("0.1")
ADMIN_PERCENTAGE_MAX = Decimal(50)
# As many as the columns that keep what was applied: numeric(7, 4) and numeric(7, 6).
PERCENTAGE_PLACES = 4
RATE_PLACES = 6

PLACE = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")
DELIVERY_TYPE = r"^[a-z][a-z0-9_]{0,39}$"
DECIMAL_TEXT = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10})?")
EXACT_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": f"^{DECIMAL_TEXT.pattern}$"},
        {"type": "integer", "minimum": 0},
    ],
    "examples": ["12.5"],
}


def _exact(value: object) -> Decimal:
    match value:
        case bool():
            raise ValueError("write a number")
        case Decimal() | int():
            return Decimal(value)
        case str() if DECIMAL_TEXT.fullmatch(value):
            return Decimal(value)
        case float():
            raise ValueError(f'write a string such as "{value}": a JSON fraction is not exact')
        case _:
            raise ValueError('write a decimal number as a string such as "12.5"')


def _currency(text: str) -> str:
    try:
        code = currency_code(text)
    except UnknownCurrency as error:
        raise ValueError(error.detail) from error
    if text != code:
        raise ValueError(f"write the currency as {code}")
    if code not in CURRENT:
        raise ValueError(f"{code} is no longer a currency; nothing new is priced in it")
    return code


def _place(text: str) -> str:
    if not PLACE.fullmatch(text):
        raise ValueError(f"{text!r} is no place; write ISO 3166 codes such as DE or US-CA")
    return text


def _places_at_most(places: int) -> AfterValidator:
    def check(number: Decimal) -> Decimal:
        shortest = plain(number)
        if len(str(shortest).partition(".")[2]) > places:
            raise ValueError(f"{number} has more than {places} decimal places")
        return shortest

    return AfterValidator(check)


Exact = Annotated[Decimal, BeforeValidator(_exact), WithJsonSchema(EXACT_SCHEMA)]
Percentage = Annotated[
    Exact,
    Field(ge=ADMIN_PERCENTAGE_MIN, le=ADMIN_PERCENTAGE_MAX),
    _places_at_most(PERCENTAGE_PLACES),
]
Rate = Annotated[Exact, Field(ge=0, le=1), _places_at_most(RATE_PLACES)]
CurrencyCode = Annotated[str, Field(min_length=3, max_length=3), AfterValidator(_currency)]
DeliveryType = Annotated[str, Field(pattern=DELIVERY_TYPE)]
Place = Annotated[str, Field(min_length=2, max_length=6), AfterValidator(_place)]
AmountMinor = Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT_MINOR)]
