"""Price versions over HTTP: read them, revert the one in force, and who decided what.  They are written as drafts."""

from datetime import datetime

from fastapi import APIRouter, status

from services.pricing.api.access import PRICING_READ, PricingWriter
from services.pricing.api.shapes import DEFAULT_LIMIT, AfterVersion, Limit, Page, View
from services.pricing.api.versions import ConfigView, Number, view, views
from services.pricing.decisions import decisions_on
from services.pricing.drafts import RevertDraft
from services.pricing.life import draft_revert
from services.pricing.versions import get_config, list_configs
from shared.web import Session

router = APIRouter(prefix="/configs", tags=["price versions"])


class DecisionView(View):
    """Who did what, when and why."""

    action: str
    decided_by: str
    decided_at: datetime
    reason: str | None


@router.get("", dependencies=[PRICING_READ])
async def versions(
    session: Session, limit: Limit = DEFAULT_LIMIT, after: AfterVersion = 0
) -> Page[ConfigView]:
    """All versions, oldest first."""
    found = await list_configs(session, after, limit)
    following = str(found[-1].version) if len(found) == limit else None
    return Page(items=await views(session, found), next=following)


@router.get("/{version}", dependencies=[PRICING_READ])
async def read(version: Number, session: Session) -> ConfigView:
    """One version."""
    return await view(session, await get_config(session, version))


@router.get("/{version}/decisions", dependencies=[PRICING_READ])
async def decisions(version: Number, session: Session) -> list[DecisionView]:
    """Who drafted, edited, previewed, approved and published it, and what was done to its rollout; oldest first."""
    await get_config(session, version)
    return [DecisionView.model_validate(line) for line in await decisions_on(session, version)]


@router.post("/{version}/revert", status_code=status.HTTP_201_CREATED)
async def revert(
    version: Number, wishes: RevertDraft, session: Session, author: PricingWriter
) -> ConfigView:
    """Draft a version that gives everybody whom this one moved what he had before; it goes through the same door."""
    return await view(session, await draft_revert(session, version, wishes, author))
