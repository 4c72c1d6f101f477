"""Lock the customers' accounts, book each payment's difference, say what changed.  Callers own the transaction.

A payment belongs to the first customer it earned for: a later fact that names another, or nobody, is booked there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Update, Uuid, any_, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import CollectionAggregate, ColumnElement

from services.loyalty.domain import (
    WINDOW,
    Account,
    Booking,
    Lot,
    Standing,
    book,
    reconsider_tier,
)
from services.loyalty.models import LoyaltyAccount, PointsLot, PointsTransaction
from shared import log
from shared.bulk import listed
from shared.consumer import Handlers
from shared.db import Base
from shared.events import Event, PaymentChanged, PointsChanged, TierChanged, derived_id
from shared.outbox import publish
from shared.trace import Cause

# What a later fact may change of a lot; the rest stays as it was earned.
LOT_CHANGES = ("subscription_id", "payment_revision", "points", "peak_points")

logger = log.get("loyalty")


@dataclass(frozen=True)
class Booked:
    """A booking and the fact that caused it."""

    fact: PaymentChanged
    booking: Booking


async def award_points(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
    """Book what each payment is worth now against what was booked for it before."""
    owners = await owners_of(session, {fact.payment_id for fact in facts})
    known = frozenset(owners)
    await open_accounts(session, facts, known)
    accounts = await lock_accounts(session, _customers(facts, owners), facts)
    booked: list[Booked] = []
    for fact in facts:
        owner = owners.get(fact.payment_id, fact.customer_id)
        account = accounts.get(owner) if owner else None
        booking = book(account, fact) if account else None
        if booking:
            accounts[booking.account.user_id] = booking.account
            owners[fact.payment_id] = booking.account.user_id
            booked.append(Booked(fact, booking))
    _mention_nameless(facts, owners)
    await record(session, booked, known)


async def refresh_tiers(session: AsyncSession, now: datetime, limit: int) -> int:
    """Move down the tiers whose points have lapsed by `now`; returns how many accounts were looked at."""
    statement = (
        select(LoyaltyAccount.user_id)
        .where(LoyaltyAccount.tier_until <= now)
        .order_by(LoyaltyAccount.tier_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    users = (await session.scalars(statement)).all()
    if not users:
        return 0
    accounts = await load_accounts(session, users, now - WINDOW, ())
    moved = [(account, *reconsider_tier(account, now)) for account in accounts.values()]
    await save_accounts(session, [after for _, after, _ in moved])
    cause = Cause(f"clock:{now.isoformat()}")
    facts = [
        (_tier_changed(before, after, standing, now), cause)
        for before, after, standing in moved
        if standing
    ]
    await publish(session, facts)
    return len(users)


async def owners_of(session: AsyncSession, payments: Iterable[UUID]) -> dict[UUID, UUID]:
    """payment -> the customer it earned for."""
    statement = select(PointsLot.payment_id, PointsLot.user_id)
    rows = await session.execute(statement.where(PointsLot.payment_id == _any(payments)))
    return {row[0]: row[1] for row in rows}


async def open_accounts(
    session: AsyncSession, facts: Sequence[PaymentChanged], known: frozenset[UUID]
) -> None:
    """An account for each customer whose first payment received money."""
    opened: dict[UUID, datetime] = {}
    for fact in facts:
        if fact.customer_id and fact.received_minor > 0 and fact.payment_id not in known:
            opened.setdefault(fact.customer_id, fact.succeeded_at or fact.occurred_at)
    if opened:
        rows = [{"user_id": user, "opened_at": at} for user, at in sorted(opened.items())]
        data = listed(LoyaltyAccount, rows)
        opening = insert(LoyaltyAccount).from_select(list(data.c.keys()), select(data))
        await session.execute(opening.on_conflict_do_nothing())


async def lock_accounts(
    session: AsyncSession, users: set[UUID], facts: Sequence[PaymentChanged]
) -> dict[UUID, Account]:
    """The accounts, locked in the order of their ids, so that two workers queue instead of deadlocking."""
    if not users:
        return {}
    statement = select(LoyaltyAccount.user_id).where(LoyaltyAccount.user_id == _any(users))
    locked = (
        await session.scalars(statement.order_by(LoyaltyAccount.user_id).with_for_update())
    ).all()
    since = min(fact.occurred_at for fact in facts) - WINDOW
    return await load_accounts(session, locked, since, facts)


async def load_accounts(
    session: AsyncSession, users: Sequence[UUID], since: datetime, facts: Sequence[PaymentChanged]
) -> dict[UUID, Account]:
    """The accounts with their lots earned after `since`, and those of the facts' payments however old."""
    lots: dict[UUID, dict[UUID, Lot]] = {user: {} for user in users}
    recent: ColumnElement[bool] = PointsLot.earned_at > since
    if facts:
        recent = or_(recent, PointsLot.payment_id == _any({fact.payment_id for fact in facts}))
    columns = [getattr(PointsLot, name) for name in Lot.__annotations__]
    for row in await session.execute(select(*columns).where(_owned(users), recent)):
        lot = Lot(*row)
        lots[lot.user_id][lot.payment_id] = lot
    subscriptions = await _subscription_points(session, users, _subscriptions(facts, lots.values()))
    rows = await session.execute(
        select(
            LoyaltyAccount.user_id,
            LoyaltyAccount.balance_points,
            LoyaltyAccount.tier,
            LoyaltyAccount.revision,
            LoyaltyAccount.tier_as_of,
            LoyaltyAccount.tier_until,
        ).where(LoyaltyAccount.user_id == _any(users))
    )
    return {row[0]: Account(*row, lots[row[0]], subscriptions.get(row[0], {})) for row in rows}


async def record(
    session: AsyncSession, booked: Sequence[Booked], known_payments: frozenset[UUID]
) -> None:
    """One statement for each table, whatever the number of bookings."""
    if not booked:
        return
    lots = {b.booking.lot.payment_id: _lot_row(b.booking.lot) for b in booked}
    fresh = [row for payment, row in lots.items() if payment not in known_payments]
    known = [row for payment, row in lots.items() if payment in known_payments]
    await _insert(session, PointsLot, fresh)
    if known:
        data = listed(PointsLot, known)
        changed = {name: data.c[name] for name in LOT_CHANGES}
        matching = PointsLot.payment_id == data.c.payment_id
        await session.execute(_alone(update(PointsLot).where(matching).values(changed)))
    told = [b for b in booked if b.booking.points]
    if told:
        await _insert(session, PointsTransaction, [_transaction_row(b) for b in told])
        accounts = {b.booking.account.user_id: b.booking.account for b in told}
        await save_accounts(session, accounts.values())
        await publish(session, [(e, Cause.of(b.fact)) for b in told for e in _facts_of(b)])


async def save_accounts(session: AsyncSession, accounts: Iterable[Account]) -> None:
    rows = [
        {
            "user_id": account.user_id,
            "balance_points": account.balance_points,
            "tier": account.tier,
            "revision": account.revision,
            "tier_as_of": account.tier_as_of,
            "tier_until": account.tier_until,
        }
        for account in accounts
    ]
    data = listed(LoyaltyAccount, rows)
    changed = {name: data.c[name] for name in rows[0] if name != "user_id"}
    matching = LoyaltyAccount.user_id == data.c.user_id
    await session.execute(_alone(update(LoyaltyAccount).where(matching).values(changed)))


def _alone(statement: Update) -> Update:
    """No mapped object of this session shows these rows: there is nothing to synchronise."""
    return statement.execution_options(synchronize_session=False)


async def _insert(
    session: AsyncSession, model: type[Base], rows: Sequence[dict[str, object]]
) -> None:
    if rows:
        data = listed(model, rows)
        await session.execute(insert(model).from_select(list(data.c.keys()), select(data)))


async def _subscription_points(
    session: AsyncSession, users: Sequence[UUID], subscriptions: set[UUID]
) -> dict[UUID, dict[UUID, int]]:
    """customer -> subscription -> what all its payments are worth, however old."""
    if not subscriptions:
        return {}
    statement = (
        select(PointsLot.user_id, PointsLot.subscription_id, func.sum(PointsLot.points))
        .where(PointsLot.subscription_id == _any(subscriptions), _owned(users))
        .group_by(PointsLot.user_id, PointsLot.subscription_id)
    )
    points: dict[UUID, dict[UUID, int]] = {}
    for user, subscription, total in await session.execute(statement):
        if subscription:
            points.setdefault(user, {})[subscription] = int(total)
    return points


def _subscriptions(facts: Sequence[PaymentChanged], lots: Iterable[dict[UUID, Lot]]) -> set[UUID]:
    """Those that the facts name, and those that their payments' lots named first."""
    payments = {fact.payment_id for fact in facts}
    named = {
        lot.subscription_id for own in lots for lot in own.values() if lot.payment_id in payments
    }
    return {s for s in named | {fact.subscription_id for fact in facts} if s}


def _customers(facts: Sequence[PaymentChanged], owners: dict[UUID, UUID]) -> set[UUID]:
    customers = (owners.get(fact.payment_id, fact.customer_id) for fact in facts)
    return {customer for customer in customers if customer}


def _mention_nameless(facts: Sequence[PaymentChanged], owners: dict[UUID, UUID]) -> None:
    nameless = {
        fact.payment_id
        for fact in facts
        if fact.customer_id is None and fact.received_minor > 0 and fact.payment_id not in owners
    }
    if nameless:
        logger.info(
            "payments of no known customer earn nothing",
            payments=len(nameless),
            first=str(min(nameless)),
        )


def _facts_of(booked: Booked) -> list[Event]:
    fact, booking = booked.fact, booked.booking
    subscription = booking.lot.subscription_id
    facts: list[Event] = [
        PointsChanged(
            id=derived_id(PointsChanged.type, fact.payment_id, fact.revision),
            occurred_at=fact.occurred_at,
            customer_id=booking.account.user_id,
            revision=booking.points_revision,
            payment_id=fact.payment_id,
            payment_revision=fact.revision,
            subscription_id=subscription,
            points=booking.points,
            balance_points=booking.account.balance_points,
            subscription_points=booking.account.subscription_points[subscription]
            if subscription
            else None,
            rule=booking.lot.rule,
        )
    ]
    if booking.standing:
        moved = _tier_changed(booking.before, booking.account, booking.standing, fact.occurred_at)
        facts.append(moved)
    return facts


def _tier_changed(before: Account, after: Account, standing: Standing, at: datetime) -> TierChanged:
    return TierChanged(
        id=derived_id(TierChanged.type, after.user_id, after.revision),
        occurred_at=at,
        customer_id=after.user_id,
        revision=after.revision,
        old_tier=before.tier,
        new_tier=after.tier,
        points_12_months=standing.points,
    )


def _lot_row(lot: Lot) -> dict[str, object]:
    return {name: getattr(lot, name) for name in Lot.__annotations__}


def _transaction_row(booked: Booked) -> dict[str, object]:
    return {
        "user_id": booked.booking.account.user_id,
        "payment_id": booked.fact.payment_id,
        "payment_revision": booked.fact.revision,
        "kind": booked.booking.kind,
        "points": booked.booking.points,
        "rule": booked.booking.lot.rule,
        "event_id": booked.fact.id,
        "occurred_at": booked.fact.occurred_at,
    }


def _owned(users: Iterable[UUID]) -> ColumnElement[bool]:
    return PointsLot.user_id == _any(users)


def _any(ids: Iterable[UUID]) -> CollectionAggregate[bool]:
    """One array parameter: the same prepared statement whatever the batch's size."""
    return any_(literal(sorted(ids), ARRAY(Uuid)))


HANDLERS: Handlers = {PaymentChanged: award_points}
