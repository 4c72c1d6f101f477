"""Subscriptions over HTTP: create, change, pause, resume, cancel, and what each cost when and why."""

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import JsonValue
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.api.access import SUBSCRIPTIONS_READ, SubscriptionsWriter
from services.pricing.api.shapes import (
    DEFAULT_LIMIT,
    AfterId,
    AfterLine,
    Day,
    Input,
    Limit,
    Lines,
    Page,
    View,
    box_lines,
)
from services.pricing.domain import CostKind
from services.pricing.fields import CurrencyCode, DeliveryType
from services.pricing.subscriptions import (
    Delivery,
    Order,
    change_delivery,
    change_status,
    change_variants,
    cost_history,
    create_subscription,
    get_subscription,
    list_subscriptions,
)
from shared.events import BillingInterval, BoxLine, CostBreakdown, SubscriptionStatus
from shared.web import Session

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])


class DeliveryInput(Input):
    """`next_delivery_on` stays as it is where it is left out."""

    delivery_type: DeliveryType
    delivery_address_id: UUID
    next_delivery_on: Day | None = None

    def delivery(self) -> Delivery:
        return Delivery(self.delivery_type, self.delivery_address_id, self.next_delivery_on)


class NewSubscription(DeliveryInput):
    """What a customer subscribes to; the variants' current prices are taken."""

    user_id: UUID
    currency: CurrencyCode
    billing_interval: BillingInterval
    variants: Lines


class NewVariants(Input):
    variants: Lines


class SubscriptionView(View):
    """A subscription.  `total_minor` and `cost_breakdown` are none until it is priced."""

    id: UUID
    user_id: UUID
    status: SubscriptionStatus
    currency: str
    billing_interval: BillingInterval
    period_start: datetime
    period_end: datetime | None
    created_at: datetime
    canceled_at: datetime | None
    variants: list[BoxLine] | list[JsonValue]  # the latter: as the storefront wrote it, no box
    variants_changed_at: datetime | None
    total_minor: int | None
    price_version: int | None
    cost_breakdown: CostBreakdown | None
    admin_percentage_applied: Decimal | None
    tax_rate_applied: Decimal | None
    tax_minor: int | None
    delivery_type: str | None
    delivery_address_id: UUID | None
    delivery_cost_minor: int | None
    next_delivery_on: date | None
    loyalty_points_earned: int
    loyalty_discount_minor: int


class CostLine(View):
    """One line of the cost history: old and new cost, since when, why, by whom and by which version."""

    id: int
    kind: CostKind
    effective_at: datetime
    recorded_at: datetime
    reason: str
    changed_by: str
    cause_id: str
    price_version: int
    currency: str
    old_total_minor: int | None
    new_total_minor: int
    old_breakdown: CostBreakdown | None
    new_breakdown: CostBreakdown


@router.post("", status_code=status.HTTP_201_CREATED)
async def create(
    body: NewSubscription, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """Subscribe a user to a box, from now on."""
    order = Order(
        body.user_id,
        body.currency,
        body.billing_interval,
        box_lines(body.variants),
        body.delivery(),
    )
    return await _view(session, await create_subscription(session, order, why))


@router.get("", dependencies=[SUBSCRIPTIONS_READ])
async def subscriptions(
    session: Session,
    user_id: Annotated[UUID | None, Query()] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: AfterId = None,
) -> Page[SubscriptionView]:
    """A user's subscriptions, or everybody's, by id."""
    found = await list_subscriptions(session, user_id, after, limit)
    following = str(found[-1].id) if len(found) == limit else None
    return Page(items=[SubscriptionView.model_validate(s) for s in found], next=following)


@router.get("/{subscription_id}", dependencies=[SUBSCRIPTIONS_READ])
async def read(subscription_id: UUID, session: Session) -> SubscriptionView:
    """One subscription, as it stands."""
    return await _view(session, subscription_id)


@router.get("/{subscription_id}/history", dependencies=[SUBSCRIPTIONS_READ])
async def history(
    subscription_id: UUID, session: Session, limit: Limit = DEFAULT_LIMIT, after: AfterLine = 0
) -> Page[CostLine]:
    """Every cost it ever had, oldest first."""
    await get_subscription(session, subscription_id)
    found = await cost_history(session, subscription_id, after, limit)
    following = str(found[-1].id) if len(found) == limit else None
    return Page(items=[CostLine.model_validate(line) for line in found], next=following)


@router.put("/{subscription_id}/variants")
async def put_variants(
    subscription_id: UUID, body: NewVariants, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """Another box, at current prices; the same box again keeps the prices it has."""
    await change_variants(session, subscription_id, box_lines(body.variants), why)
    return await _view(session, subscription_id)


@router.put("/{subscription_id}/delivery")
async def put_delivery(
    subscription_id: UUID, body: DeliveryInput, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """Another delivery type or address."""
    await change_delivery(session, subscription_id, body.delivery(), why)
    return await _view(session, subscription_id)


@router.post("/{subscription_id}/pause")
async def pause(
    subscription_id: UUID, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """Send and bill nothing until it is resumed; prices keep moving."""
    await change_status(session, subscription_id, "pause", why)
    return await _view(session, subscription_id)


@router.post("/{subscription_id}/resume")
async def resume(
    subscription_id: UUID, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """Go on after a pause."""
    await change_status(session, subscription_id, "resume", why)
    return await _view(session, subscription_id)


@router.post("/{subscription_id}/cancel")
async def cancel(
    subscription_id: UUID, session: Session, why: SubscriptionsWriter
) -> SubscriptionView:
    """End it for good."""
    await change_status(session, subscription_id, "cancel", why)
    return await _view(session, subscription_id)


async def _view(session: AsyncSession, subscription_id: UUID) -> SubscriptionView:
    return SubscriptionView.model_validate(await get_subscription(session, subscription_id))
