"""Who left before a period began owes nothing for it: a charge that was asked for because the news came late is given back.

Who leaves later has had the period, or might have: its charge stands, and what is not charged yet is not charged any more.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.gateway import ORDER_KEY
from services.payments.models import PaymentIntent
from services.payments.orders.drafts import left_minor
from services.payments.orders.models import StripeOrder
from services.payments.orders.place import Order, place
from services.payments.renewals.models import BillableSubscription, Renewal
from services.payments.renewals.outcomes import (
    ORDERED_BY,
    Why,
    known_now,
    payment_of,
    record_canceled,
    record_paid,
)
from shared import log
from shared.events import derived_id
from shared.money import to_stripe

# Stripe refuses an amount that somebody else has given back in that moment; what it refuses three times is an operator's.
MOST_REFUNDS = 3

logger = log.get("renewals")


def left_before(subscription: BillableSubscription | None, renewal: Renewal) -> bool:
    """Whether the customer was away when the period began, and has not had it since."""
    if subscription is None or subscription.left_at is None:
        return False
    resumed_at = subscription.resumed_at
    is_away = subscription.status != "active"
    came_back_later = resumed_at is not None and resumed_at > renewal.period_start
    return subscription.left_at <= renewal.period_start and (is_away or came_back_later)


async def record_money(session: AsyncSession, renewal: Renewal, why: Why) -> None:
    """The renewal's payment succeeded: the period is paid, or the money goes back."""
    if left_before(await known_now(session, renewal), renewal) and await _is_ours(session, renewal):
        payment = await payment_of(session, renewal)
        await record_canceled(session, renewal, why.at)
        if payment is not None:
            await _give_back(session, renewal, payment, why)
    else:
        await record_paid(session, renewal, why)


async def give_back_paid(
    session: AsyncSession, subscription: BillableSubscription, why: Why
) -> None:
    """The news came when all was paid and told: it stays told, and the money goes back."""
    if subscription.left_at is None:
        return
    paid = select(Renewal).where(
        Renewal.subscription_id == subscription.subscription_id,
        Renewal.status == "paid",
        Renewal.period_start >= subscription.left_at,
        Renewal.stripe_payment_id.is_not(None),
    )
    for renewal in await session.scalars(paid.order_by(Renewal.id).with_for_update()):
        if not left_before(subscription, renewal) or not await _is_ours(session, renewal):
            continue
        payment = await payment_of(session, renewal)
        if payment is not None:
            await _give_back(session, renewal, payment, why)


async def _is_ours(session: AsyncSession, renewal: Renewal) -> bool:
    """What the API was asked for is whoever asked for it to give back."""
    order = await session.get(StripeOrder, renewal.order_id)
    return order is not None and order.renewal_id == renewal.id


async def _give_back(
    session: AsyncSession, renewal: Renewal, payment: PaymentIntent, why: Why
) -> None:
    minor = await left_minor(session, payment)
    if minor == 0:
        return
    refused = await session.scalar(
        select(func.count()).where(
            StripeOrder.stripe_payment_id == payment.stripe_id,
            StripeOrder.kind == "refund",
            StripeOrder.renewal_id == renewal.id,
            StripeOrder.status == "refused",
        )
    )
    order_id = derived_id("renewal refund", renewal.id, payment.stripe_id, refused or 0)
    order = Order(
        id=order_id,
        kind="refund",
        parameters={
            "payment_intent": payment.stripe_id,
            "amount": to_stripe(minor, payment.currency),
            "reason": "requested_by_customer",
            "metadata": {ORDER_KEY: str(order_id), "farebox_renewal": str(renewal.id)},
        },
        ordered_by=ORDERED_BY,
        stripe_payment_id=payment.stripe_id,
        account=payment.account,
        user_id=renewal.user_id,
        subscription_id=renewal.subscription_id,
        renewal_id=renewal.id,
        currency=payment.currency,
        amount_minor=minor,
        traceparent=why.cause.traceparent,
    )
    if await place(session, order, why.at):
        logger.warning(
            "given back: left before the period", renewal_id=str(renewal.id), amount_minor=minor
        )
