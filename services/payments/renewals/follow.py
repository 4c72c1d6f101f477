"""What became of the charges: read from their orders and from the fold of Stripe's facts, never guessed."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.models import PaymentIntent
from services.payments.orders.held import WITHDRAWING, WITHDRAWN
from services.payments.orders.models import StripeOrder
from services.payments.renewals.apart import PutOff, act
from services.payments.renewals.attempts import Step, carried_on
from services.payments.renewals.leaving import MOST_REFUNDS, record_money
from services.payments.renewals.models import BillableSubscription, Renewal
from services.payments.renewals.outcomes import (
    Rules,
    payment_of,
    record_canceled,
    record_given_up,
    record_refused,
    still_wanted,
    why_of,
)
from shared.db import Sessions

BATCH_RENEWALS = 100
# A payment that was to be canceled may have been paid in that moment; Stripe's facts come within days.
COMES_LATE = timedelta(days=30)
# A customer who was to confirm a payment themselves and has not done so for this long does not come back to it.
ABANDONED = timedelta(days=1)

# A payment that was answered for is only refused where it names a failure: it may be folded as far as its creation.
# One that the API was asked for (no renewal_id) is the customer's own: they may be typing another card; what is
# authorised waits for its capture.
SETTLED = text("""
SELECT r.id FROM renewals r
JOIN stripe_orders o ON o.id = r.order_id AND o.status <> 'open'
LEFT JOIN payment_intents p ON p.stripe_id = o.stripe_payment_id
WHERE r.status = 'charging' AND (
    p.status IN ('succeeded', 'canceled')
    OR (o.status = 'refused' AND (o.renewal_id IS NOT NULL OR o.stripe_payment_id IS NULL))
    OR (o.renewal_id IS NOT NULL AND (
        p.status = 'requires_action'
        OR (p.status = 'requires_payment_method' AND p.failure_code IS NOT NULL)))
    OR (p.status LIKE 'requires_%' AND p.status <> 'requires_capture'
        AND greatest(o.created_at, r.created_at) < :abandoned))
ORDER BY r.id LIMIT :limit
""")
# What was given back is as canceled as before; what Stripe refused to give back is tried again, for what is left by then.
PAID_LATE = text("""
SELECT r.id FROM renewals r
JOIN payment_intents p ON p.stripe_id = r.stripe_payment_id AND p.status = 'succeeded'
WHERE r.status = 'past_due'
    OR (r.status IN ('given_up', 'canceled') AND r.ended_at > :since
        AND p.received_minor > p.refunded_minor + p.disputed_minor
        AND (SELECT coalesce(bool_and(o.status = 'refused'), true) AND count(*) < :most
            FROM stripe_orders o
            WHERE o.stripe_payment_id = p.stripe_id AND o.kind = 'refund' AND o.renewal_id = r.id))
ORDER BY r.id LIMIT :limit
""")
# Who was asked for another card, or to confirm a payment, and has not done so by the last day of the schedule.
UNANSWERED = text("""
SELECT r.id FROM renewals r
LEFT JOIN payment_intents p ON p.stripe_id = r.stripe_payment_id
WHERE r.status = 'past_due' AND r.next_attempt_at IS NULL AND r.past_due_at <= :last_day
    AND p.status IS DISTINCT FROM 'processing' AND p.status IS DISTINCT FROM 'succeeded'
ORDER BY r.id LIMIT :limit
""")
# Never asked: Stripe knows nothing of it.  Once asked, only Stripe can tell: it is looked for, not asked again.
WITHDRAW = text("""
UPDATE stripe_orders o SET
    status = CASE WHEN o.first_asked_at IS NULL THEN 'refused' ELSE o.status END,
    ended_at = CASE WHEN o.first_asked_at IS NULL THEN CAST(:now AS timestamptz) END,
    failure_code = CASE WHEN o.first_asked_at IS NULL THEN :withdrawn ELSE :withdrawing END
FROM renewals r JOIN billable_subscriptions b ON b.subscription_id = r.subscription_id
WHERE r.order_id = o.id AND r.id = o.renewal_id AND r.status = 'charging' AND o.status = 'open'
    AND o.failure_code IS DISTINCT FROM :withdrawing
    AND (b.status <> 'active' OR b.period_end > r.period_start OR b.resumed_at > r.period_start)
""")
WITHDRAWAL = {"withdrawn": WITHDRAWN, "withdrawing": WITHDRAWING}


async def follow(
    sessions: Sessions, rules: Rules, now: datetime, put_off: PutOff | None = None
) -> int:
    """Record what is known by now of payments and of customers who were asked; how many renewals it changed."""
    last_day = now - timedelta(days=max(rules.dunning_days))
    steps: tuple[tuple[TextClause, dict[str, object], Step], ...] = (
        (SETTLED, {"abandoned": now - ABANDONED}, _settle),
        (PAID_LATE, {"since": now - COMES_LATE, "most": MOST_REFUNDS}, _take_late_payment),
        (UNANSWERED, {"last_day": last_day}, _end_unanswered),
    )
    to_do: list[tuple[UUID, Step]] = []
    async with sessions.begin() as session:
        await session.execute(WITHDRAW, {"now": now, **WITHDRAWAL})
        for statement, values, step in steps:
            found = await session.scalars(statement, {**values, "limit": BATCH_RENEWALS})
            to_do += [(UUID(str(each)), step) for each in found]
    return await act(sessions, carried_on(to_do, rules, now), put_off or PutOff(), now)


async def _settle(session: AsyncSession, renewal: Renewal, rules: Rules, now: datetime) -> None:
    """The order has ended, and of what it made enough is known."""
    order = await session.get(StripeOrder, renewal.order_id)
    if renewal.status != "charging" or order is None:
        return
    renewal.stripe_payment_id = order.stripe_payment_id
    payment = await payment_of(session, renewal)
    why = why_of(renewal, now, order)
    if payment is not None and payment.status == "succeeded":
        await record_money(session, renewal, why)
    elif order.failure_code == WITHDRAWN:
        await record_canceled(session, renewal, now)
    else:
        await record_refused(session, renewal, _reason(order, payment), why, rules)


def _reason(order: StripeOrder, payment: PaymentIntent | None) -> str:
    """The order's refusal, else what befell the payment afterwards."""
    if order.status == "refused" or payment is None:
        return order.failure_code or "refused"
    if payment.status == "canceled":
        return "payment_canceled"
    if payment.status == "requires_action" and order.renewal_id is not None:
        return "authentication_required"
    return payment.decline_code or payment.failure_code or "abandoned"


async def _take_late_payment(
    session: AsyncSession, renewal: Renewal, rules: Rules, now: datetime
) -> None:
    """The customer confirmed a refused payment themselves, or paid while it was being canceled."""
    payment = await payment_of(session, renewal)
    if renewal.status != "paid" and payment is not None and payment.status == "succeeded":
        await record_money(session, renewal, why_of(renewal, now))


async def _end_unanswered(
    session: AsyncSession, renewal: Renewal, rules: Rules, now: datetime
) -> None:
    if renewal.status != "past_due" or renewal.next_attempt_at is not None:
        return
    subscription = await session.get(BillableSubscription, renewal.subscription_id)
    if still_wanted(subscription, renewal):
        await record_given_up(session, renewal, why_of(renewal, now), rules)
    else:
        await record_canceled(session, renewal, now)
