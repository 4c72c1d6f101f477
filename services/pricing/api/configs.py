"""Price versions over HTTP: draft, publish, read, and follow the rollout."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Path, status

from services.pricing.api.access import PRICING_READ, PricingWriter
from services.pricing.api.shapes import (
    DEFAULT_LIMIT,
    AfterVersion,
    Input,
    Instant,
    Limit,
    Page,
    Text,
    View,
)
from services.pricing.drafts import ConfigDraft
from services.pricing.models import PricingConfig
from services.pricing.rollout import Outcome, progress
from services.pricing.versions import (
    Publication,
    create_draft,
    get_config,
    list_configs,
    publish_version,
)
from shared.web import Session

router = APIRouter(prefix="/configs", tags=["price versions"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


class Publish(Input):
    """Why, and from when: now, where `effective_from` is left out."""

    reason: Text
    effective_from: Instant | None = None


class ConfigView(View):
    """A price version.  In force from `effective_from` until `effective_to`."""

    version: int
    status: Literal["draft", "scheduled", "active", "retired", "withdrawn"]
    admin_percentage: Decimal
    delivery_cost_minor: dict[str, dict[str, int]]
    tax_rates: dict[str, Decimal]
    created_by: str
    created_at: datetime
    reason: str | None
    published_by: str | None
    published_at: datetime | None
    effective_from: datetime | None
    effective_to: datetime | None


class RolloutView(View):
    """`listed` is `todo` and the sum of `outcomes`; it grows while `status` is listing."""

    price_version: int
    status: Literal["listing", "running", "done"]
    listed: int
    todo: int
    outcomes: dict[Outcome, int]
    started_at: datetime
    finished_at: datetime | None


@router.post("", status_code=status.HTTP_201_CREATED)
async def create(draft: ConfigDraft, session: Session, why: PricingWriter) -> ConfigView:
    """Write a draft.  It prices nothing until it is published."""
    return _view(await create_draft(session, draft, why.changed_by, why.at))


@router.get("", dependencies=[PRICING_READ])
async def versions(
    session: Session, limit: Limit = DEFAULT_LIMIT, after: AfterVersion = 0
) -> Page[ConfigView]:
    """All versions, oldest first."""
    found = await list_configs(session, after, limit)
    following = str(found[-1].version) if len(found) == limit else None
    return Page(items=[_view(config) for config in found], next=following)


@router.get("/{version}", dependencies=[PRICING_READ])
async def read(version: Number, session: Session) -> ConfigView:
    """One version."""
    return _view(await get_config(session, version))


@router.post("/{version}/publish")
async def publish(
    version: Number, body: Publish, session: Session, why: PricingWriter
) -> ConfigView:
    """Put a draft in force.  Every subscription is then repriced; follow it at `…/rollout`."""
    publication = Publication(body.reason, why.changed_by, body.effective_from, why.at, why.cause)
    return _view(await publish_version(session, version, publication))


@router.get("/{version}/rollout", dependencies=[PRICING_READ])
async def rollout(version: Number, session: Session) -> RolloutView:
    """How many subscriptions were moved, kept, excluded, deferred or failed, and how many wait."""
    return RolloutView.model_validate(await progress(session, version))


def _view(config: PricingConfig) -> ConfigView:
    return ConfigView.model_validate(config)
