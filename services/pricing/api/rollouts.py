"""A published version on its way to the subscriptions, over HTTP: how far it is, and an operator's hand on it."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing import operating
from services.pricing.api.access import PRICING_READ, PricingApprover, PricingWriter
from services.pricing.api.shapes import DEFAULT_LIMIT, AfterId, Limit, Page, View
from services.pricing.api.versions import Because, Number
from services.pricing.campaign import Outcome
from services.pricing.models import RolloutItem
from services.pricing.operating import progress
from services.pricing.versions import get_config
from shared.web import Now, Session

router = APIRouter(prefix="/configs/{version}/rollout", tags=["rollouts"])

OfOutcome = Annotated[
    Outcome | Literal["todo"] | None, Query(alias="outcome", description="only those")
]


class RolloutView(View):
    """`listed` is `todo` and the sum of `outcomes`; it grows while `status` is listing, up to about `expected`.

    `later` of the `todo` wait for their renewal, their notice or their date, the first at `next_due_at`.
    `detail` is why it is paused, stopped or canceled; above `drift_limit` it stops by itself.
    """

    price_version: int
    status: Literal["listing", "running", "paused", "stopped", "canceled", "done"]
    listed: int
    todo: int
    later: int
    expected: int
    outcomes: dict[Outcome, int]
    codes: dict[Outcome, dict[str, int]]
    drifted: int
    drift_limit: int | None
    detail: str | None
    next_due_at: datetime | None
    started_at: datetime
    finished_at: datetime | None


class RolloutLine(View):
    """What became of one subscription and why; `outcome` is none while it waits until `due_at`."""

    subscription_id: UUID
    outcome: Outcome | None
    code: str | None
    detail: str | None
    due_at: datetime | None
    effective_at: datetime | None
    notice_id: UUID | None


@router.get("", dependencies=[PRICING_READ])
async def rollout(version: Number, session: Session, now: Now) -> RolloutView:
    """How many subscriptions were moved, kept, excluded, deferred or failed and why, and how many wait."""
    return await _view(session, version, now)


@router.get("/subscriptions", dependencies=[PRICING_READ])
async def lines(
    version: Number,
    session: Session,
    limit: Limit = DEFAULT_LIMIT,
    after: AfterId = None,
    outcome: OfOutcome = None,
) -> Page[RolloutLine]:
    """Subscription by subscription, in order of id."""
    await get_config(session, version)
    item = RolloutItem
    statement = select(item).where(item.price_version == version)
    if outcome == "todo":
        statement = statement.where(item.outcome.is_(None))
    elif outcome is not None:
        statement = statement.where(item.outcome == outcome)
    if after is not None:
        statement = statement.where(item.subscription_id > after)
    found = (await session.scalars(statement.order_by(item.subscription_id).limit(limit))).all()
    following = str(found[-1].subscription_id) if len(found) == limit else None
    return Page(items=[RolloutLine.model_validate(line) for line in found], next=following)


@router.post("/pause")
async def pause(
    version: Number, body: Because, session: Session, operator: PricingWriter
) -> RolloutView:
    """Move nobody until it is resumed."""
    await operating.pause(session, version, replace(operator, why=body.reason))
    return await _view(session, version, operator.at)


@router.post("/resume")
async def resume(
    version: Number, body: Because, session: Session, operator: PricingWriter
) -> RolloutView:
    """Go on, after a pause or where drift stopped it; what differs from the preview stays set aside."""
    await operating.resume(session, version, replace(operator, why=body.reason))
    return await _view(session, version, operator.at)


@router.post("/cancel")
async def cancel(
    version: Number, body: Because, session: Session, operator: PricingWriter
) -> RolloutView:
    """Move nobody any more; whoever was moved stays so until a version reverts this one."""
    await operating.cancel(session, version, replace(operator, why=body.reason))
    return await _view(session, version, operator.at)


@router.post("/apply-deferred")
async def apply_deferred(
    version: Number, body: Because, session: Session, approver: PricingApprover
) -> RolloutView:
    """Move those set aside because they are not what the preview showed, as they come out now."""
    await operating.apply_deferred(session, version, replace(approver, why=body.reason))
    return await _view(session, version, approver.at)


@router.post("/retry-failed")
async def retry_failed(
    version: Number, body: Because, session: Session, operator: PricingWriter
) -> RolloutView:
    """Try again what failed, once its reason is gone."""
    await operating.retry_failed(session, version, replace(operator, why=body.reason))
    return await _view(session, version, operator.at)


async def _view(session: AsyncSession, version: int, now: datetime) -> RolloutView:
    await session.flush()
    return RolloutView.model_validate(await progress(session, version, now))
