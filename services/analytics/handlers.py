"""Store the facts, subtract what was counted of them before, add what counts now.  Callers own the transaction."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, BigInteger, Uuid, any_, column, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from services.analytics.days import add_payment_days, add_subscription_days
from services.analytics.domain import (
    Amounts,
    SubscriptionSaid,
    difference,
    dump,
    load,
    payment_days,
    recounted,
    total,
)
from services.analytics.models import (
    Calendar,
    PaymentFact,
    SubscriptionFact,
    SubscriptionHead,
)
from shared.bulk import listed
from shared.consumer import Handlers
from shared.errors import Conflict
from shared.events import PaymentChanged, SubscriptionChanged, SubscriptionCostChanged

# What facts are counted in before a worker has settled the calendar: the default of FAREBOX_TIME_ZONE.
DEFAULT_TIME_ZONE = "UTC"


class RevisionSaidTwice(Conflict):
    title = "Two different facts about a subscription carry the same revision"


@dataclass(frozen=True)
class Counted:
    """A stored payment's revision, and the days as counted in."""

    revision: int
    days: Amounts


@dataclass(frozen=True)
class StoredFact:
    fact: SubscriptionSaid
    days: Amounts


async def count_payments(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
    """Of each payment its newest state counts; a late or repeated one changes nothing."""
    time_zone = await time_zone_of(session)
    waiting: dict[UUID, PaymentChanged] = {}
    for fact in facts:
        if fact.payment_id not in waiting or waiting[fact.payment_id].revision < fact.revision:
            waiting[fact.payment_id] = fact
    changes: list[Amounts] = []
    while waiting:
        counted = await _lock_counted(session, waiting)
        days = {p: payment_days(fact, time_zone) for p, fact in waiting.items()}
        rows = {p: _payment_row(fact, days[p]) for p, fact in waiting.items()}
        new = await _insert_payments(session, [rows[p] for p in sorted(rows) if p not in counted])
        newer = [p for p, was in counted.items() if was.revision < waiting[p].revision]
        await _update_payments(session, [rows[p] for p in newer])
        changes += [days[p] for p in new]
        changes += [difference(days[p], counted[p].days) for p in newer]
        # Whom another worker stored meanwhile is looked at again: its row is there now.
        waiting = {p: f for p, f in waiting.items() if p not in counted and p not in new}
    await add_payment_days(session, total(changes))


async def count_subscriptions(session: AsyncSession, facts: Sequence[SubscriptionSaid]) -> None:
    """Each revision adds what it changed against the one before it, also if that one comes late."""
    time_zone = await time_zone_of(session)
    heard: defaultdict[UUID, dict[int, SubscriptionSaid]] = defaultdict(dict)
    for fact in facts:
        _refuse_other(heard[fact.subscription_id].setdefault(fact.revision, fact), fact)
    await _lock_subscriptions(session, heard)
    stored = await _stored_around(session, {s: min(said) for s, said in heard.items()})
    inserts: list[dict[str, object]] = []
    updates: list[dict[str, object]] = []
    changes: list[Amounts] = []
    for subscription, said in heard.items():
        known = stored[subscription]
        fresh = {revision: fact for revision, fact in said.items() if revision not in known}
        for revision in said.keys() - fresh.keys():
            _refuse_other(known[revision].fact, said[revision])
        if not fresh:
            continue
        facts_known = {revision: line.fact for revision, line in known.items()}
        for revision, days in recounted(facts_known, fresh, time_zone).items():
            if revision in fresh:
                inserts.append(_subscription_row(fresh[revision], days))
                changes.append(days)
            elif days != known[revision].days:
                updates.append(_days_row(subscription, revision, days))
                changes.append(difference(days, known[revision].days))
    await _store_subscriptions(session, inserts, updates)
    await add_subscription_days(session, total(changes))


async def time_zone_of(session: AsyncSession) -> ZoneInfo:
    """The calendar that everything stored is counted in."""
    return ZoneInfo(await session.scalar(select(Calendar.time_zone)) or DEFAULT_TIME_ZONE)


async def settle_time_zone(session: AsyncSession, wanted: str) -> str:
    """Write down the calendar before anything is counted, and return the one that is settled.

    A later change of FAREBOX_TIME_ZONE does not move days that were told to anyone: they stay in the old one.
    """
    if await session.scalar(select(Calendar.id)) is None:
        counted = await session.scalar(
            select(PaymentFact.payment_id)
            .union_all(select(SubscriptionFact.subscription_id))
            .limit(1)
        )
        name = DEFAULT_TIME_ZONE if counted else wanted
        await session.execute(insert(Calendar).values(time_zone=name).on_conflict_do_nothing())
    return str(await time_zone_of(session))


async def _lock_counted(session: AsyncSession, payments: Iterable[UUID]) -> dict[UUID, Counted]:
    statement = (
        select(PaymentFact.payment_id, PaymentFact.revision, PaymentFact.days)
        .where(PaymentFact.payment_id == any_(literal(sorted(payments), ARRAY(Uuid))))
        .order_by(PaymentFact.payment_id)
        .with_for_update()
    )
    return {row[0]: Counted(row[1], load(row[2])) for row in await session.execute(statement)}


async def _insert_payments(session: AsyncSession, rows: list[dict[str, object]]) -> set[UUID]:
    """The payments that were not there; one that another worker is storing is waited for."""
    if not rows:
        return set()
    data = listed(PaymentFact, rows)
    statement = insert(PaymentFact).from_select(list(data.c.keys()), select(data))
    stored = statement.on_conflict_do_nothing().returning(PaymentFact.payment_id)
    return set(await session.scalars(stored))


async def _update_payments(session: AsyncSession, rows: list[dict[str, object]]) -> None:
    if not rows:
        return
    data = listed(PaymentFact, rows)
    changed = {name: data.c[name] for name in rows[0] if name != "payment_id"}
    statement = update(PaymentFact).where(PaymentFact.payment_id == data.c.payment_id)
    await session.execute(statement.values(changed).execution_options(synchronize_session=False))


async def _store_subscriptions(
    session: AsyncSession, inserts: list[dict[str, object]], updates: list[dict[str, object]]
) -> None:
    if inserts:
        data = listed(SubscriptionFact, inserts)
        await session.execute(
            insert(SubscriptionFact).from_select(list(data.c.keys()), select(data))
        )
    if updates:
        # Few: only facts whose predecessor came late.
        await session.execute(update(SubscriptionFact), updates)


async def _lock_subscriptions(session: AsyncSession, heard: dict[UUID, dict[int, Any]]) -> None:
    """Hold each subscription, in the order of their ids, whether it was heard of before or not."""
    rows = [{"subscription_id": s, "revision": max(heard[s])} for s in sorted(heard)]
    data = listed(SubscriptionHead, rows)
    statement = insert(SubscriptionHead).from_select(list(data.c.keys()), select(data))
    newest = func.greatest(SubscriptionHead.revision, statement.excluded.revision)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["subscription_id"], set_={"revision": newest}
        )
    )


async def _stored_around(
    session: AsyncSession, lowest: dict[UUID, int]
) -> defaultdict[UUID, dict[int, StoredFact]]:
    """Of each subscription, the newest fact older than its `lowest` revision and all after it."""
    asked = (
        func.unnest(
            literal(list(lowest), ARRAY(Uuid)), literal(list(lowest.values()), ARRAY(BigInteger))
        )
        .table_valued(column("subscription_id", Uuid), column("lowest", BigInteger))
        .render_derived(name="asked")
    )
    older = aliased(SubscriptionFact)
    before = (
        select(func.max(older.revision))
        .where(older.subscription_id == asked.c.subscription_id)
        .where(older.revision < asked.c.lowest)
        .scalar_subquery()
    )
    statement = (
        select(SubscriptionFact.type, SubscriptionFact.state, SubscriptionFact.days)
        .join(asked, asked.c.subscription_id == SubscriptionFact.subscription_id)
        .where(SubscriptionFact.revision >= func.coalesce(before, 0))
    )
    stored: defaultdict[UUID, dict[int, StoredFact]] = defaultdict(dict)
    for type_, state, days in await session.execute(statement):
        fact = fact_of(type_, state)
        stored[fact.subscription_id][fact.revision] = StoredFact(fact, load(days))
    return stored


def fact_of(type_: str, state: dict[str, Any]) -> SubscriptionSaid:
    if type_ == SubscriptionCostChanged.type:
        return SubscriptionCostChanged.model_validate(state)
    return SubscriptionChanged.model_validate(state)


def _refuse_other(known: SubscriptionSaid, fact: SubscriptionSaid) -> None:
    if known.id != fact.id:
        raise RevisionSaidTwice(
            f"revision {fact.revision} of subscription {fact.subscription_id} is fact {known.id}"
            f" and fact {fact.id}"
        )


def _payment_row(fact: PaymentChanged, days: Amounts) -> dict[str, object]:
    return {
        "payment_id": fact.payment_id,
        "revision": fact.revision,
        "currency": fact.currency,
        "state": fact.body(),
        "days": dump(days),
    }


def _subscription_row(fact: SubscriptionSaid, days: Amounts) -> dict[str, object]:
    return _days_row(fact.subscription_id, fact.revision, days) | {
        "type": fact.type,
        "occurred_at": fact.occurred_at,
        "state": fact.body(),
    }


def _days_row(subscription: UUID, revision: int, days: Amounts) -> dict[str, object]:
    return {"subscription_id": subscription, "revision": revision, "days": dump(days)}


HANDLERS: Handlers = {
    PaymentChanged: count_payments,
    SubscriptionChanged: count_subscriptions,
    SubscriptionCostChanged: count_subscriptions,
}
