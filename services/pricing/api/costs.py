"""What a subscription cost at an instant, as known at another, over HTTP."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.pricing.api.access import SUBSCRIPTIONS_READ
from services.pricing.api.shapes import Instant, View
from services.pricing.domain import CostKind
from services.pricing.explaining import Explained, Part, explain
from services.pricing.scopes import LAST
from shared.events import CostBreakdown
from shared.web import Now, Session

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])


class ComponentView(View):
    """A line of the document; the amounts of all add up to `total_minor`.

    `cause_id` is the event or request that brought it; of what a version says, its publication.
    """

    part: Part
    amount_minor: int
    detail: str
    price_version: int | None
    variant_id: UUID | None
    cause_id: str | None


class CauseView(View):
    """An event or a request; `type` and `occurred_at` where pricing published it."""

    id: str
    type: str | None
    occurred_at: datetime | None


class CostView(View):
    """The line of the history that was in effect `at`, as known `as_known_at`.

    `recomputed`: computing it again from the versions and the box it names gives the same; `fault`: what, if not.
    `canceled_at`: since when it is delivered no more, where that was by then.
    """

    subscription_id: UUID
    at: datetime
    as_known_at: datetime
    cost_history_id: int
    history_hash: str | None
    kind: CostKind
    currency: str
    total_minor: int
    effective_at: datetime
    recorded_at: datetime
    reason: str
    changed_by: str
    price_version: int
    price_versions: list[int]
    components: list[ComponentView]
    causes: list[CauseView]
    breakdown: CostBreakdown
    recomputed: bool
    fault: str | None
    canceled_at: datetime | None


@router.get("/{subscription_id}/cost", dependencies=[SUBSCRIPTIONS_READ])
async def cost_at(
    subscription_id: UUID,
    session: Session,
    now: Now,
    at: Annotated[Instant | None, Query(description="In effect then; now by default")] = None,
    as_known_at: Annotated[
        Instant | None, Query(description="As it was known then; by default as it is known now")
    ] = None,
) -> CostView:
    """What it cost, component by component, and why."""
    moment = at or now
    # What was recorded since `now` was taken is known by now as well.
    found = await explain(session, subscription_id, moment, as_known_at or LAST)
    return _view(found, moment, as_known_at or now)


def _view(found: Explained, at: datetime, as_known_at: datetime) -> CostView:
    line = found.line
    return CostView(
        subscription_id=line.subscription_id,
        at=at,
        as_known_at=as_known_at,
        cost_history_id=line.id,
        history_hash=line.line_hash.hex() if line.line_hash else None,
        kind=line.kind,
        currency=line.currency,
        total_minor=line.new_total_minor,
        effective_at=line.effective_at,
        recorded_at=line.recorded_at,
        reason=line.reason,
        changed_by=line.changed_by,
        price_version=line.price_version,
        price_versions=list(found.price_versions),
        components=[ComponentView.model_validate(each) for each in found.components],
        causes=[CauseView.model_validate(each) for each in found.causes],
        breakdown=found.breakdown,
        recomputed=found.recomputed,
        fault=found.fault,
        canceled_at=found.canceled_at,
    )
