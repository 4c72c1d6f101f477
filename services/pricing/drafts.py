"""What an administrator may write into a price version.  Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.pricing.domain import Terms, plain
from services.pricing.fields import (
    AmountMinor,
    CurrencyCode,
    DeliveryType,
    Percentage,
    Place,
    Rate,
)


class ConfigDraft(BaseModel):
    """A version's content: percentage 0.1–50, delivery cost by currency and type, tax rate 0–1 by place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    admin_percentage: Percentage
    delivery_cost_minor: dict[
        CurrencyCode, Annotated[dict[DeliveryType, AmountMinor], Field(min_length=1, max_length=50)]
    ] = Field(min_length=1, max_length=200)
    tax_rates: dict[Place, Rate] = Field(min_length=1, max_length=5_000)

    @property
    def terms(self) -> Terms:
        return Terms(self.admin_percentage, self.delivery_cost_minor, self.tax_rates)


def stored_terms(
    admin_percentage: Decimal,
    delivery_cost_minor: Mapping[str, Mapping[str, int]],
    tax_rates: Mapping[str, str],
) -> Terms:
    """Terms as a row of pricing_configs keeps them; rates are stored as text."""
    try:
        rates = {place: plain(Decimal(rate)) for place, rate in tax_rates.items()}
    except InvalidOperation as error:
        raise ValueError(f"a stored tax rate is no number: {dict(tax_rates)}") from error
    return Terms(plain(admin_percentage), delivery_cost_minor, rates)
