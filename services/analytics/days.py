"""The daily rows: added to, in one order for everybody, and read by range."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import ColumnClause, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.domain import FAILED_FOR, Amounts, Levels
from services.analytics.models import PaymentDay, SubscriptionDay

PAYMENT_MEASURES = (
    "attempts",
    "attempts_succeeded",
    "attempts_failed",
    "received_count",
    "gross_minor",
    "refunded_minor",
    "disputed_minor",
)
SUBSCRIPTION_MEASURES = (
    "new",
    "paused",
    "resumed",
    "canceled",
    "active_change",
    "mrr_change_minor",
    "price_changes",
    "price_mrr_change_minor",
)

# Any number, as long as nothing else in this database takes it: who adds to days holds it until the commit.
# Every batch adds to today's row, so that workers queue there anyway; without it two batches with several
# days would lock them crosswise.
DAYS_LOCK = 7_274_002

# Adds two JSON objects of counts; a reason whose count is back to zero goes.
ADDED_FAILURES: ColumnClause[dict[str, int]] = literal_column("""(
    SELECT coalesce(jsonb_object_agg(key, n) FILTER (WHERE n <> 0), '{}')
    FROM (
        SELECT key, sum(value::bigint) AS n
        FROM (
            SELECT * FROM jsonb_each_text(payment_analytics.failures)
            UNION ALL SELECT * FROM jsonb_each_text(excluded.failures)
        ) both_sides
        GROUP BY key
    ) added
)""")


async def add_payment_days(session: AsyncSession, amounts: Amounts) -> None:
    if not amounts:
        return
    statement = insert(PaymentDay)
    added = {m: getattr(PaymentDay, m) + statement.excluded[m] for m in PAYMENT_MEASURES}
    rows = [
        {"day": day, "currency": currency, "failures": failures_of(measures)}
        | {m: measures.get(m, 0) for m in PAYMENT_MEASURES}
        for (day, currency), measures in sorted(amounts.items())
    ]
    await _hold_days(session)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["day", "currency"], set_=added | {"failures": ADDED_FAILURES}
        ),
        rows,
    )


async def add_subscription_days(session: AsyncSession, amounts: Amounts) -> None:
    if not amounts:
        return
    statement = insert(SubscriptionDay)
    added = {m: getattr(SubscriptionDay, m) + statement.excluded[m] for m in SUBSCRIPTION_MEASURES}
    rows = [
        {"day": day, "currency": currency} | {m: measures.get(m, 0) for m in SUBSCRIPTION_MEASURES}
        for (day, currency), measures in sorted(amounts.items())
    ]
    await _hold_days(session)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["day", "currency"], set_=added), rows
    )


def failures_of(measures: Mapping[str, int]) -> dict[str, int]:
    """reason -> attempts that failed for it."""
    return {
        measure.removeprefix(FAILED_FOR): count
        for measure, count in sorted(measures.items())
        if measure.startswith(FAILED_FOR)
    }


async def payment_days_between(
    session: AsyncSession, first: date, last: date, currency: str | None
) -> Sequence[PaymentDay]:
    statement = select(PaymentDay).where(PaymentDay.day.between(first, last))
    if currency:
        statement = statement.where(PaymentDay.currency == currency)
    return (await session.scalars(statement)).all()


async def subscription_days_between(
    session: AsyncSession, first: date, last: date, currency: str | None
) -> Sequence[SubscriptionDay]:
    statement = select(SubscriptionDay).where(SubscriptionDay.day.between(first, last))
    if currency:
        statement = statement.where(SubscriptionDay.currency == currency)
    return (await session.scalars(statement)).all()


async def levels_before(
    session: AsyncSession, day: date, currency: str | None
) -> defaultdict[str, Levels]:
    """By currency, the levels with which `day` begins."""
    statement = (
        select(
            SubscriptionDay.currency,
            func.sum(SubscriptionDay.active_change),
            func.sum(SubscriptionDay.mrr_change_minor),
        )
        .where(SubscriptionDay.day < day)
        .group_by(SubscriptionDay.currency)
    )
    if currency:
        statement = statement.where(SubscriptionDay.currency == currency)
    levels: defaultdict[str, Levels] = defaultdict(Levels)
    for code, active, mrr_minor in await session.execute(statement):
        levels[code] = Levels(int(active), int(mrr_minor))
    return levels


async def payment_currencies(session: AsyncSession) -> list[str]:
    statement = select(PaymentDay.currency).distinct().order_by(PaymentDay.currency)
    return list(await session.scalars(statement))


async def _hold_days(session: AsyncSession) -> None:
    await session.execute(select(func.pg_advisory_xact_lock(DAYS_LOCK)))
