"""Payments over HTTP: what is true of each, the Stripe facts it came from, and what became of every event."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints
from sqlalchemy import ColumnElement, Select, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from services.payments.domain import Fold, decode, release
from services.payments.fold_records import moment
from services.payments.models import PaymentIntent, StripeEvent
from shared.auth import require
from shared.clock import utc_now
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events import PaymentStatus
from shared.problem import documented
from shared.web import Session

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry
# A payment has some ten facts; one that has more than this is looked at in the database.
MAX_FACTS = 500
StripeId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,255}$")]


def _spelled_out(value: object) -> object:
    if isinstance(value, str) and "T" not in value:
        raise ValueError("a time such as 2026-01-31T00:00:00Z is wanted")
    return value


# A bare number would be read as seconds since 1970, and a time without a zone as anybody's.
Moment = Annotated[AwareDatetime, BeforeValidator(_spelled_out)]
EventStatus = Literal["received", "applied", "ignored", "parked"]

# What is folded is counted by the hour; what is not yet, is in the small indexes of what waits.
EVENT_COUNTS = text("""
    SELECT type, status, sum(count)::bigint AS count, max(last_received_at) AS last_received_at
    FROM (
        SELECT type, status, count, last_received_at
        FROM stripe_event_counts WHERE hour >= :since
        UNION ALL
        SELECT type, 'received', count(*), max(received_at) FROM stripe_events
        WHERE status = 'received' AND waiting_for IS NULL AND received_at >= :since GROUP BY type
        UNION ALL
        SELECT type, 'received', count(*), max(received_at) FROM stripe_events
        WHERE status = 'received' AND waiting_for IS NOT NULL AND received_at >= :since
        GROUP BY type
    ) counted
    GROUP BY type, status HAVING sum(count) > 0 ORDER BY type, status
""")

router = APIRouter(
    tags=["payments"],
    dependencies=[Depends(require("payments:read", always=False))],
    responses=documented(401, 403, 404, 409, 422, 503),
)


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PaymentView(View):
    """Amounts in minor units; `anomaly` is what contradicts itself and needs an operator.

    `fee_minor` is what Stripe kept and `net_minor` what refunds, disputes and fees leave; none until that is known.
    `review` is `open`, or why it was closed; `account` is another's than our own, with Connect.
    """

    id: UUID
    stripe_id: str
    user_id: UUID | None
    subscription_id: UUID | None
    status: PaymentStatus
    currency: str
    amount_minor: int
    capturable_minor: int
    received_minor: int
    refunded_minor: int
    disputed_minor: int
    fee_minor: int | None
    net_minor: int | None
    failure_code: str | None
    decline_code: str | None
    payment_method_type: str | None
    three_d_secure: str | None
    mandate_id: str | None
    review: str | None
    invoice_id: str | None
    livemode: bool
    account: str | None
    created_at: datetime
    succeeded_at: datetime | None
    canceled_at: datetime | None
    anomaly: str | None
    revision: int


class StripeFactView(BaseModel):
    event_id: str
    type: str
    created_at: datetime
    received_at: datetime
    status: str


class RefundView(BaseModel):
    """`released` is what a partial capture left, which Stripe made a refund of until 2025-03-31: no money."""

    id: str
    status: str
    amount_minor: int
    created_at: datetime


class DisputeView(BaseModel):
    """`withdrawn_minor` is what is gone now: nothing for an inquiry, nothing once the dispute was won."""

    id: str
    status: str
    withdrawn_minor: int


class PaymentDetail(PaymentView):
    stripe_facts: list[StripeFactView]
    refunds: list[RefundView]
    disputes: list[DisputeView]


class PaymentPage(BaseModel):
    """Newest first; `next` is the `after` of the following page, none on the last."""

    items: list[PaymentView]
    next: UUID | None


class StripeEventView(View):
    """`detail` is why it was ignored or parked, or what it waits for."""

    id: str
    type: str
    api_version: str | None
    livemode: bool
    account: str | None
    created_at: datetime
    received_at: datetime
    processed_at: datetime | None
    status: str
    detail: str | None
    waiting_for: str | None
    payment_id: UUID | None


class StripeEventPage(BaseModel):
    """The last received first; `next` is the `after` of the following page, none on the last."""

    items: list[StripeEventView]
    next: str | None


class StripeEventCount(View):
    type: str
    status: str
    count: int
    last_received_at: datetime


class StripeEventCounts(BaseModel):
    items: list[StripeEventCount]


class Filters(BaseModel):
    """What a list of payments is narrowed to."""

    stripe_id: StripeId | None = None
    user_id: UUID | None = None
    subscription_id: UUID | None = None
    status: PaymentStatus | None = None
    invoice_id: StripeId | None = None
    account: StripeId | None = None
    livemode: bool | None = None
    unlinked: bool = False
    anomaly: bool = False


@router.get("/payments")
async def list_payments(
    session: Session,
    only: Annotated[Filters, Depends()],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[UUID | None, Query(description="`next` of a page")] = None,
) -> PaymentPage:
    """Payments, newest first; `unlinked=true` gives those that name neither user nor subscription,
    `anomaly=true` those that contradict themselves."""
    statement = _filtered(only)
    if after is not None:
        statement = statement.where(await _below(session, after))
    found = list(await session.scalars(statement.limit(limit + 1)))
    items = [PaymentView.model_validate(payment) for payment in found[:limit]]
    return PaymentPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/payments/{payment_id}")
async def show_payment(payment_id: UUID, session: Session) -> PaymentDetail:
    """One payment with its refunds, its disputes and the Stripe facts it came from."""
    payment = await session.get(PaymentIntent, payment_id)
    if payment is None:
        raise NotFound(f"there is no payment {payment_id}", payment_id=str(payment_id))
    facts = await session.scalars(
        select(StripeEvent)
        .where(StripeEvent.stripe_payment_id == payment.stripe_id)
        .order_by(StripeEvent.stripe_created_at, StripeEvent.position)
        .limit(MAX_FACTS)
    )
    folded = decode(orjson.dumps(payment.fold))
    return PaymentDetail(
        **PaymentView.model_validate(payment).model_dump(),
        stripe_facts=[_fact_view(fact) for fact in facts],
        refunds=_refund_views(folded),
        disputes=_dispute_views(folded),
    )


@router.get("/stripe-events")
async def list_stripe_events(
    session: Session,
    status: EventStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[StripeId | None, Query(description="`next` of a page")] = None,
) -> StripeEventPage:
    """What became of each event, the last received first; `status=parked` are those to look at."""
    statement = select(StripeEvent).options(defer(StripeEvent.body, raiseload=True))
    if status is not None:
        statement = statement.where(StripeEvent.status == status)
    if after is not None:
        statement = statement.where(StripeEvent.position < await _position_of(session, after))
    newest = statement.order_by(StripeEvent.position.desc()).limit(limit + 1)
    found = list(await session.scalars(newest))
    shown = found[:limit]
    payments = await _payments_of(session, shown)
    items = [_event_view(event, payments) for event in shown]
    return StripeEventPage(items=items, next=shown[-1].id if len(found) > limit else None)


@router.get("/stripe-events/counts")
async def count_stripe_events(
    session: Session,
    since: Annotated[
        Moment | None, Query(description="none: the last 24 hours; its whole hour counts")
    ] = None,
) -> StripeEventCounts:
    """How many events of each type came in, and what became of them; of what nothing is read, they are all there is."""
    begin = (since or utc_now() - timedelta(days=1)).astimezone(UTC)
    hour = begin.replace(minute=0, second=0, microsecond=0)
    rows = await session.execute(EVENT_COUNTS, {"since": hour})
    return StripeEventCounts(items=[StripeEventCount.model_validate(row) for row in rows])


@router.get("/stripe-events/{event_id}")
async def show_stripe_event(event_id: StripeId, session: Session) -> StripeEventView:
    """What became of one event: received, applied, ignored or parked, and why."""
    event = await session.scalar(select(StripeEvent).where(StripeEvent.id == event_id))
    if event is None:
        raise NotFound(f"no event {event_id} was ever received", event_id=event_id)
    payments = await _payments_of(session, [event])
    return _event_view(event, payments)


@router.post("/stripe-events/{event_id}/retry", dependencies=[Depends(require("payments:write"))])
async def retry_stripe_event(event_id: StripeId, session: Session) -> StripeEventView:
    """Give a parked event back to the fold, after what it could not be understood for has changed."""
    retried = await session.execute(
        update(StripeEvent)
        .where(StripeEvent.id == event_id, StripeEvent.status == "parked")
        .values(status="received", detail=None, processed_at=None)
        .returning(StripeEvent.id)
    )
    shown = await show_stripe_event(event_id, session)
    if retried.first() is None:
        raise Conflict(f"event {event_id} is {shown.status}, not parked", status=shown.status)
    return shown


def _filtered(only: Filters) -> Select[PaymentIntent]:
    wanted = {name: value for name, value in only.model_dump().items() if value is not None}
    unlinked, anomaly = wanted.pop("unlinked"), wanted.pop("anomaly")
    statement = select(PaymentIntent).filter_by(**wanted)
    if anomaly:
        statement = statement.where(PaymentIntent.anomaly.is_not(None))
    if unlinked:
        statement = statement.filter_by(user_id=None, subscription_id=None)
    return statement.order_by(PaymentIntent.created_at.desc(), PaymentIntent.id.desc())


async def _below(session: AsyncSession, after: UUID) -> ColumnElement[bool]:
    created_at = await session.scalar(
        select(PaymentIntent.created_at).where(PaymentIntent.id == after)
    )
    if created_at is None:
        raise InvalidInput(f"`after` names no payment: {after}", after=str(after))
    return tuple_(PaymentIntent.created_at, PaymentIntent.id) < (created_at, after)


async def _position_of(session: AsyncSession, after: str) -> int:
    position = await session.scalar(select(StripeEvent.position).where(StripeEvent.id == after))
    if position is None:
        raise InvalidInput(f"`after` names no event: {after}", after=after)
    return position


async def _payments_of(session: AsyncSession, events: Sequence[StripeEvent]) -> dict[str, UUID]:
    """Our names of the payments that the events are about, by Stripe's."""
    named = {event.stripe_payment_id for event in events} - {None}
    found = await session.execute(
        select(PaymentIntent.stripe_id, PaymentIntent.id).where(PaymentIntent.stripe_id.in_(named))
    )
    return {row.stripe_id: row.id for row in found}


def _event_view(event: StripeEvent, payments: Mapping[str, UUID]) -> StripeEventView:
    return StripeEventView(
        id=event.id,
        type=event.type,
        api_version=event.api_version,
        livemode=event.livemode,
        account=event.account,
        created_at=event.stripe_created_at,
        received_at=event.received_at,
        processed_at=event.processed_at,
        status=event.status,
        detail=event.detail,
        waiting_for=event.waiting_for,
        payment_id=payments.get(event.stripe_payment_id or ""),
    )


def _fact_view(fact: StripeEvent) -> StripeFactView:
    return StripeFactView(
        event_id=fact.id,
        type=fact.type,
        created_at=fact.stripe_created_at,
        received_at=fact.received_at,
        status=fact.status,
    )


def _refund_views(folded: Fold) -> list[RefundView]:
    released = release(folded)
    return [
        RefundView(
            id=refund_id,
            status="released" if refund_id == released else refund.status,
            amount_minor=refund.amount_minor,
            created_at=moment(refund.created),
        )
        for refund_id, refund in sorted(folded.refunds.items())
    ]


def _dispute_views(folded: Fold) -> list[DisputeView]:
    return [
        DisputeView(
            id=dispute_id,
            status=dispute.told[2],
            withdrawn_minor=sum(moved.amount_minor for moved in dispute.moved.values()),
        )
        for dispute_id, dispute in sorted(folded.disputes.items())
    ]
