"""What must hold in analytics at any moment; read by `farebox audit`."""

from collections.abc import AsyncIterator
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.days import PAYMENT_MEASURES, SUBSCRIPTION_MEASURES
from services.analytics.domain import (
    FAILED_FOR,
    Amounts,
    Cell,
    SubscriptionSaid,
    difference,
    payment_days,
    subscription_days,
    total,
)
from services.analytics.handlers import fact_of, time_zone_of
from services.analytics.models import PaymentDay, PaymentFact, SubscriptionDay, SubscriptionFact
from shared.audit import CheckResult, currencies
from shared.events import PaymentChanged

# Facts held in memory at once; the audit runs beside live traffic.
CHUNK = 1_000
CURRENCIES = text("""
    SELECT currency, count(*) FROM (
        SELECT currency FROM payment_facts
        UNION ALL SELECT currency FROM payment_analytics
        UNION ALL SELECT currency FROM subscription_analytics
    ) c GROUP BY currency
""")


async def checks(session: AsyncSession) -> list[CheckResult]:
    """S9: the daily numbers are those that the facts give when they are counted anew; S5 of currencies."""
    time_zone = await time_zone_of(session)
    payments, payments_counted = await _recount_payments(session, time_zone)
    subscriptions, subscriptions_counted = await _recount_subscriptions(session, time_zone)
    return [
        _compared("payments", payments, await _told_payments(session), payments_counted),
        _compared(
            "subscriptions",
            subscriptions,
            await _told_subscriptions(session),
            subscriptions_counted,
        ),
        await _currencies(session),
    ]


async def _currencies(session: AsyncSession) -> CheckResult:
    found = (await session.execute(CURRENCIES)).all()
    return currencies("analytics", {row[0]: row[1] for row in found})


async def _recount_payments(session: AsyncSession, time_zone: ZoneInfo) -> tuple[Amounts, int]:
    amounts: Amounts = {}
    counted = 0
    after: UUID | None = None
    while True:
        statement = select(PaymentFact.payment_id, PaymentFact.state)
        if after is not None:
            statement = statement.where(PaymentFact.payment_id > after)
        rows = await session.execute(statement.order_by(PaymentFact.payment_id).limit(CHUNK))
        facts = {row[0]: PaymentChanged.model_validate(row[1]) for row in rows}
        if not facts:
            return amounts, counted
        days = (payment_days(fact, time_zone) for fact in facts.values())
        amounts = total([amounts, *days])
        counted += len(facts)
        after = max(facts)


async def _recount_subscriptions(session: AsyncSession, time_zone: ZoneInfo) -> tuple[Amounts, int]:
    amounts: Amounts = {}
    counted = 0
    async for facts in _lives(session):
        amounts = total([amounts, subscription_days(facts, time_zone)])
        counted += len(facts)
    return amounts, counted


async def _lives(session: AsyncSession) -> AsyncIterator[list[SubscriptionSaid]]:
    """The facts of one subscription after the other, each in the order of their revisions."""
    columns = (SubscriptionFact.type, SubscriptionFact.state)
    statement = select(*columns).order_by(
        SubscriptionFact.subscription_id, SubscriptionFact.revision
    )
    life: list[SubscriptionSaid] = []
    rows = await session.stream(statement.execution_options(yield_per=CHUNK))
    async for type_, state in rows:
        fact = fact_of(type_, state)
        if life and life[0].subscription_id != fact.subscription_id:
            yield life
            life = []
        life.append(fact)
    if life:
        yield life


async def _told_payments(session: AsyncSession) -> Amounts:
    told: Amounts = {}
    for row in await session.scalars(select(PaymentDay)):
        failures = {f"{FAILED_FOR}{reason}": int(n) for reason, n in row.failures.items()}
        told[row.day, row.currency] = _nonzero(row, PAYMENT_MEASURES) | failures
    return told


async def _told_subscriptions(session: AsyncSession) -> Amounts:
    rows = await session.scalars(select(SubscriptionDay))
    return {(row.day, row.currency): _nonzero(row, SUBSCRIPTION_MEASURES) for row in rows}


def _nonzero(row: PaymentDay | SubscriptionDay, measures: tuple[str, ...]) -> dict[str, int]:
    return {measure: n for measure in measures if (n := getattr(row, measure))}


def _compared(what: str, recounted: Amounts, told: Amounts, facts: int) -> CheckResult:
    wrong = difference(told, recounted)
    detail = f"analytics {what}: daily rows = recounted from {facts} facts"
    if wrong:
        cell = min(wrong)
        detail += f"; {len(wrong)} rows wrong, first {_name(cell)}: {wrong[cell]} too much"
    return CheckResult("S9", not wrong, facts, detail)


def _name(cell: Cell) -> str:
    return f"{cell[0].isoformat()} {cell[1]}"
