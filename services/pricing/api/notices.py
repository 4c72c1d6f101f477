"""Notices over HTTP: who is to be told of a higher price, and that he was."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from services.pricing.api.access import PRICING_READ, Notifier
from services.pricing.api.shapes import DEFAULT_LIMIT, AfterId, Limit, Page, View
from services.pricing.notices import list_notices, note_told
from shared.web import Session

router = APIRouter(prefix="/notices", tags=["notices"])

Untold = Annotated[bool, Query(description="only those whose customer was not told yet")]


class NoticeView(View):
    """Tell the customer by `notify_by`: told later, or never, he keeps his price."""

    id: UUID
    price_version: int
    subscription_id: UUID
    user_id: UUID
    effective_at: datetime
    notify_by: datetime
    created_at: datetime
    told_at: datetime | None
    told_by: str | None


@router.get("", dependencies=[PRICING_READ])
async def notices(
    session: Session,
    limit: Limit = DEFAULT_LIMIT,
    after: AfterId = None,
    untold: Untold = False,
) -> Page[NoticeView]:
    """Notices in order of id; the fact pricing.notice_due says the same at once."""
    found = await list_notices(session, untold, after, limit)
    following = str(found[-1].id) if len(found) == limit else None
    return Page(items=[NoticeView.model_validate(notice) for notice in found], next=following)


@router.post("/{notice_id}/told")
async def told(notice_id: UUID, session: Session, notifier: Notifier) -> NoticeView:
    """The customer was told, now.  Saying it again changes nothing."""
    return NoticeView.model_validate(await note_told(session, notice_id, notifier))
