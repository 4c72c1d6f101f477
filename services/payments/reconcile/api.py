"""Payouts over HTTP: what reached the bank, what it was made of, and whether both agree with our payments."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import select, tuple_

from services.payments.reconcile.models import Payout, PayoutLine
from shared.auth import require
from shared.errors import InvalidInput, NotFound
from shared.events import derived_id
from shared.problem import documented
from shared.web import Session

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry
PayoutId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]
PayoutVerdict = Literal["open", "agrees", "differs", "not_itemisable"]

router = APIRouter(
    tags=["payouts"],
    dependencies=[Depends(require("payments:read", always=False))],
    responses=documented(401, 403, 404, 422, 503),
)


class PayoutView(BaseModel):
    """`detail` says why it has its verdict; `open` until Stripe has said what it is made of."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    account: str | None
    livemode: bool
    status: str
    automatic: bool
    currency: str
    amount_minor: int
    arrival_on: date
    created_at: datetime
    verdict: PayoutVerdict
    detail: str | None
    checked_at: datetime | None


class PayoutPage(BaseModel):
    """Newest first; `next` is the `after` of the following page, none on the last."""

    items: list[PayoutView]
    next: str | None


class PayoutLineView(BaseModel):
    """`problem` is in what it differs from our payment; `payment_id` is none for what is of no payment."""

    id: str
    type: str
    source: str | None
    payment_id: UUID | None
    stripe_payment_id: str | None
    currency: str
    amount_minor: int
    fee_minor: int
    net_minor: int
    created_at: datetime
    problem: str | None


class PayoutDetail(PayoutView):
    """`lines` in the order of their ids; `next_line` is the `after_line` of the following page."""

    lines: list[PayoutLineView]
    next_line: str | None


@router.get("/payouts")
async def list_payouts(
    session: Session,
    verdict: PayoutVerdict | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[PayoutId | None, Query(description="`next` of a page")] = None,
) -> PayoutPage:
    """Payouts, newest first; `verdict=differs` are those to look at."""
    statement = select(Payout).order_by(Payout.created_at.desc(), Payout.id.desc())
    if verdict is not None:
        statement = statement.where(Payout.verdict == verdict)
    if after is not None:
        last = await session.get(Payout, after)
        if last is None:
            raise InvalidInput(f"`after` names no payout: {after}", after=after)
        place = tuple_(Payout.created_at, Payout.id)
        statement = statement.where(place < (last.created_at, last.id))
    found = list(await session.scalars(statement.limit(limit + 1)))
    items = [PayoutView.model_validate(payout) for payout in found[:limit]]
    return PayoutPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/payouts/{payout_id}")
async def show_payout(
    payout_id: PayoutId,
    session: Session,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
    after_line: Annotated[PayoutId | None, Query(description="`next_line` of a page")] = None,
) -> PayoutDetail:
    """One payout with the lines it is made of, each beside the payment it belongs to."""
    payout = await session.get(Payout, payout_id)
    if payout is None:
        raise NotFound(f"there is no payout {payout_id}", payout_id=payout_id)
    statement = (
        select(PayoutLine)
        .where(PayoutLine.payout_id == payout_id, PayoutLine.id > (after_line or ""))
        .order_by(PayoutLine.id)
        .limit(limit + 1)
    )
    found = list(await session.scalars(statement))
    lines = [_line_view(line) for line in found[:limit]]
    return PayoutDetail(
        **PayoutView.model_validate(payout).model_dump(),
        lines=lines,
        next_line=lines[-1].id if len(found) > limit else None,
    )


def _line_view(line: PayoutLine) -> PayoutLineView:
    payment = line.stripe_payment_id
    return PayoutLineView(
        id=line.id,
        type=line.type,
        source=line.source,
        payment_id=derived_id("payment", payment) if payment else None,
        stripe_payment_id=payment,
        currency=line.currency,
        amount_minor=line.amount_minor,
        fee_minor=line.fee_minor,
        net_minor=line.net_minor,
        created_at=line.created_at,
        problem=line.problem,
    )
