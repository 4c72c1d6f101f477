"""Notices of a higher price: which customers wait to be told, and that they were."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.decisions import Decision
from services.pricing.models import Notice
from shared.errors import NotFound


class NoticeNotFound(NotFound):
    title = "There is no such notice"


async def note_told(session: AsyncSession, notice_id: UUID, decision: Decision) -> Notice:
    """The customer was told now; that he was told before stands.  Whether it was in time shows when it is due."""
    statement = select(Notice).where(Notice.id == notice_id).with_for_update()
    notice = await session.scalar(statement.execution_options(populate_existing=True))
    if notice is None:
        raise NoticeNotFound(f"there is no notice {notice_id}")
    if notice.told_at is None:
        notice.told_at, notice.told_by = decision.at, decision.by
        await session.flush()
    return notice


async def list_notices(
    session: AsyncSession, untold: bool, after: UUID | None, limit: int
) -> Sequence[Notice]:
    statement = select(Notice).order_by(Notice.id).limit(limit)
    if untold:
        statement = statement.where(Notice.told_at.is_(None))
    if after is not None:
        statement = statement.where(Notice.id > after)
    return (await session.scalars(statement)).all()
