"""What an administrator may write into a price version, and what a stored version says.  Pure."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.pricing.composition import Changes
from services.pricing.domain import plain
from services.pricing.fields import (
    AmountMinor,
    CurrencyCode,
    DeliveryType,
    Exact,
    Percentage,
    Place,
    Rate,
)
from services.pricing.scopes import Instant, Scope
from services.pricing.timing import Timing

# Of the subscriptions that the preview moves: more of them than this turning out otherwise stops the rollout.
DRIFT_LIMIT_PERCENT = Decimal(1)

DriftLimit = Annotated[Exact, Field(ge=0, le=100, decimal_places=2)]
DeliveryCosts = Annotated[dict[DeliveryType, AmountMinor], Field(min_length=1, max_length=50)]
VariantPrices = Annotated[dict[UUID, AmountMinor], Field(min_length=1, max_length=10_000)]


class ConfigDraft(BaseModel):
    """A version's content: percentage 0.1–50, delivery cost by currency and type, tax rate 0–1 by place, variant prices.

    For everything (no scope) the first three are given; a cohort's version leaves out what it does not change.
    `effective_from` left out is the moment of publication.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Scope = Scope()
    admin_percentage: Percentage | None = None
    delivery_cost_minor: Annotated[dict[CurrencyCode, DeliveryCosts], Field(max_length=200)] = (
        Field(default_factory=dict)
    )
    tax_rates: Annotated[dict[Place, Rate], Field(max_length=5_000)] = Field(default_factory=dict)
    tax_inclusive: Annotated[frozenset[Place], Field(max_length=5_000)] | None = None
    variant_prices_minor: Annotated[dict[CurrencyCode, VariantPrices], Field(max_length=200)] = (
        Field(default_factory=dict)
    )
    timing: Timing = Timing()
    effective_from: Instant | None = None
    drift_limit_percent: DriftLimit = DRIFT_LIMIT_PERCENT

    @model_validator(mode="after")
    def _says_enough(self) -> Self:
        """For everything it is whole; for a cohort it may say nothing: the cohort is priced as all others then."""
        needed = {
            "admin_percentage": self.admin_percentage is not None,
            "delivery_cost_minor": bool(self.delivery_cost_minor),
            "tax_rates": bool(self.tax_rates),
        }
        missing = [name for name, given in needed.items() if not given]
        if self.scope.everything and missing:
            raise ValueError(f"a version for everything gives {' and '.join(missing)} too")
        return self

    @property
    def changes(self) -> Changes:
        return Changes(
            self.admin_percentage,
            self.delivery_cost_minor,
            self.tax_rates,
            self.tax_inclusive,
            self.variant_prices_minor,
        )

    def stored(self) -> dict[str, object]:
        """As the columns of pricing_configs keep it; what is left out is NULL there."""
        written = self.model_dump(mode="json")
        inclusive = self.tax_inclusive
        return {
            "admin_percentage": self.admin_percentage,
            "delivery_cost_minor": written["delivery_cost_minor"] or None,
            "tax_rates": written["tax_rates"] or None,
            "tax_inclusive": None if inclusive is None else sorted(inclusive),
            "variant_prices_minor": written["variant_prices_minor"],
            "timing": written["timing"],
            "effective_from": self.effective_from,
            "drift_limit_percent": self.drift_limit_percent,
        }


class RevertDraft(BaseModel):
    """How a revert reaches the subscriptions; what it says is what was in force before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timing: Timing = Timing()
    effective_from: Instant | None = None
    drift_limit_percent: DriftLimit = DRIFT_LIMIT_PERCENT


def stored_changes(
    admin_percentage: Decimal | None,
    delivery_cost_minor: Mapping[str, Mapping[str, int]] | None,
    tax_rates: Mapping[str, str] | None,
    tax_inclusive: list[str] | None,
    variant_prices_minor: Mapping[str, Mapping[str, int]],
) -> Changes:
    """Changes as a row of pricing_configs keeps them; rates are stored as text."""
    return Changes(
        None if admin_percentage is None else plain(admin_percentage),
        delivery_cost_minor or {},
        _rates(tax_rates or {}),
        None if tax_inclusive is None else frozenset(tax_inclusive),
        {
            currency: {UUID(variant): price for variant, price in prices.items()}
            for currency, prices in variant_prices_minor.items()
        },
    )


def _rates(tax_rates: Mapping[str, str]) -> dict[str, Decimal]:
    try:
        return {place: plain(Decimal(rate)) for place, rate in tax_rates.items()}
    except InvalidOperation as error:
        raise ValueError(f"a stored tax rate is no number: {dict(tax_rates)}") from error
