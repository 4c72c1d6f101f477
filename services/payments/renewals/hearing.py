"""What pricing says of subscriptions is kept here: their lives, their periods, and every cost they were told.

Callers own the transaction.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.shapes import FIRST, LAST
from services.payments.renewals.leaving import give_back_paid
from services.payments.renewals.models import BillableSubscription, Renewal, ToldCost
from services.payments.renewals.outcomes import OPEN, Why, still_wanted
from shared.events import SubscriptionChanged, SubscriptionCostChanged
from shared.trace import Cause


async def remember_costs(session: AsyncSession, facts: Sequence[SubscriptionCostChanged]) -> None:
    """Every cost, not only the latest: a period costs what was in force when it began."""
    await session.execute(
        insert(ToldCost).on_conflict_do_nothing(),
        [
            {
                "subscription_id": fact.subscription_id,
                "revision": fact.revision,
                "currency": fact.currency,
                "total_minor": fact.new_total_minor,
                "price_version": fact.price_version,
                "cost_history_id": fact.cost_history_id,
                "effective_at": fact.effective_at,
            }
            for fact in facts
        ],
    )


async def remember_subscriptions(
    session: AsyncSession, facts: Sequence[SubscriptionChanged]
) -> None:
    """Each subscription as its highest revision says it, and since when it is active again."""
    ids = {fact.subscription_id for fact in facts}
    known = await _locked(session, ids)
    changed: dict[UUID, SubscriptionChanged] = {}
    for fact in sorted(facts, key=lambda fact: fact.revision):
        row = known.get(fact.subscription_id)
        if row is None:
            row = known[fact.subscription_id] = _new(fact)
            session.add(row)
        elif fact.revision <= row.revision:
            continue
        elif fact.status == "active" and row.status != "active":
            row.resumed_at = fact.occurred_at
        if fact.status != "active" and (row.status in (None, "active") or row.left_at is None):
            row.left_at = fact.occurred_at
        _take_over(row, fact)
        changed[fact.subscription_id] = fact
    await session.flush()
    await _wake_renewals(session, changed, known)


async def _locked(session: AsyncSession, ids: Iterable[UUID]) -> dict[UUID, BillableSubscription]:
    statement = (
        select(BillableSubscription)
        .where(BillableSubscription.subscription_id.in_(ids))
        .order_by(BillableSubscription.subscription_id)
        .with_for_update()
    )
    return {row.subscription_id: row for row in await session.scalars(statement)}


def _new(fact: SubscriptionChanged) -> BillableSubscription:
    return BillableSubscription(
        subscription_id=fact.subscription_id, created_at=fact.created_at, anchor_at=None
    )


def _take_over(row: BillableSubscription, fact: SubscriptionChanged) -> None:
    row.user_id = fact.customer_id
    row.revision = fact.revision
    row.status = fact.status
    row.billing_interval = fact.billing_interval
    row.period_start, row.period_end = _instant(fact.period_start), _instant(fact.period_end)


def _instant(said: datetime | None) -> datetime | None:
    """A storefront's zero time, or one in the year 9999, is no period's end that anybody could be charged for."""
    return said if said is not None and FIRST <= said <= LAST else None


async def _wake_renewals(
    session: AsyncSession,
    changed: dict[UUID, SubscriptionChanged],
    known: dict[UUID, BillableSubscription],
) -> None:
    """Renewals that nobody wants any more are looked at now, not on the day of their next attempt.

    Locked rows are read as they are now: a renewal whose charge was just refused is woken too.
    """
    statement = (
        select(Renewal)
        .where(Renewal.subscription_id.in_(changed), Renewal.status.in_(OPEN))
        .order_by(Renewal.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for renewal in await session.scalars(statement):
        unwanted = not still_wanted(known[renewal.subscription_id], renewal)
        if unwanted and renewal.status != "charging":
            renewal.next_attempt_at = changed[renewal.subscription_id].occurred_at
    for subscription_id, fact in changed.items():
        cause = Cause.of(fact)
        await give_back_paid(session, known[subscription_id], Why(fact.occurred_at, cause))
