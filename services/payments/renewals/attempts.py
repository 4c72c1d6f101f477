"""Renewals whose time has come are charged: a new payment for each attempt, and never two that could be paid.

Stripe is not asked here: an order is written in the transaction that decides it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.place import Order, place
from services.payments.renewals.apart import Act, PutOff, act
from services.payments.renewals.due import cost_of
from services.payments.renewals.models import BillableSubscription, PaymentMethod, Renewal
from services.payments.renewals.outcomes import (
    ORDERED_BY,
    Rules,
    payment_of,
    record_canceled,
    record_paid,
    record_past_due,
    record_refused,
    release_payment,
    still_wanted,
    why_of,
)
from shared.db import Sessions
from shared.errors import InvalidInput
from shared.events import derived_id
from shared.money import to_stripe
from shared.trace import new_traceparent

BATCH_RENEWALS = 100
Step = Callable[[AsyncSession, Renewal, Rules, datetime], Awaitable[None]]
# The cancellation of the payment before takes a second; a bank debit under way takes days.
LOOK_AGAIN = timedelta(minutes=1)
NO_METHOD = "no_payment_method"


async def attempt_due(
    sessions: Sessions, rules: Rules, now: datetime, put_off: PutOff | None = None
) -> int:
    """Charge, end or put off every renewal whose time has come; how many."""
    due = (
        select(Renewal.id)
        .where(Renewal.next_attempt_at <= now)
        .order_by(Renewal.next_attempt_at)
        .limit(BATCH_RENEWALS)
    )
    async with sessions.begin() as session:
        ids = list(await session.scalars(due))
    steps = carried_on([(each, _attempt) for each in ids], rules, now)
    return await act(sessions, steps, put_off or PutOff(), now)


def carried_on(
    work: Sequence[tuple[UUID, Step]], rules: Rules, now: datetime
) -> list[tuple[UUID, Act]]:
    """Each step on its renewal; whom somebody else is at work on is passed by."""
    return [
        (name, partial(_carry_on, work=(name, step), rules=rules, now=now)) for name, step in work
    ]


async def _carry_on(
    session: AsyncSession, work: tuple[UUID, Step], rules: Rules, now: datetime
) -> int:
    """Whether it changed anything: a worker that is told of work which it then does not do would never rest."""
    renewal_id, step = work
    # Never waited for: two workers, or a worker and a fact, cannot wait for each other.
    statement = select(Renewal).where(Renewal.id == renewal_id)
    renewal = await session.scalar(statement.with_for_update(skip_locked=True))
    if renewal is None:
        return 0
    before = _place(renewal)
    await step(session, renewal, rules, now)
    return int(_place(renewal) != before)


def _place(renewal: Renewal) -> tuple[object, ...]:
    return (renewal.status, renewal.revision, renewal.next_attempt_at, renewal.order_id)


async def _attempt(session: AsyncSession, renewal: Renewal, rules: Rules, now: datetime) -> None:
    if renewal.next_attempt_at is None or renewal.next_attempt_at > now:
        return
    subscription = await session.get(BillableSubscription, renewal.subscription_id)
    if not still_wanted(subscription, renewal):
        await record_canceled(session, renewal, now)
        return
    if renewal.status == "due":
        await _take_told_cost(session, renewal, now)
    if renewal.total_minor == 0:
        await record_paid(session, renewal, why_of(renewal, now))
        return
    if not await _nothing_else_can_be_paid(session, renewal, now):
        return
    method = await session.get(PaymentMethod, renewal.user_id)
    if method is None:
        renewal.failure_code, renewal.needs_new_method = NO_METHOD, True
        renewal.next_attempt_at = None
        await record_past_due(session, renewal, why_of(renewal, now))
        return
    try:
        amount = to_stripe(renewal.total_minor, renewal.currency)
    except InvalidInput:
        # Nothing was asked, and nothing will be: an amount that Stripe's integers cannot say.
        await record_refused(session, renewal, "amount_too_small", why_of(renewal, now), rules)
        return
    await _charge(session, renewal, method, (amount, now))


async def _take_told_cost(session: AsyncSession, renewal: Renewal, now: datetime) -> None:
    """What pricing said until this moment; once it was asked for, or told as past due, the amount stands."""
    cost = await cost_of(session, renewal.subscription_id, renewal.period_start, now)
    if cost is not None and cost.cost_history_id != renewal.cost_history_id:
        renewal.currency, renewal.total_minor = cost.currency, cost.total_minor
        renewal.price_version = cost.price_version
        renewal.cost_history_id = cost.cost_history_id


async def _nothing_else_can_be_paid(session: AsyncSession, renewal: Renewal, now: datetime) -> bool:
    """Whether the payment of the attempt before has ended; it is ended first where it has not."""
    if renewal.stripe_payment_id is None:
        return True
    payment = await payment_of(session, renewal)
    status = payment.status if payment is not None else None
    if status == "canceled":
        return True
    if status == "succeeded":
        await record_paid(session, renewal, why_of(renewal, now))
        return False
    if status != "processing":
        await release_payment(session, renewal, now)
    renewal.next_attempt_at = now + LOOK_AGAIN
    return False


async def _charge(
    session: AsyncSession, renewal: Renewal, method: PaymentMethod, asked: tuple[int, datetime]
) -> None:
    amount, now = asked
    renewal.attempts = (renewal.attempts or 0) + 1
    order_id = derived_id("renewal order", renewal.id, renewal.attempts)
    renewal.status, renewal.next_attempt_at = "charging", None
    renewal.order_id, renewal.stripe_payment_id = order_id, None
    renewal.method_revision, renewal.needs_new_method = method.revision, False
    parameters = {
        "amount": amount,
        "currency": renewal.currency.lower(),
        "customer": method.stripe_customer_id,
        "payment_method": method.stripe_payment_method_id,
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "confirm": True,
        "off_session": True,
        "metadata": {
            "user_id": str(renewal.user_id),
            "subscription_id": str(renewal.subscription_id),
            "period_start": renewal.period_start.isoformat(),
            "price_version": str(renewal.price_version),
            "cost_history_id": str(renewal.cost_history_id),
            "farebox_renewal": str(renewal.id),
            "farebox_order": str(order_id),
        },
    }
    # The order names the renewal: it has to be there first.
    await session.flush()
    order = Order(
        id=order_id,
        kind="create",
        parameters=parameters,
        ordered_by=ORDERED_BY,
        account=method.account,
        user_id=renewal.user_id,
        subscription_id=renewal.subscription_id,
        renewal_id=renewal.id,
        currency=renewal.currency,
        amount_minor=renewal.total_minor,
        traceparent=new_traceparent(),
    )
    await place(session, order, now)
