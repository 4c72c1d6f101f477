"""How a renewal ends, or goes on: recorded, announced, and no payment of it left open that nobody waits for.

Callers own the transaction and hold the renewal's row.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.models import PaymentIntent
from services.payments.orders.models import StripeOrder
from services.payments.orders.place import Order, place
from services.payments.renewals.dunning import (
    AskCustomer,
    AskForMethod,
    GiveUp,
    Retry,
    after_refusal,
)
from services.payments.renewals.models import BillableSubscription, PaymentMethod, Renewal
from shared import log
from shared.events import RenewalChanged, RenewalStatus, derived_id
from shared.outbox import publish
from shared.trace import Cause

OPEN = ("due", "charging", "past_due")
ORDERED_BY = "renewals"
FINAL = ("succeeded", "canceled")

logger = log.get("renewals")


@dataclass(frozen=True)
class Rules:
    """What the business decides: its days, when a refused charge is tried again, and what follows the last."""

    zone: ZoneInfo
    dunning_days: tuple[int, ...]
    pause_when_given_up: bool


@dataclass(frozen=True)
class Why:
    """When something became known, what made it so, and the card network's advice where there was one."""

    at: datetime
    cause: Cause
    advice: str = ""


def why_of(renewal: Renewal, at: datetime, order: StripeOrder | None = None) -> Why:
    if order is None:
        return Why(at, Cause(f"renewal:{renewal.id}"))
    return Why(at, Cause(f"order:{order.id}", order.traceparent), order.advice_code or "")


def still_wanted(subscription: BillableSubscription | None, renewal: Renewal) -> bool:
    """Whether the subscription is active and its next period is still this one."""
    if subscription is None or subscription.status != "active" or subscription.period_end is None:
        return False
    resumed_at = subscription.resumed_at
    resumed_later = resumed_at is not None and resumed_at > renewal.period_start
    return subscription.period_end <= renewal.period_start and not resumed_later


def adopt(renewal: Renewal, order: StripeOrder | Order) -> None:
    """The API was asked to have this very period paid: that payment is followed, and no other is made.

    What it is over was told to the customer, whatever the period costs by now.
    """
    renewal.status, renewal.ended_at, renewal.next_attempt_at = "charging", None, None
    renewal.order_id, renewal.stripe_payment_id = order.id, None
    if order.amount_minor is None or order.currency is None:
        return
    renewal.total_minor, renewal.currency = order.amount_minor, order.currency
    said = order.parameters["metadata"]
    if isinstance(said, dict) and "cost_history_id" in said:
        renewal.price_version = int(said["price_version"])
        renewal.cost_history_id = int(said["cost_history_id"])


async def record_paid(session: AsyncSession, renewal: Renewal, why: Why) -> None:
    """Also where it was given up or canceled before the money came: it did come."""
    if renewal.status == "canceled":
        logger.warning("paid although it was canceled", renewal_id=str(renewal.id))
    subscription = await known_now(session, renewal)
    resume = renewal.paused and _still_paused(subscription, renewal)
    _end(renewal, "paid", why.at)
    renewal.failure_code, renewal.needs_new_method = None, False
    status: RenewalStatus = "recovered" if renewal.past_due_at else "paid"
    await _announce(session, renewal, status, why, resume=resume)


async def known_now(session: AsyncSession, renewal: Renewal) -> BillableSubscription | None:
    """The subscription as it is at this moment, also where this transaction has read it before."""
    return await session.get(BillableSubscription, renewal.subscription_id, populate_existing=True)


def _still_paused(subscription: BillableSubscription | None, renewal: Renewal) -> bool:
    """By our own giving up, not by anybody since."""
    if subscription is None or subscription.status != "paused":
        return False
    past_due_at, resumed_at = renewal.past_due_at, subscription.resumed_at
    return resumed_at is None or past_due_at is None or resumed_at <= past_due_at


async def record_refused(
    session: AsyncSession, renewal: Renewal, reason: str, why: Why, rules: Rules
) -> None:
    """What follows depends on the reason; a customer who gave another card meanwhile is charged with that."""
    renewal.failure_code = reason
    subscription = await session.get(BillableSubscription, renewal.subscription_id)
    if not still_wanted(subscription, renewal):
        await record_canceled(session, renewal, why.at)
        return
    past_due_at = renewal.past_due_at = renewal.past_due_at or why.at
    decision = after_refusal(reason, past_due_at, why.at, rules.dunning_days, why.advice)
    if await _has_newer_method(session, renewal):
        decision = Retry(why.at)
    match decision:
        case Retry(at):
            renewal.next_attempt_at = at
        case AskForMethod():
            renewal.next_attempt_at, renewal.needs_new_method = None, True
        case AskCustomer():
            # The payment stays open: the customer may confirm it themselves.
            renewal.next_attempt_at = None
            await record_past_due(session, renewal, why)
            return
        case GiveUp():
            await record_given_up(session, renewal, why, rules)
            return
        case _:
            assert_never(decision)
    await release_payment(session, renewal, why.at)
    await record_past_due(session, renewal, why)


async def record_past_due(session: AsyncSession, renewal: Renewal, why: Why) -> None:
    renewal.status = "past_due"
    renewal.past_due_at = renewal.past_due_at or why.at
    await _announce(session, renewal, "past_due", why)


async def record_given_up(session: AsyncSession, renewal: Renewal, why: Why, rules: Rules) -> None:
    _end(renewal, "given_up", why.at)
    renewal.past_due_at = renewal.past_due_at or why.at
    renewal.needs_new_method = True
    pause = renewal.paused = rules.pause_when_given_up
    await release_payment(session, renewal, why.at)
    await _announce(session, renewal, "given_up", why, pause=pause)


async def record_canceled(session: AsyncSession, renewal: Renewal, at: datetime) -> None:
    """Nothing is announced: whoever ended or moved the subscription has said so."""
    _end(renewal, "canceled", at)
    await release_payment(session, renewal, at)


async def release_payment(session: AsyncSession, renewal: Renewal, at: datetime) -> None:
    """Order the cancellation of a payment that could still be confirmed, unless that is under way."""
    payment = renewal.stripe_payment_id
    if payment is None:
        return
    known = await payment_of(session, renewal)
    if known is not None and known.status in FINAL:
        return
    orders = select(func.count()).where(
        StripeOrder.stripe_payment_id == payment, StripeOrder.kind == "cancel"
    )
    if await session.scalar(orders.where(StripeOrder.status != "refused")):
        return
    refused = await session.scalar(orders) or 0
    order = Order(
        id=derived_id("renewal cancel", payment, refused),
        kind="cancel",
        parameters={"cancellation_reason": "abandoned"},
        ordered_by=ORDERED_BY,
        stripe_payment_id=payment,
        account=known.account if known else None,
        user_id=renewal.user_id,
        subscription_id=renewal.subscription_id,
        renewal_id=renewal.id,
    )
    await place(session, order, at)


async def payment_of(session: AsyncSession, renewal: Renewal) -> PaymentIntent | None:
    """The latest attempt's payment as far as it is folded; none before that."""
    found: PaymentIntent | None = await session.scalar(
        select(PaymentIntent).where(PaymentIntent.stripe_id == renewal.stripe_payment_id)
    )
    return found


async def _has_newer_method(session: AsyncSession, renewal: Renewal) -> bool:
    method = await session.get(PaymentMethod, renewal.user_id)
    return method is not None and method.revision > (renewal.method_revision or 0)


def _end(renewal: Renewal, status: str, at: datetime) -> None:
    renewal.status, renewal.ended_at, renewal.next_attempt_at = status, at, None


async def _announce(
    session: AsyncSession, renewal: Renewal, status: RenewalStatus, why: Why, **then: bool
) -> None:
    """`then`: what becomes of the subscription, `pause` or `resume`."""
    renewal.revision = (renewal.revision or 0) + 1
    payment = renewal.stripe_payment_id
    fact = RenewalChanged(
        id=derived_id(RenewalChanged.type, renewal.id, renewal.revision),
        occurred_at=why.at,
        customer_id=renewal.user_id,
        renewal_id=renewal.id,
        subscription_id=renewal.subscription_id,
        revision=renewal.revision,
        status=status,
        period_start=renewal.period_start,
        period_end=renewal.period_end,
        currency=renewal.currency,
        total_minor=renewal.total_minor,
        price_version=renewal.price_version,
        cost_history_id=renewal.cost_history_id,
        payment_id=derived_id("payment", payment) if payment else None,
        attempts=renewal.attempts,
        next_attempt_at=renewal.next_attempt_at,
        failure_code=renewal.failure_code,
        needs_new_method=renewal.needs_new_method,
        **then,
    )
    await publish(session, [(fact, why.cause)])
    logger.info(
        "renewal told",
        renewal_id=str(renewal.id),
        status=status,
        failure_code=renewal.failure_code,
        attempts=renewal.attempts,
    )
