"""Writing down what Stripe is to do.  Callers own the transaction; nothing here asks Stripe."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.orders.models import StripeOrder
from shared.events import derived_id

Kind = Literal["create", "confirm", "capture", "cancel", "refund"]


@dataclass(frozen=True)
class Order:
    """`parameters` are what Stripe is sent, as its API names them; `id` is derived where the cause is known.

    Amounts are in minor units of `currency`; `stripe_payment_id` is none only where one is to be created.
    """

    id: UUID
    kind: Kind
    parameters: Mapping[str, object]
    ordered_by: str
    stripe_payment_id: str | None = None
    account: str | None = None
    user_id: UUID | None = None
    subscription_id: UUID | None = None
    renewal_id: UUID | None = None
    currency: str | None = None
    amount_minor: int | None = None
    traceparent: str | None = None


async def place(
    session: AsyncSession, order: Order, now: datetime, held_until: datetime | None = None
) -> bool:
    """Write the order; False where one of that id is there already, which is left as it is.

    With `held_until` the caller asks Stripe itself, once it has committed; the worker takes it up after that.
    """
    payment = order.stripe_payment_id
    placed = await session.execute(
        insert(StripeOrder)
        .values(
            id=order.id,
            kind=order.kind,
            parameters=dict(order.parameters),
            ordered_by=order.ordered_by,
            stripe_payment_id=payment,
            payment_id=derived_id("payment", payment) if payment else None,
            account=order.account,
            user_id=order.user_id,
            subscription_id=order.subscription_id,
            renewal_id=order.renewal_id,
            currency=order.currency,
            amount_minor=order.amount_minor,
            traceparent=order.traceparent,
            ask_after=held_until or now,
            first_asked_at=now if held_until else None,
            attempts=1 if held_until else 0,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["id"])
        .returning(StripeOrder.id)
    )
    return placed.first() is not None
