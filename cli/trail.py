"""What happened to whom, put together from what each service keeps of it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from cli.database import transaction_of
from services.analytics.models import PaymentFact
from services.loyalty.models import LoyaltyAccount, PointsTransaction
from services.payments.models import PaymentIntent, StripeEvent
from services.pricing.models import SubscriptionCostHistory
from shared.db import SERVICES
from shared.errors import NotFound
from shared.money import format_minor
from shared.parking import ParkedEvent
from shared.settings import Settings
from shared.storefront import Subscription

# One customer's life fits a screen or two; who has more is looked at in the database.
LIMIT = 200

Row = dict[str, object]


@dataclass(frozen=True)
class Section:
    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Trails:
    """One reading transaction with each service."""

    sessions: dict[str, AsyncSession]

    async def customer(self, user_id: UUID) -> list[Section]:
        """Raises NotFound where no service has heard of them."""
        sections = [
            *await self._subscriptions(Subscription.user_id == user_id),
            *await self._payments(PaymentIntent.user_id == user_id),
            *await self._points(PointsTransaction.user_id == user_id, user_id),
            await self._parked(str(user_id)),
        ]
        return _found(sections, f"customer {user_id}")

    async def subscription(self, subscription_id: UUID) -> list[Section]:
        sections = [
            *await self._subscriptions(Subscription.id == subscription_id),
            *await self._payments(PaymentIntent.subscription_id == subscription_id),
        ]
        return _found(sections, f"subscription {subscription_id}")

    async def payment(self, identity: str) -> list[Section]:
        """`identity`: ours, or Stripe's pi_…"""
        which: ColumnElement[bool] = PaymentIntent.stripe_id == identity
        if not identity.startswith("pi_"):
            which = PaymentIntent.id == UUID(identity)
        sections = await self._payments(which)
        payment_id = await self.sessions["payments"].scalar(select(PaymentIntent.id).where(which))
        if payment_id is not None:
            sections += await self._points(PointsTransaction.payment_id == payment_id, None)
            sections.append(await self._days(payment_id))
        return _found(sections, f"payment {identity}")

    async def _subscriptions(self, which: ColumnElement[bool]) -> list[Section]:
        session = self.sessions["pricing"]
        statement = (
            select(Subscription).where(which).order_by(Subscription.created_at, Subscription.id)
        )
        found = (await session.scalars(statement.limit(LIMIT))).all()
        ids = [each.id for each in found]
        history = select(SubscriptionCostHistory).where(
            SubscriptionCostHistory.subscription_id.in_(ids)
        )
        lines = await session.scalars(history.order_by(SubscriptionCostHistory.id).limit(LIMIT))
        return [
            Section("subscriptions", [_subscription(each) for each in found]),
            Section("what they cost, since when and why", [_cost(line) for line in lines]),
        ]

    async def _payments(self, which: ColumnElement[bool]) -> list[Section]:
        session = self.sessions["payments"]
        statement = select(PaymentIntent).where(which).order_by(PaymentIntent.created_at)
        payments = (await session.scalars(statement.limit(LIMIT))).all()
        facts = select(StripeEvent).where(
            StripeEvent.stripe_payment_id.in_([each.stripe_id for each in payments])
        )
        order = (StripeEvent.stripe_created_at, StripeEvent.position)
        events = await session.scalars(facts.order_by(*order).limit(LIMIT))
        return [
            Section("payments", [_payment(each) for each in payments]),
            Section("the Stripe facts they came from", [_event(event) for event in events]),
        ]

    async def _points(self, which: ColumnElement[bool], user_id: UUID | None) -> list[Section]:
        session = self.sessions["loyalty"]
        statement = select(PointsTransaction).where(which).order_by(PointsTransaction.id)
        lines = (await session.scalars(statement.limit(LIMIT))).all()
        sections = [Section("points", [_points(line) for line in lines])]
        account = await session.get(LoyaltyAccount, user_id) if user_id else None
        if account is not None:
            row: Row = {"balance": account.balance_points, "tier": account.tier}
            sections.append(Section("loyalty account", [row]))
        return sections

    async def _days(self, payment_id: UUID) -> Section:
        fact = await self.sessions["analytics"].get(PaymentFact, payment_id)
        days = fact.days if fact else {}
        rows: list[Row] = [{"day": day, "adds": days[day]} for day in sorted(days)]
        return Section("days it counts in", rows)

    async def _parked(self, key: str) -> Section:
        rows: list[Row] = []
        for service, session in self.sessions.items():
            found = select(ParkedEvent).where(
                ParkedEvent.key == key, ParkedEvent.status != "retried"
            )
            rows += [
                {"service": service, "id": each.id, "status": each.status, "error": each.error}
                for each in await session.scalars(found.order_by(ParkedEvent.id).limit(LIMIT))
            ]
        return Section("facts parked or given up", rows)


@asynccontextmanager
async def open_trails(settings: Settings) -> AsyncIterator[Trails]:
    async with AsyncExitStack() as stack:
        sessions = {
            service: await stack.enter_async_context(transaction_of(settings, service))
            for service in SERVICES
        }
        yield Trails(sessions)


def _found(sections: list[Section], what: str) -> list[Section]:
    """Only what has something to say.  Raises NotFound."""
    said = [section for section in sections if section.rows]
    if not said:
        raise NotFound(f"no service has heard of {what}")
    return said


def _subscription(row: Subscription) -> Row:
    boxes = sum(int(line["quantity"]) for line in row.variants)
    return {
        "subscription": row.id,
        "status": row.status,
        "every": row.billing_interval,
        "box": f"{boxes} pieces of {len(row.variants)} variants",
        "delivery": row.delivery_type,
        "costs": _money(row.total_minor, row.currency),
        "price_version": row.price_version,
        "points_earned": row.loyalty_points_earned,
    }


def _cost(line: SubscriptionCostHistory) -> Row:
    return {
        "since": _time(line.effective_at),
        "kind": line.kind,
        "version": line.price_version,
        "was": _money(line.old_total_minor, line.currency),
        "is": _money(line.new_total_minor, line.currency),
        "reason": line.reason,
        "by": line.changed_by,
        "cause": line.cause_id,
    }


def _payment(row: PaymentIntent) -> Row:
    return {
        "payment": row.stripe_id,
        "status": row.status,
        "amount": _money(row.amount_minor, row.currency),
        "received": _money(row.received_minor, row.currency),
        "refunded": _money(row.refunded_minor, row.currency),
        "disputed": _money(row.disputed_minor, row.currency),
        "failure": row.failure_code,
        "revision": row.revision,
        "our_id": row.id,
    }


def _event(row: StripeEvent) -> Row:
    return {
        "created": _time(row.stripe_created_at),
        "type": row.type,
        "payment": row.stripe_payment_id,
        "became": row.status if row.detail is None else f"{row.status}: {row.detail}",
        "received": _time(row.received_at),
        "event": row.id,
    }


def _points(row: PointsTransaction) -> Row:
    return {
        "when": _time(row.occurred_at),
        "points": f"{row.points:+}",
        "kind": row.kind,
        "rule": row.rule,
        "payment_revision": row.payment_revision,
        "payment": row.payment_id,
    }


def _money(amount_minor: int | None, currency: str) -> str | None:
    return None if amount_minor is None else format_minor(amount_minor, currency)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
