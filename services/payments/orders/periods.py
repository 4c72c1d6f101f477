"""What a subscription's period costs, and whether somebody has ordered it to be paid already."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.models import PaymentIntent, SubscriptionCost
from services.payments.orders.models import StripeOrder
from services.payments.renewals.models import BillableSubscription, Renewal, ToldCost
from shared.errors import Conflict, InvalidInput, NotFound

PERIOD_KEY = "period_start"
# A renewal in one of these charges nobody any more.
OVER = ("canceled", "given_up")
# In one of these the period waits for money.
UNPAID = ("due", "charging", "past_due", "given_up")
SAME_INSTANT = timedelta(seconds=1)


class PeriodOrdered(Conflict):
    title = "This period is paid, or being paid, already"


class UnknownPeriod(InvalidInput):
    title = "The subscription has no such period"


class NoRunningPeriod(Conflict):
    title = "The subscription's period is over"


class NotPriced(Conflict):
    title = "Pricing has not said what this costs"


class Price(NamedTuple):
    """What pricing last said that a subscription costs at some time."""

    currency: str
    total_minor: int
    price_version: int
    cost_history_id: int


async def customer_of(session: AsyncSession, subscription_id: UUID) -> UUID:
    """Raises NotFound for a subscription that pricing never spoke of, Conflict for one that has ended."""
    user_id = await session.scalar(
        select(SubscriptionCost.user_id).where(SubscriptionCost.subscription_id == subscription_id)
    )
    if user_id is None:
        raise NotFound(
            f"pricing has said nothing of a subscription {subscription_id}",
            subscription_id=str(subscription_id),
        )
    known = await session.get(BillableSubscription, subscription_id)
    if known is not None and known.status == "canceled":
        raise Conflict(f"subscription {subscription_id} is canceled", status="canceled")
    return user_id


async def period_of(
    session: AsyncSession, subscription_id: UUID, wanted: datetime | None, now: datetime
) -> datetime | None:
    """The start of the period that is to be paid: the wanted one, or the one that waits for money, or the running one.

    None for a subscription whose periods pricing has said nothing of.  Raises UnknownPeriod or NoRunningPeriod.
    """
    known = await session.get(BillableSubscription, subscription_id)
    waiting = await session.scalar(
        select(Renewal.period_start)
        .where(Renewal.subscription_id == subscription_id, Renewal.status.in_(UNPAID))
        .order_by(Renewal.period_start.desc())
        .limit(1)
    )
    start, end = (known.period_start, known.period_end) if known else (None, None)
    if waiting is not None and end is not None and waiting < end:
        waiting = None  # the subscription has moved on since
    if wanted is not None:
        return _same(subscription_id, wanted, (waiting, start, end))
    if waiting is not None or start is None:
        return waiting
    if end is not None and end <= now:
        raise NoRunningPeriod(
            f"its period ended at {written(end)}: say which period is paid, by its period_start",
            period_start=written(start),
            next_period_start=written(end),
        )
    return start


def _same(subscription_id: UUID, wanted: datetime, known: Iterable[datetime | None]) -> datetime:
    """Which of the known ones is meant: some callers' clocks are cut off at milliseconds."""
    starts = [each for each in known if each is not None]
    for start in starts:
        if abs(start - wanted) < SAME_INSTANT:
            return start
    begin = ", ".join(written(each) for each in starts) or "not known here"
    raise UnknownPeriod(
        f"subscription {subscription_id} has no period from {written(wanted)}; its periods begin: {begin}",
        period_starts=[written(each) for each in starts],
    )


async def price_at(session: AsyncSession, subscription_id: UUID, at: datetime) -> Price:
    """The last cost announced that was in force at `at`.  Raises NotPriced."""
    told = await session.scalar(
        select(ToldCost)
        .where(ToldCost.subscription_id == subscription_id, ToldCost.effective_at <= at)
        .order_by(ToldCost.revision.desc())
        .limit(1)
    ) or await session.scalar(
        select(SubscriptionCost).where(
            SubscriptionCost.subscription_id == subscription_id,
            SubscriptionCost.effective_at <= at,
        )
    )
    if told is None:
        raise NotPriced(
            f"no cost of subscription {subscription_id} is in force at {at.isoformat()}"
        )
    return Price(told.currency, told.total_minor, told.price_version, told.cost_history_id)


async def order_of(
    session: AsyncSession, subscription_id: UUID, period_start: datetime
) -> StripeOrder | None:
    """The latest order by which the API was asked to have this period paid, if that may still come to money."""
    canceled = select(PaymentIntent.id).where(
        PaymentIntent.stripe_id == StripeOrder.stripe_payment_id, PaymentIntent.status == "canceled"
    )
    ordered = select(StripeOrder).where(
        StripeOrder.subscription_id == subscription_id,
        StripeOrder.kind == "create",
        StripeOrder.renewal_id.is_(None),
        _says_period(period_start),
        # A refused creation may have left a payment that can be confirmed with another card.
        (StripeOrder.status != "refused") | StripeOrder.stripe_payment_id.is_not(None),
        ~canceled.exists(),
    )
    found: StripeOrder | None = await session.scalar(
        ordered.order_by(StripeOrder.created_at.desc()).limit(1)
    )
    return found


async def require_free(
    session: AsyncSession, subscription_id: UUID, period_start: datetime
) -> Renewal | None:
    """Nobody else orders this period until the transaction ends; its renewal, where that was given up.

    Raises PeriodOrdered, also for a period within another one that is paid or on its way.
    """
    await lock(session, subscription_id, period_start)
    renewals = select(Renewal).where(Renewal.subscription_id == subscription_id)
    renewal = await session.scalar(
        renewals.where(Renewal.period_end > period_start, Renewal.status.not_in(OVER))
        .order_by(Renewal.period_start)
        .limit(1)
    )
    if renewal is not None:
        raise PeriodOrdered(
            f"the period from {written(renewal.period_start)} is renewed by itself: it is {renewal.status}",
            renewal_id=str(renewal.id),
            status=renewal.status,
        )
    order = await order_of(session, subscription_id, period_start)
    if order is not None:
        raise PeriodOrdered(
            f"the period from {written(period_start)} has a payment already",
            order_id=str(order.id),
            payment_id=str(order.payment_id) if order.payment_id else None,
        )
    given_up: Renewal | None = await session.scalar(
        renewals.where(Renewal.period_start == period_start, Renewal.status == "given_up")
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return given_up


async def lock(session: AsyncSession, subscription_id: UUID, period_start: datetime) -> None:
    """Whoever has this period paid does so one after the other; released with the transaction."""
    name = f"period:{subscription_id}:{written(period_start)}"
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name}
    )


def written(period_start: datetime) -> str:
    """As it stands in a payment's metadata."""
    return period_start.astimezone(UTC).isoformat()


def _says_period(period_start: datetime) -> ColumnElement[bool]:
    said = func.jsonb_extract_path_text(StripeOrder.parameters, "metadata", PERIOD_KEY)
    return said == written(period_start)
