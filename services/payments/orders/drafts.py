"""From what a caller asks for to an order that may be placed: loaded under a lock, judged, written in Stripe's words.

Each draft is a function (session, desk) -> Order in the transaction that places it; a rule that says no raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import Fold, decode
from services.payments.gateway import CAPTURE_KEY, ORDER_KEY
from services.payments.models import PaymentIntent
from services.payments.orders import periods, rules
from services.payments.orders.models import StripeOrder
from services.payments.orders.place import Kind, Order
from services.payments.orders.shapes import (
    PaymentToCancel,
    PaymentToCapture,
    PaymentToConfirm,
    PaymentToCreate,
    PaymentToRefund,
)
from services.payments.renewals.models import Renewal
from services.payments.renewals.outcomes import adopt
from shared.errors import Conflict, InvalidInput, NotFound, Unavailable
from shared.money import to_stripe
from shared.trace import Cause


class OrderUnderWay(Conflict):
    title = "Stripe is being asked for something else on this payment"


@dataclass(frozen=True)
class Wish:
    """Whose order it is going to be, and what of."""

    order_id: UUID
    caller: str
    cause: Cause
    now: datetime


async def create(session: AsyncSession, wish: Wish, asked: PaymentToCreate) -> Order:
    metadata = {ORDER_KEY: str(wish.order_id)}
    given_up: Renewal | None = None
    if asked.subscription_id is None:
        if asked.user_id is None or asked.shown is None:
            raise InvalidInput("give subscription_id, or user_id with amount_minor and currency")
        user_id, (amount_minor, currency) = asked.user_id, asked.shown
    else:
        user_id, price, given_up = await _period(session, wish, asked, metadata)
        amount_minor, currency = price.total_minor, price.currency
        metadata |= {
            "subscription_id": str(asked.subscription_id),
            "price_version": str(price.price_version),
            "cost_history_id": str(price.cost_history_id),
        }
    metadata["user_id"] = str(user_id)
    parameters: dict[str, object] = {
        "amount": to_stripe(amount_minor, currency),
        "currency": currency.lower(),
        "metadata": metadata,
        **_how(asked),
    }
    order = Order(
        id=wish.order_id,
        kind="create",
        parameters=parameters,
        ordered_by=wish.caller,
        account=asked.account,
        user_id=user_id,
        subscription_id=asked.subscription_id,
        currency=currency,
        amount_minor=amount_minor,
        traceparent=wish.cause.traceparent,
    )
    if given_up is not None:
        adopt(given_up, order)
    return order


async def _period(
    session: AsyncSession, wish: Wish, asked: PaymentToCreate, metadata: dict[str, str]
) -> tuple[UUID, periods.Price, Renewal | None]:
    """Whom the period is charged to, for how much, and its renewal where that was given up.

    `metadata` learns which period it is.
    """
    if asked.subscription_id is None:
        raise InvalidInput("a period is a subscription's")
    user_id = await periods.customer_of(session, asked.subscription_id)
    if asked.user_id not in (None, user_id):
        raise InvalidInput(f"subscription {asked.subscription_id} is not user {asked.user_id}'s")
    start = await periods.period_of(session, asked.subscription_id, asked.period_start, wish.now)
    given_up = None
    if start is not None:
        given_up = await periods.require_free(session, asked.subscription_id, start)
        metadata[periods.PERIOD_KEY] = periods.written(start)
    price = await periods.price_at(session, asked.subscription_id, max(start or wish.now, wish.now))
    if price.total_minor == 0:
        raise InvalidInput("it costs nothing: there is nothing to pay")
    if asked.shown not in (None, (price.total_minor, price.currency)):
        raise _changed(price)
    return user_id, price, given_up


def _how(asked: PaymentToCreate) -> dict[str, object]:
    wanted: dict[str, object | None] = {
        "customer": asked.customer,
        "payment_method": asked.payment_method,
        "capture_method": "manual" if asked.capture == "manual" else None,
        "confirm": True if asked.confirm else None,
        "off_session": True if asked.off_session else None,
        "setup_future_usage": "off_session" if asked.save_method else None,
        "return_url": asked.return_url if asked.confirm else None,
        "description": asked.description,
    }
    # Whoever gives no address to come back to cannot be sent elsewhere to pay, now or when it is confirmed.
    redirects = "never" if asked.return_url is None else "always"
    wanted["automatic_payment_methods"] = {"enabled": True, "allow_redirects": redirects}
    return _given(wanted)


async def confirm(
    session: AsyncSession, wish: Wish, asked: PaymentToConfirm, payment_id: UUID
) -> Order:
    payment = await _locked(session, payment_id)
    await _require_alone(session, payment)
    rules.require_confirmable(payment.status)
    told = (asked.amount_minor, asked.currency)
    rules.require_told(told, payment.amount_minor, payment.currency)
    created = await _creation_of(session, payment)
    if created is not None:
        await _require_price(session, created, payment, wish.now)
        _require_way_back(created, asked)
    parameters = {"payment_method": asked.payment_method, "return_url": asked.return_url}
    return _order(wish, payment, "confirm", _given(parameters), payment.amount_minor)


async def capture(
    session: AsyncSession, wish: Wish, asked: PaymentToCapture, payment_id: UUID
) -> Order:
    payment = await _locked(session, payment_id)
    await _require_alone(session, payment)
    rules.require_currency(asked.currency, payment.currency)
    minor = rules.capture_minor(payment.status, payment.capturable_minor, asked.amount_minor)
    parameters: dict[str, object] = {
        "amount_to_capture": to_stripe(minor, payment.currency),
        "metadata": {CAPTURE_KEY: str(wish.order_id)},
    }
    if not asked.final:
        parameters["final_capture"] = False
    return _order(wish, payment, "capture", parameters, minor)


async def cancel(
    session: AsyncSession, wish: Wish, asked: PaymentToCancel, payment_id: UUID
) -> Order:
    payment = await _locked(session, payment_id)
    await _require_alone(session, payment)
    rules.require_cancelable(payment.status)
    return _order(wish, payment, "cancel", _given({"cancellation_reason": asked.reason}), None)


async def refund(
    session: AsyncSession, wish: Wish, asked: PaymentToRefund, payment_id: UUID
) -> Order:
    payment = await _locked(session, payment_id)
    rules.require_currency(asked.currency, payment.currency)
    minor = rules.refund_minor(await _given_back(session, payment), asked.amount_minor)
    parameters = {
        "payment_intent": payment.stripe_id,
        "amount": to_stripe(minor, payment.currency),
        "reason": asked.reason,
        "metadata": {ORDER_KEY: str(wish.order_id)},
    }
    return _order(wish, payment, "refund", _given(parameters), minor)


async def _locked(session: AsyncSession, payment_id: UUID) -> PaymentIntent:
    """The payment, changed by nobody until the transaction ends: orders on it are judged one after the other."""
    payment = await session.get(PaymentIntent, payment_id, with_for_update=True)
    if payment is not None:
        return payment
    ordered = select(StripeOrder.id).where(StripeOrder.payment_id == payment_id).limit(1)
    if await session.scalar(ordered):
        raise Unavailable("Stripe's answer on this payment is still being read; try again")
    raise NotFound(f"there is no payment {payment_id}", payment_id=str(payment_id))


async def _require_alone(session: AsyncSession, payment: PaymentIntent) -> None:
    """What an unanswered order has made of the payment is not known: nothing is built upon it."""
    other = await session.scalar(
        select(StripeOrder)
        .where(
            StripeOrder.stripe_payment_id == payment.stripe_id,
            StripeOrder.status == "open",
            StripeOrder.kind != "refund",
        )
        .limit(1)
    )
    if other is not None:
        raise OrderUnderWay(f"order {other.id} to {other.kind} it is open", order_id=str(other.id))


async def _creation_of(session: AsyncSession, payment: PaymentIntent) -> StripeOrder | None:
    """None for one that was not made through here."""
    created = select(StripeOrder).where(
        StripeOrder.stripe_payment_id == payment.stripe_id, StripeOrder.kind == "create"
    )
    found: StripeOrder | None = await session.scalar(created.limit(1))
    return found


def _require_way_back(created: StripeOrder, asked: PaymentToConfirm) -> None:
    """Stripe confirms nothing that may send the customer elsewhere without an address to come back to."""
    how = created.parameters.get("automatic_payment_methods") or {}
    if how.get("allow_redirects") == "always" and asked.return_url is None:
        raise InvalidInput("it may send the customer to their bank: give a return_url")


async def _require_price(
    session: AsyncSession, order: StripeOrder, payment: PaymentIntent, now: datetime
) -> None:
    """A subscription's period is not paid at a price that was replaced before it was agreed to.

    A renewal's amount is what was announced for its period, whatever came later.
    """
    if order.subscription_id is None or order.renewal_id is not None:
        return
    said = order.parameters["metadata"].get(periods.PERIOD_KEY)
    at = max(datetime.fromisoformat(said), now) if said else now
    price = await periods.price_at(session, order.subscription_id, at)
    if (price.total_minor, price.currency) != (payment.amount_minor, payment.currency):
        raise _changed(price)


def _changed(price: periods.Price) -> rules.PriceChanged:
    return rules.PriceChanged(
        f"it costs {price.total_minor} {price.currency} now: show that, and create the payment anew",
        amount_minor=price.total_minor,
        currency=price.currency,
        price_version=price.price_version,
    )


async def left_minor(session: AsyncSession, payment: PaymentIntent) -> int:
    """What of it can be given back, none while it is fought over; changed by nobody until the transaction ends."""
    await session.refresh(payment, with_for_update=True)
    given = await _given_back(session, payment)
    return 0 if rules.is_disputed(given) else given.left_minor


async def _given_back(session: AsyncSession, payment: PaymentIntent) -> rules.Given:
    folded = decode(orjson.dumps(payment.fold))
    return rules.Given(
        received_minor=payment.received_minor,
        refunded_minor=payment.refunded_minor,
        disputed_minor=payment.disputed_minor,
        untold_minor=rules.untold_minor(folded),
        ordered_minor=await _ordered_minor(session, payment, folded),
        disputes=tuple(each.told[2] for each in folded.disputes.values()),
    )


async def _ordered_minor(session: AsyncSession, payment: PaymentIntent, folded: Fold) -> int:
    """Refunds that Stripe is asked for, or has made and no fact that is folded tells of yet."""
    ordered = await session.execute(
        select(StripeOrder.amount_minor, StripeOrder.stripe_object_id).where(
            StripeOrder.stripe_payment_id == payment.stripe_id,
            StripeOrder.kind == "refund",
            StripeOrder.status != "refused",
        )
    )
    return sum(
        row.amount_minor or 0 for row in ordered if row.stripe_object_id not in folded.refunds
    )


def _order(
    wish: Wish,
    payment: PaymentIntent,
    kind: Kind,
    parameters: dict[str, object],
    amount_minor: int | None,
) -> Order:
    return Order(
        id=wish.order_id,
        kind=kind,
        parameters=parameters,
        ordered_by=wish.caller,
        stripe_payment_id=payment.stripe_id,
        account=payment.account,
        user_id=payment.user_id,
        subscription_id=payment.subscription_id,
        currency=payment.currency,
        amount_minor=amount_minor,
        traceparent=wish.cause.traceparent,
    )


def _given(parameters: Mapping[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in parameters.items() if value is not None}
