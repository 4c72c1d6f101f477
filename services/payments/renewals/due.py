"""Subscriptions whose period ends get a renewal: the next period, at the cost they were told for it.

Nothing is charged here.  A period is written down once, whoever looks and however often.
"""

from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.periods import lock, order_of
from services.payments.renewals.apart import PutOff, act
from services.payments.renewals.models import BillableSubscription, Renewal, ToldCost
from services.payments.renewals.outcomes import Rules, adopt
from services.payments.renewals.periods import anchor_of, end_of, start_around
from shared import log
from shared.db import Sessions
from shared.errors import NotUnderstood
from shared.events import BillingInterval, derived_id

logger = log.get("renewals")

# Each takes some four statements; more in one transaction would hold rows that pricing's facts wait for.
BATCH_SUBSCRIPTIONS = 100
INTERVALS: dict[str, BillingInterval] = {
    "week": "week",
    "month": "month",
    "quarter": "quarter",
    "year": "year",
}

# Neither a period that is written down already nor one that lies within another that is paid or on its way.  What is
# paid holds back until it is over, also where a storefront has set the subscription's period back meanwhile.
WHOSE_PERIOD_ENDED = """
SELECT b.subscription_id FROM billable_subscriptions b
WHERE b.status = 'active' AND b.period_end <= :now AND coalesce(b.resumed_at, :now) <= :now
    AND EXISTS (
        SELECT FROM told_costs c
        WHERE c.subscription_id = b.subscription_id AND c.effective_at <= :now)
    AND NOT EXISTS (
        SELECT FROM renewals r
        WHERE r.subscription_id = b.subscription_id
            AND (r.period_start >= greatest(b.period_end, b.resumed_at)
                OR (r.status NOT IN ('given_up', 'canceled')
                    AND (r.status <> 'paid' OR r.period_end > :now)
                    AND r.period_end > greatest(b.period_end, b.resumed_at))))
    AND NOT b.subscription_id = ANY(CAST(:put_off AS uuid[]))
    AND (CAST(:only AS uuid) IS NULL OR b.subscription_id = :only)
ORDER BY b.period_end
LIMIT :limit
"""
DUE = text(WHOSE_PERIOD_ENDED)
STILL_DUE = text(f"{WHOSE_PERIOD_ENDED} FOR UPDATE OF b SKIP LOCKED")


async def open_due(
    sessions: Sessions, rules: Rules, now: datetime, put_off: PutOff | None = None
) -> int:
    """Write down the next period of subscriptions whose period has ended; how many."""
    put_off = put_off or PutOff()
    whose = {"now": now, "limit": BATCH_SUBSCRIPTIONS, "put_off": put_off.at(now), "only": None}
    async with sessions.begin() as session:
        due = [UUID(str(each)) for each in await session.scalars(DUE, whose)]
    acts = [(each, partial(_open_if_due, name=each, rules=rules, now=now)) for each in due]
    return await act(sessions, acts, put_off, now)


async def _open_if_due(session: AsyncSession, name: UUID, rules: Rules, now: datetime) -> int:
    """Whom somebody else is at work on is passed by."""
    whose = {"now": now, "limit": 1, "put_off": [], "only": name}
    if await session.scalar(STILL_DUE, whose) is None:
        return 0
    await _open(session, name, rules, now)
    return 1


async def cost_of(
    session: AsyncSession, subscription_id: UUID, period_start: datetime, now: datetime
) -> ToldCost | None:
    """What pricing last said was in force when the period began; the first price, where there was none yet.

    None while pricing has said nothing that is in force by now.
    """
    told = select(ToldCost).where(ToldCost.subscription_id == subscription_id)
    in_force: ToldCost | None = await session.scalar(
        told.where(ToldCost.effective_at <= min(period_start, now))
        .order_by(ToldCost.revision.desc())
        .limit(1)
    )
    if in_force is not None:
        return in_force
    first: ToldCost | None = await session.scalar(
        told.where(ToldCost.effective_at <= now).order_by(ToldCost.revision).limit(1)
    )
    return first


async def _open(session: AsyncSession, subscription_id: UUID, rules: Rules, now: datetime) -> None:
    subscription = await session.get(BillableSubscription, subscription_id)
    if subscription is None or subscription.period_end is None:
        raise NotUnderstood(f"subscription {subscription_id} is due without a period")
    interval = INTERVALS[subscription.billing_interval]
    paid_until = await session.scalar(
        select(func.max(Renewal.period_end)).where(
            Renewal.subscription_id == subscription_id, Renewal.status == "paid"
        )
    )
    ended_at = max(subscription.period_end, paid_until or subscription.period_end)
    start = await _start(session, subscription, ended_at, (rules, now))
    cost = await cost_of(session, subscription_id, start, now)
    if cost is None:
        raise NotUnderstood(f"subscription {subscription_id} is due without a cost")
    anchor = subscription.anchor_at or start
    # Whom the API charges for this period at this moment has a payment that is followed, not another one.
    await lock(session, subscription_id, start)
    order = await order_of(session, subscription_id, start)
    renewal_id = derived_id("renewal", subscription_id, start.isoformat())
    opened = await session.execute(
        insert(Renewal)
        .values(
            id=renewal_id,
            subscription_id=subscription_id,
            user_id=subscription.user_id,
            period_start=start,
            period_end=end_of(anchor, start, interval, rules.zone),
            currency=cost.currency,
            total_minor=cost.total_minor,
            price_version=cost.price_version,
            cost_history_id=cost.cost_history_id,
            status="due",
            next_attempt_at=now,
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(Renewal.id)
    )
    if opened.first() is not None and order is not None:
        adopt((await session.scalars(select(Renewal).where(Renewal.id == renewal_id))).one(), order)


async def _start(
    session: AsyncSession,
    subscription: BillableSubscription,
    ended_at: datetime,
    when: tuple[Rules, datetime],
) -> datetime:
    """Where the next period begins; the subscription's anchor is moved where its periods were."""
    rules, now = when
    interval = INTERVALS[subscription.billing_interval]
    resumed_at = subscription.resumed_at
    if resumed_at is not None and resumed_at > ended_at:
        subscription.anchor_at = resumed_at
        return resumed_at
    period = (subscription.period_start, ended_at)
    subscription.anchor_at = anchor_of(subscription.anchor_at, period, interval, rules.zone)
    billed = select(Renewal.id).where(Renewal.subscription_id == subscription.subscription_id)
    since = now
    if await session.scalar(billed.limit(1)) is not None:
        # A worker that was away for some days charges what it missed; nobody wants to pay for last summer.
        since = now - timedelta(days=max(rules.dunning_days))
    # Whoever switches renewals on late does not charge a year at once.
    start = start_around(subscription.anchor_at, ended_at, interval, (since, rules.zone))
    if start > ended_at:
        logger.warning(
            "periods passed over",
            subscription_id=str(subscription.subscription_id),
            since=ended_at.isoformat(),
            until=start.isoformat(),
        )
    return start
