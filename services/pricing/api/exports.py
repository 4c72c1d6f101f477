"""The cost history as a CSV file, streamed over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from services.pricing.api.access import SUBSCRIPTIONS_READ
from services.pricing.api.shapes import AfterLine
from services.pricing.export import extract, rows
from shared.db import Sessions

router = APIRouter(tags=["subscriptions"])


class Csv(StreamingResponse):
    media_type = "text/csv"


@router.get("/cost-history.csv", dependencies=[SUBSCRIPTIONS_READ], response_class=Csv)
async def cost_history(
    request: Request,
    subscription_id: Annotated[UUID | None, Query(description="only its lines")] = None,
    after: AfterLine = 0,
) -> Csv:
    """Every line of the cost history, oldest first, with a heading; how many in `Farebox-Lines`.

    To go on, ask for those `after` the last id that was read: no line is missed.
    """
    sessions: Sessions = request.app.state.sessions
    wanted = await extract(sessions, subscription_id, after)
    headers = {
        "Content-Disposition": 'attachment; filename="cost-history.csv"',
        "Farebox-Lines": str(wanted.count),
    }
    return Csv(rows(sessions, wanted), headers=headers)
