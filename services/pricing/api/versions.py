"""A price version as routes answer with it."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path
from pydantic import AfterValidator, JsonValue
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.api.shapes import Input, Text, View
from services.pricing.domain import plain
from services.pricing.models import PriceScope, PricingConfig

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
# 10, not 10.0000: one way to write a number, whoever stored it.
Plain = Annotated[Decimal, AfterValidator(plain)]
VersionStatus = Literal[
    "draft", "previewed", "approved", "scheduled", "active", "retired", "withdrawn"
]


class Because(Input):
    """Why something is done; it stands in the version's decisions."""

    reason: Text


class ConfigView(View):
    """A price version: what it says (none: unchanged), to whom, its life, and from when until when it is in force.

    Of a draft, `effective_from` is when it is to take effect; none: when it is published.
    """

    version: int
    status: VersionStatus
    scope: dict[str, JsonValue]  # empty: everything
    admin_percentage: Plain | None
    delivery_cost_minor: dict[str, dict[str, int]] | None
    tax_rates: dict[str, Decimal] | None
    tax_inclusive: list[str] | None
    variant_prices_minor: dict[str, dict[UUID, int]]
    timing: dict[str, JsonValue]
    drift_limit_percent: Plain
    reverts: int | None
    draft_revision: int
    created_by: str
    created_at: datetime
    authors: list[str]
    preview_hash: str | None
    approved_by: str | None
    approved_at: datetime | None
    approved_hash: str | None
    reason: str | None
    published_by: str | None
    published_at: datetime | None
    effective_from: datetime | None
    effective_to: datetime | None


async def views(session: AsyncSession, configs: Sequence[PricingConfig]) -> list[ConfigView]:
    """With the definition of whom each is for."""
    wanted = select(PriceScope.id, PriceScope.definition).where(
        PriceScope.id.in_({config.scope_id for config in configs})
    )
    scopes: dict[int, dict[str, JsonValue]] = dict((await session.execute(wanted)).all())
    return [
        ConfigView.model_validate(_columns(config) | {"scope": scopes[config.scope_id]})
        for config in configs
    ]


async def view(session: AsyncSession, config: PricingConfig) -> ConfigView:
    [found] = await views(session, [config])
    return found


def _columns(config: PricingConfig) -> dict[str, object]:
    names = ConfigView.model_fields.keys() - {"scope"}
    return {name: getattr(config, name) for name in names}
