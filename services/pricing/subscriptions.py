"""What pricing's API does to a subscription: create, change its box or delivery, pause, resume, cancel.

The rows are written as the storefront would write them, so that the trigger stages subscription_changed; then
the cost is brought in line with them.  Callers own the transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.costs import Why, lock_rows
from services.pricing.domain import (
    Action,
    NotInThisState,
    end_of_period,
    status_after,
)
from services.pricing.layers import Layers, NoPriceInForce, current_versions
from services.pricing.models import SubscriptionCostHistory
from services.pricing.reprice import priceable_at, reprice
from shared.errors import InvalidInput, NotFound
from shared.events import BillingInterval, BoxLine, SubscriptionStatus
from shared.outbox import say_why
from shared.storefront import Address, Subscription, User


class SubscriptionNotFound(NotFound):
    title = "There is no such subscription"


class UnknownUser(InvalidInput):
    title = "There is no such user"


class UnknownAddress(InvalidInput):
    title = "The user has no such address"


@dataclass(frozen=True)
class Delivery:
    """How and where to a box goes; `next_on` is kept as it is where None."""

    type: str
    address_id: UUID
    next_on: date | None = None


@dataclass(frozen=True)
class Order:
    """What a customer subscribes to; lines take the variants' current prices."""

    user_id: UUID
    currency: str
    billing_interval: BillingInterval
    lines: tuple[BoxLine, ...]
    delivery: Delivery


class Held(BaseModel):
    """A subscription under lock, whatever the storefront wrote into its box."""

    user_id: UUID
    status: SubscriptionStatus
    variants: list[object]


async def create_subscription(session: AsyncSession, order: Order, why: Why) -> UUID:
    """Raises UnknownUser, UnknownAddress, UnknownVariant, NoPriceInForce and what the cost rule raises."""
    layers = await _priceable(session, why)
    if await session.get(User, order.user_id) is None:
        raise UnknownUser(f"there is no user {order.user_id}")
    await _check_address(session, order.user_id, order.delivery.address_id)
    await say_why(session, why.cause, why.at)
    statement = insert(Subscription).values(
        user_id=order.user_id,
        status="active",
        currency=order.currency,
        billing_interval=order.billing_interval,
        period_start=why.at,
        period_end=end_of_period(why.at, order.billing_interval),
        created_at=why.at,
        variants=_unpriced(order.lines),
        delivery_type=order.delivery.type,
        delivery_address_id=order.delivery.address_id,
        next_delivery_on=order.delivery.next_on,
    )
    subscription_id = (await session.scalars(statement.returning(Subscription.id))).one()
    await reprice(session, layers, {subscription_id: why})
    return subscription_id


async def change_variants(
    session: AsyncSession, subscription_id: UUID, lines: tuple[BoxLine, ...], why: Why
) -> None:
    """Another box, at the variants' current prices; the same box again keeps what it was priced at."""
    layers = await _priceable(session, why)
    subject = await _locked(session, subscription_id)
    _open(subject)
    if _contents(subject.variants) == _unpriced(lines):
        return
    await say_why(session, why.cause, why.at)
    await _write(session, subscription_id, variants=_unpriced(lines))
    await reprice(session, layers, {subscription_id: why})


async def change_delivery(
    session: AsyncSession, subscription_id: UUID, delivery: Delivery, why: Why
) -> None:
    layers = await _priceable(session, why)
    subject = await _locked(session, subscription_id)
    _open(subject)
    await _check_address(session, subject.user_id, delivery.address_id)
    await say_why(session, why.cause, why.at)
    await _write(
        session,
        subscription_id,
        delivery_type=delivery.type,
        delivery_address_id=delivery.address_id,
        **({} if delivery.next_on is None else {"next_delivery_on": delivery.next_on}),
    )
    await reprice(session, layers, {subscription_id: why})


async def change_status(
    session: AsyncSession, subscription_id: UUID, action: Action, why: Why
) -> None:
    """Raises NotInThisState."""
    subject = await _locked(session, subscription_id)
    status = status_after(action, subject.status)
    await say_why(session, why.cause, why.at)
    canceled_at = why.at if status == "canceled" else None
    await _write(session, subscription_id, status=status, canceled_at=canceled_at)


async def get_subscription(session: AsyncSession, subscription_id: UUID) -> Subscription:
    """As it stands now, also within a transaction that has just written it."""
    found = await session.get(Subscription, subscription_id, populate_existing=True)
    if found is None:
        raise SubscriptionNotFound(f"there is no subscription {subscription_id}")
    return found


async def check_there(session: AsyncSession, subscription_id: UUID) -> None:
    """Whatever its row holds.  Raises SubscriptionNotFound."""
    if (
        await session.scalar(select(Subscription.id).where(Subscription.id == subscription_id))
        is None
    ):
        raise SubscriptionNotFound(f"there is no subscription {subscription_id}")


async def list_subscriptions(
    session: AsyncSession, user_id: UUID | None, after: UUID | None, limit: int
) -> Sequence[Subscription]:
    statement = select(Subscription).order_by(Subscription.id).limit(limit)
    if user_id is not None:
        statement = statement.where(Subscription.user_id == user_id)
    if after is not None:
        statement = statement.where(Subscription.id > after)
    return (await session.scalars(statement)).all()


async def cost_history(
    session: AsyncSession, subscription_id: UUID, after: int, limit: int
) -> Sequence[SubscriptionCostHistory]:
    statement = select(SubscriptionCostHistory).where(
        SubscriptionCostHistory.subscription_id == subscription_id,
        SubscriptionCostHistory.id > after,
    )
    return (
        await session.scalars(statement.order_by(SubscriptionCostHistory.id).limit(limit))
    ).all()


async def _priceable(session: AsyncSession, why: Why) -> Layers:
    """Before any row is locked: whoever activates a version waits for us, and others for them."""
    layers = await current_versions(session)
    if not priceable_at(layers, why.at):
        raise NoPriceInForce("no price version is in force; publish one first")
    return layers


async def _locked(session: AsyncSession, subscription_id: UUID) -> Held:
    for row in await lock_rows(session, [subscription_id]):
        return Held.model_validate(row)
    raise SubscriptionNotFound(f"there is no subscription {subscription_id}")


def _open(subject: Held) -> None:
    if subject.status == "canceled":
        raise NotInThisState(
            "cannot change it: the subscription is canceled", subscription_status="canceled"
        )


async def _check_address(session: AsyncSession, user_id: UUID, address_id: UUID) -> None:
    statement = select(Address.id).where(Address.id == address_id, Address.user_id == user_id)
    if await session.scalar(statement) is None:
        raise UnknownAddress(f"user {user_id} has no address {address_id}")


async def _write(session: AsyncSession, subscription_id: UUID, **columns: object) -> None:
    await session.execute(
        update(Subscription).where(Subscription.id == subscription_id).values(**columns)
    )


def _unpriced(lines: tuple[BoxLine, ...]) -> list[dict[str, object]]:
    return [{"variant_id": str(line.variant_id), "quantity": line.quantity} for line in lines]


def _contents(variants: Sequence[object]) -> list[object]:
    """Stored lines without what pricing adds to them."""
    return [
        {key: value for key, value in line.items() if key != "unit_price_minor"}
        if isinstance(line, dict)
        else line
        for line in variants
    ]
