"""Renewals over HTTP: who is charged with what, and how each period's charge went."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.renewals.methods import Method, put_method
from services.payments.renewals.models import PaymentMethod, Renewal
from shared.auth import require
from shared.errors import InvalidInput, NotFound
from shared.events import derived_id
from shared.problem import documented
from shared.web import Now, Session

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry
Status = Literal["due", "charging", "past_due", "paid", "given_up", "canceled"]

READS = [Depends(require("payments:read", always=False))]
WRITES = [Depends(require("payments:write"))]

router = APIRouter(tags=["renewals"], responses=documented(401, 403, 404, 409, 422, 503))


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class MethodInput(BaseModel):
    """Stripe's names of a customer and of a method attached to them, and the connected account they are of."""

    model_config = ConfigDict(extra="forbid")

    stripe_customer_id: Annotated[str, StringConstraints(pattern=r"^cus_[A-Za-z0-9_]{1,200}$")]
    stripe_payment_method_id: Annotated[
        str, StringConstraints(pattern=r"^(pm|card|src|ba)_[A-Za-z0-9_]{1,200}$")
    ]
    account: Annotated[str, StringConstraints(pattern=r"^acct_[A-Za-z0-9_]{1,200}$")] | None = None


class MethodView(View):
    """`revision` rises with every other method; `learnt_from` is the payment (`pi_…`) that it was saved by, if any."""

    user_id: UUID
    stripe_customer_id: str
    stripe_payment_method_id: str
    account: str | None
    learnt_from: str | None
    revision: int
    updated_at: datetime


class RenewalView(View):
    """A period and its charge; `total_minor` is what the customer was told.

    `needs_new_method`: no attempt before the customer gives another one.
    """

    id: UUID
    subscription_id: UUID
    user_id: UUID
    period_start: datetime
    period_end: datetime
    status: Status
    currency: str
    total_minor: int
    price_version: int
    cost_history_id: int
    attempts: int
    next_attempt_at: datetime | None
    failure_code: str | None
    needs_new_method: bool
    past_due_at: datetime | None
    ended_at: datetime | None
    payment_id: UUID | None
    stripe_payment_id: str | None
    order_id: UUID | None
    revision: int
    created_at: datetime


class RenewalPage(BaseModel):
    """The latest period first; `next` is the `after` of the following page, none on the last."""

    items: list[RenewalView]
    next: UUID | None


@router.get("/renewals", dependencies=READS)
async def list_renewals(
    session: Session,
    subscription_id: UUID | None = None,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[UUID | None, Query(description="`next` of a page")] = None,
) -> RenewalPage:
    """Renewals, the latest period first; `status=past_due` are those that wait for money."""
    statement = select(Renewal).order_by(Renewal.period_start.desc(), Renewal.id.desc())
    if subscription_id is not None:
        statement = statement.where(Renewal.subscription_id == subscription_id)
    if status is not None:
        statement = statement.where(Renewal.status == status)
    if after is not None:
        statement = statement.where(await _below(session, after))
    found = list(await session.scalars(statement.limit(limit + 1)))
    items = [view(each) for each in found[:limit]]
    return RenewalPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/renewals/{renewal_id}", dependencies=READS)
async def show_renewal(renewal_id: UUID, session: Session) -> RenewalView:
    renewal = await session.get(Renewal, renewal_id)
    if renewal is None:
        raise NotFound(f"there is no renewal {renewal_id}", renewal_id=str(renewal_id))
    return view(renewal)


@router.get("/customers/{user_id}/payment-method", dependencies=READS)
async def show_payment_method(user_id: UUID, session: Session) -> MethodView:
    """What the customer's renewals are charged with."""
    method = await session.get(PaymentMethod, user_id)
    if method is None:
        raise NotFound(f"customer {user_id} has no payment method", user_id=str(user_id))
    return MethodView.model_validate(method)


@router.put("/customers/{user_id}/payment-method", dependencies=WRITES)
async def give_payment_method(
    user_id: UUID, given: MethodInput, session: Session, now: Now
) -> MethodView:
    """Charge the customer's renewals with this from now on; what is past due is tried again at once.

    The same method again changes nothing, so that this may be repeated.
    """
    method = Method(given.stripe_customer_id, given.stripe_payment_method_id, given.account)
    return MethodView.model_validate(await put_method(session, user_id, method, now))


def view(renewal: Renewal) -> RenewalView:
    payment = renewal.stripe_payment_id
    stored = {c.key: getattr(renewal, c.key) for c in Renewal.__table__.columns}
    return RenewalView.model_validate(
        {**stored, "payment_id": derived_id("payment", payment) if payment else None}
    )


async def _below(session: AsyncSession, after: UUID) -> ColumnElement[bool]:
    starts_at = await session.scalar(select(Renewal.period_start).where(Renewal.id == after))
    if starts_at is None:
        raise InvalidInput(f"`after` names no renewal: {after}", after=str(after))
    return tuple_(Renewal.period_start, Renewal.id) < (starts_at, after)
