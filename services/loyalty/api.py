"""Points over HTTP: an account, and each line of its ledger with the payment that caused it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.loyalty.domain import WINDOW, next_tier, standing_of
from services.loyalty.handlers import load_accounts
from services.loyalty.models import LoyaltyAccount, PointsTransaction
from shared.auth import require
from shared.errors import NotFound
from shared.events import TierName
from shared.web import Now, Session

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry

router = APIRouter(tags=["loyalty"], dependencies=[Depends(require("loyalty:read", always=False))])


class AccountView(BaseModel):
    """`tier` is as booked; `tier_until` is when it falls if nothing more is earned."""

    user_id: UUID
    balance_points: int
    tier: TierName
    tier_until: datetime | None
    points_12_months: int
    next_tier: TierName | None
    points_to_next_tier: int | None
    opened_at: datetime
    revision: int


class TransactionView(BaseModel):
    """A line of the ledger: what was booked, for which state of which payment, by which rule."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: str
    points: int
    payment_id: UUID
    payment_revision: int
    rule: str
    event_id: UUID
    occurred_at: datetime
    recorded_at: datetime


class TransactionPage(BaseModel):
    """Newest first; `next` is the `after` of the following page, none on the last."""

    items: list[TransactionView]
    next: int | None


@router.get("/accounts/{user}")
async def show_account(user: UUID, session: Session, now: Now) -> AccountView:
    """A customer's balance and tier."""
    row = await account_of(session, user)
    accounts = await load_accounts(session, [user], now - WINDOW, ())
    standing = standing_of(accounts[user].lots.values(), now)
    above = next_tier(standing.points)
    return AccountView(
        user_id=user,
        balance_points=row.balance_points,
        tier=row.tier,
        tier_until=row.tier_until,
        points_12_months=standing.points,
        next_tier=above[0] if above else None,
        points_to_next_tier=above[1] if above else None,
        opened_at=row.opened_at,
        revision=row.revision,
    )


@router.get("/accounts/{user}/transactions")
async def list_transactions(
    user: UUID,
    session: Session,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of a page")] = None,
) -> TransactionPage:
    """Why a customer has these points, newest line first."""
    await account_of(session, user)
    lines = await _lines(session, user, limit + 1, after)
    page = [TransactionView.model_validate(line) for line in lines[:limit]]
    return TransactionPage(items=page, next=page[-1].id if len(lines) > limit else None)


async def account_of(session: AsyncSession, user: UUID) -> LoyaltyAccount:
    account = await session.get(LoyaltyAccount, user)
    if account is None:
        raise NotFound(
            f"customer {user} has no account; it opens with the first payment that received money"
        )
    return account


async def _lines(
    session: AsyncSession, user: UUID, limit: int, after: int | None
) -> Sequence[PointsTransaction]:
    statement = select(PointsTransaction).where(PointsTransaction.user_id == user)
    if after is not None:
        statement = statement.where(PointsTransaction.id < after)
    return (
        await session.scalars(statement.order_by(PointsTransaction.id.desc()).limit(limit))
    ).all()
