"""A published version on its way to the subscriptions, over HTTP."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter

from services.pricing.api.access import PRICING_READ
from services.pricing.api.shapes import View
from services.pricing.api.versions import Number
from services.pricing.rollout import Outcome, progress
from shared.web import Session

router = APIRouter(prefix="/configs/{version}/rollout", tags=["rollouts"])


class RolloutView(View):
    """`listed` is `todo` and the sum of `outcomes`; it grows while `status` is listing."""

    price_version: int
    status: Literal["listing", "running", "paused", "stopped", "canceled", "done"]
    listed: int
    todo: int
    outcomes: dict[Outcome, int]
    started_at: datetime
    finished_at: datetime | None


@router.get("", dependencies=[PRICING_READ])
async def rollout(version: Number, session: Session) -> RolloutView:
    """How many subscriptions were moved, kept, excluded, deferred or failed, and how many wait."""
    return RolloutView.model_validate(await progress(session, version))
