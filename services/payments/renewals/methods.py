"""What a customer is charged with off-session.  Callers own the transaction."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.periods import lock, order_of
from services.payments.renewals.models import BillableSubscription, PaymentMethod, Renewal
from services.payments.renewals.outcomes import OPEN, adopt, still_wanted
from shared.db import Sessions

# Each takes a few statements, and holds rows that the fold may want.
BATCH_CUSTOMERS = 20


@dataclass(frozen=True)
class Method:
    """Stripe's names of the customer and of the method that is attached to them."""

    stripe_customer_id: str
    stripe_payment_method_id: str
    account: str | None = None


async def put_method(
    session: AsyncSession, user_id: UUID, method: Method, now: datetime
) -> PaymentMethod:
    """Charge the customer with this from now on; what waited for another method is tried at once.

    The same method again changes nothing.
    """
    values = {
        "stripe_customer_id": method.stripe_customer_id,
        "stripe_payment_method_id": method.stripe_payment_method_id,
        "account": method.account,
    }
    given = {**values, "updated_at": now, "learnt_from": None}
    statement = insert(PaymentMethod).values(user_id=user_id, **given)
    put = await session.execute(
        statement.on_conflict_do_update(
            index_elements=["user_id"],
            set_={**given, "revision": PaymentMethod.revision + 1},
            where=or_(
                *(getattr(PaymentMethod, name).is_distinct_from(values[name]) for name in values)
            ),
        ).returning(PaymentMethod.user_id)
    )
    if put.first() is not None:
        await _try_again(session, user_id, now)
    return (
        await session.scalars(select(PaymentMethod).where(PaymentMethod.user_id == user_id))
    ).one()


async def try_learnt(sessions: Sessions, now: datetime) -> int:
    """What waited for another method is tried with one that was learnt from a payment; how many customers'."""
    news = (
        select(PaymentMethod)
        .where(PaymentMethod.is_news)
        .order_by(PaymentMethod.user_id)
        .limit(BATCH_CUSTOMERS)
        .with_for_update(skip_locked=True)
    )
    async with sessions.begin() as session:
        methods = list(await session.scalars(news))
        for method in methods:
            method.is_news = False
            await _try_again(session, method.user_id, now)
    return len(methods)


async def _try_again(session: AsyncSession, user_id: UUID, now: datetime) -> None:
    """Locked rows are read as they are now: a renewal whose charge was just refused is found too."""
    statement = (
        select(Renewal)
        .where(Renewal.user_id == user_id, Renewal.status.in_((*OPEN, "given_up")))
        .order_by(Renewal.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for renewal in await session.scalars(statement):
        match renewal.status:
            case "due" | "past_due":
                renewal.next_attempt_at, renewal.needs_new_method = now, False
            case "given_up":
                await take_up_again(session, renewal, now)
            case _:
                continue  # what is asked for now is followed by what the answer says


async def take_up_again(session: AsyncSession, renewal: Renewal, now: datetime) -> None:
    """A period that still runs is charged; once it is over, the next one begins now."""
    subscription = await session.get(BillableSubscription, renewal.subscription_id)
    if subscription is None or not still_wanted(subscription, renewal):
        return
    await lock(session, renewal.subscription_id, renewal.period_start)
    if order := await order_of(session, renewal.subscription_id, renewal.period_start):
        adopt(renewal, order)
    elif now < renewal.period_end:
        renewal.status, renewal.ended_at = "past_due", None
        renewal.next_attempt_at, renewal.needs_new_method = now, False
    else:
        subscription.resumed_at = now
