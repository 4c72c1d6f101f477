"""Who did what to a price version or its rollout, when and why: a line each, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.models import PriceDecision
from shared.trace import Cause


@dataclass(frozen=True)
class Decision:
    """Somebody's step, and what it came with; `why` where somebody has to say so."""

    by: str
    why: str | None
    at: datetime
    cause: Cause


async def note(session: AsyncSession, version: int, action: str, decision: Decision) -> None:
    """Appended in the transaction of what was decided."""
    session.add(
        PriceDecision(
            price_version=version,
            action=action,
            decided_by=decision.by,
            reason=decision.why,
            decided_at=decision.at,
            cause_id=decision.cause.id,
        )
    )
    await session.flush()


async def decisions_on(session: AsyncSession, version: int) -> Sequence[PriceDecision]:
    """Oldest first; as many as people made, so that a page would be more than there are."""
    statement = select(PriceDecision).where(PriceDecision.price_version == version)
    return (await session.scalars(statement.order_by(PriceDecision.id))).all()
