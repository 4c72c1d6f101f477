import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from services.loyalty.audit import checks
from services.loyalty.domain import PaymentChangedCurrency, lapses_at
from services.loyalty.handlers import HANDLERS, award_points, refresh_tiers
from shared.consumer import deliver
from shared.db import Sessions
from shared.events import PaymentChanged
from tests.loyalty.conftest import JANUARY, paid

Rows = list[tuple[object, ...]]


async def tell(sessions: Sessions, *facts: PaymentChanged) -> None:
    await deliver(sessions, "loyalty", HANDLERS, facts)


async def rows(sessions: Sessions, query: str) -> Rows:
    async with sessions() as session:
        return [tuple(row) for row in await session.execute(text(query))]


async def ledger(sessions: Sessions) -> Rows:
    columns = "kind, points, payment_revision, rule, event_id"
    return await rows(sessions, f"SELECT {columns} FROM points_transactions ORDER BY id")


async def account(sessions: Sessions) -> tuple[object, ...]:
    [row] = await rows(sessions, "SELECT balance_points, tier, revision FROM loyalty_accounts")
    return row


async def outbox(sessions: Sessions, type_: str, *fields: str) -> Rows:
    picked = ", ".join(f"payload->'{field}'" for field in fields)
    return await rows(
        sessions,
        f"SELECT {picked} FROM outbox WHERE type = 'loyalty.{type_}' ORDER BY position",
    )


async def assert_audit_holds(sessions: Sessions) -> None:
    async with sessions() as session:
        assert [check.detail for check in await checks(session) if not check.ok] == []


def life(payment: UUID, customer: UUID, **more: object) -> list[PaymentChanged]:
    """Paid, refunded in part, the refund fails, disputed, won."""
    states: list[dict[str, object]] = [
        {"status": "processing", "received_minor": 0},
        {},
        {"refunded_minor": 1_000},
        {},
        {"disputed_minor": 2_500},
        {},
    ]
    return [
        paid(payment, n, customer_id=customer, **state, **more) for n, state in enumerate(states, 1)
    ]


async def test_a_payment_opens_an_account_and_its_points_name_their_cause(
    sessions: Sessions,
) -> None:
    customer, subscription = uuid4(), uuid4()
    fact = paid(customer_id=customer, subscription_id=subscription)

    await tell(sessions, fact)

    assert await account(sessions) == (25, "bronze", 1)
    assert await ledger(sessions) == [("earned", 25, 1, "2026-01:bronze", fact.id)]
    assert await outbox(sessions, "points_changed", "points", "subscription_points", "rule") == [
        (25, 25, "2026-01:bronze")
    ]
    [(key, cause)] = await rows(
        sessions, "SELECT aggregateid, headers->>'ce_causationid' FROM outbox"
    )
    assert (key, cause) == (str(customer), str(fact.id))
    await assert_audit_holds(sessions)


@pytest.mark.parametrize("together", [True, False])
async def test_a_failed_refund_and_a_won_dispute_give_the_points_back(
    sessions: Sessions, together: bool
) -> None:
    facts = life(uuid4(), uuid4(), subscription_id=uuid4())

    if together:
        await tell(sessions, *facts)
    else:
        for fact in facts:
            await tell(sessions, fact)

    assert [row[:3] for row in await ledger(sessions)] == [
        ("earned", 25, 2),
        ("reversed", -10, 3),
        ("restored", 10, 4),
        ("reversed", -25, 5),
        ("restored", 25, 6),
    ]
    told = await outbox(
        sessions, "points_changed", "revision", "balance_points", "subscription_points"
    )
    assert told == [(1, 25, 25), (2, 15, 15), (3, 25, 25), (4, 0, 0), (5, 25, 25)]
    await assert_audit_holds(sessions)


async def test_a_redelivered_payment_earns_points_once(sessions: Sessions) -> None:
    fact = paid(customer_id=uuid4())

    await tell(sessions, fact, fact)
    await tell(sessions, fact)

    assert len(await ledger(sessions)) == 1


async def test_a_replay_of_everything_books_nothing_even_if_the_inbox_forgot(
    sessions: Sessions,
) -> None:
    customers = [uuid4(), uuid4()]
    facts = [fact for customer in customers for fact in life(uuid4(), customer)]
    await tell(sessions, *facts)
    before = await ledger(sessions)

    await deliver(sessions, "another consumer", HANDLERS, facts)
    await deliver(sessions, "a third", HANDLERS, list(reversed(facts)))

    assert await ledger(sessions) == before
    await assert_audit_holds(sessions)


async def test_an_old_revision_that_comes_late_books_nothing(sessions: Sessions) -> None:
    payment, customer = uuid4(), uuid4()
    await tell(sessions, paid(payment, 3, customer_id=customer, refunded_minor=2_000))

    await tell(sessions, paid(payment, 2, customer_id=customer))

    assert await account(sessions) == (5, "bronze", 1)


async def test_eight_deliveries_at_once_book_once(sessions: Sessions) -> None:
    fact = paid(customer_id=uuid4())

    await asyncio.gather(*(deliver(sessions, f"c{n}", HANDLERS, [fact]) for n in range(8)))

    assert await account(sessions) == (25, "bronze", 1)
    await assert_audit_holds(sessions)


async def test_payments_of_one_customer_booked_at_once_all_count(sessions: Sessions) -> None:
    customer = uuid4()
    await tell(sessions, paid(customer_id=customer))

    await asyncio.gather(*(tell(sessions, paid(customer_id=customer)) for _ in range(8)))

    assert await account(sessions) == (225, "bronze", 9)
    await assert_audit_holds(sessions)


async def test_two_workers_with_the_same_customers_in_other_orders_both_get_through(
    sessions: Sessions,
) -> None:
    customers = [uuid4() for _ in range(20)]
    one = [paid(customer_id=customer) for customer in customers]
    other = [paid(customer_id=customer) for customer in reversed(customers)]

    await asyncio.gather(
        deliver(sessions, "one", HANDLERS, one), deliver(sessions, "other", HANDLERS, other)
    )

    balances = await rows(
        sessions, "SELECT DISTINCT balance_points, revision FROM loyalty_accounts"
    )
    assert balances == [(50, 2)]
    await assert_audit_holds(sessions)


async def test_a_crash_before_the_commit_leaves_no_trace_and_the_retry_counts(
    sessions: Sessions,
) -> None:
    fact = paid(customer_id=uuid4())

    async def crash_after_writing(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
        await award_points(session, facts)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await deliver(sessions, "loyalty", {PaymentChanged: crash_after_writing}, [fact])
    tables = ("inbox", "outbox", "loyalty_accounts", "points_lots", "points_transactions")
    for table in tables:
        assert await rows(sessions, f"SELECT 1 FROM {table}") == []
    await tell(sessions, fact)

    assert await account(sessions) == (25, "bronze", 1)


@pytest.mark.parametrize(
    "fact",
    [
        paid(customer_id=None),
        paid(customer_id=uuid4(), received_minor=0, status="requires_payment_method"),
        paid(customer_id=uuid4(), received_minor=0, status="canceled", succeeded_at=None),
    ],
    ids=["nobody's", "failed", "canceled"],
)
async def test_a_payment_without_money_or_customer_opens_nothing(
    sessions: Sessions, fact: PaymentChanged
) -> None:
    await tell(sessions, fact)

    assert await rows(sessions, "SELECT 1 FROM loyalty_accounts") == []


async def test_a_payment_whose_customer_is_named_later_earns_then(sessions: Sessions) -> None:
    payment, customer = uuid4(), uuid4()

    await tell(sessions, paid(payment, 1), paid(payment, 2, customer_id=customer))

    assert [row[:3] for row in await ledger(sessions)] == [("earned", 25, 2)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("later", [uuid4(), None])
async def test_a_payment_stays_with_the_first_customer_it_earned_for(
    sessions: Sessions, later: UUID | None, together: bool
) -> None:
    payment, first = uuid4(), uuid4()
    facts = [
        paid(payment, 1, customer_id=first),
        paid(payment, 2, customer_id=later, refunded_minor=1_000),
    ]

    for batch in [facts] if together else [[fact] for fact in facts]:
        await tell(sessions, *batch)

    earned = "SELECT user_id, balance_points FROM loyalty_accounts WHERE revision > 0"
    assert await rows(sessions, earned) == [(first, 15)]
    await assert_audit_holds(sessions)


async def test_a_payment_that_changes_its_currency_is_refused_whole(sessions: Sessions) -> None:
    payment, customer = uuid4(), uuid4()
    await tell(sessions, paid(payment, 1, customer_id=customer))

    with pytest.raises(PaymentChangedCurrency):
        await tell(sessions, paid(payment, 2, customer_id=customer, currency="EUR"))

    assert await account(sessions) == (25, "bronze", 1)


async def test_the_payment_that_lifts_a_tier_earns_by_the_old_one_and_the_next_by_the_new(
    sessions: Sessions,
) -> None:
    customer = uuid4()
    lifting = paid(customer_id=customer, received_minor=50_000)
    following = paid(customer_id=customer, received_minor=10_000)

    await tell(sessions, lifting, following)

    assert [row[1:4] for row in await ledger(sessions)] == [
        (500, 1, "2026-01:bronze"),
        (125, 1, "2026-01:silver"),
    ]
    fields = ("revision", "old_tier", "new_tier", "points_12_months")
    assert await outbox(sessions, "tier_changed", *fields) == [(2, "bronze", "silver", 500)]
    assert await outbox(sessions, "points_changed", "revision") == [(1,), (3,)]
    await assert_audit_holds(sessions)


async def test_a_refund_takes_the_tier_back(sessions: Sessions) -> None:
    payment, customer = uuid4(), uuid4()
    await tell(sessions, paid(payment, 1, customer_id=customer, received_minor=50_000))

    refund = {"received_minor": 50_000, "refunded_minor": 1}
    await tell(sessions, paid(payment, 2, customer_id=customer, **refund))

    assert await account(sessions) == (499, "bronze", 4)


async def test_a_subscription_s_points_count_all_its_payments_however_old(
    sessions: Sessions,
) -> None:
    customer, subscription = uuid4(), uuid4()
    whose: dict[str, Any] = {"customer_id": customer, "subscription_id": subscription}
    await tell(sessions, paid(**whose, occurred_at=JANUARY - timedelta(days=900)))
    await tell(sessions, paid(customer_id=customer, subscription_id=uuid4()))

    await tell(sessions, paid(**whose), paid(**whose, received_minor=100))

    told = await outbox(sessions, "points_changed", "subscription_points", "balance_points")
    assert told == [(25, 25), (25, 50), (50, 75), (51, 76)]


async def test_a_refund_of_a_payment_made_years_ago_is_taken_from_its_lot(
    sessions: Sessions,
) -> None:
    payment, customer = uuid4(), uuid4()
    then = JANUARY - timedelta(days=900)
    await tell(sessions, paid(payment, 1, customer_id=customer, occurred_at=then))

    await tell(sessions, paid(payment, 2, customer_id=customer, refunded_minor=1_000))

    assert await account(sessions) == (15, "bronze", 2)
    await assert_audit_holds(sessions)


async def test_tiers_fall_when_their_points_lapse(sessions: Sessions) -> None:
    for _ in range(3):
        await tell(sessions, paid(customer_id=uuid4(), received_minor=50_000))
    await tell(sessions, paid(customer_id=uuid4()))
    lapse = lapses_at(JANUARY)

    async def refresh(at: object) -> int:
        async with sessions.begin() as session:
            return await refresh_tiers(session, lapse + timedelta(seconds=0 if at else -1), 2)

    assert [
        await refresh(False),
        await refresh(True),
        await refresh(True),
        await refresh(True),
    ] == [
        0,
        2,
        1,
        0,
    ]
    tiers = "SELECT tier, revision, tier_until FROM loyalty_accounts ORDER BY revision"
    assert await rows(sessions, tiers) == [("bronze", 1, None)] + [("bronze", 3, None)] * 3
    told = await outbox(sessions, "tier_changed", "old_tier", "new_tier", "points_12_months")
    assert told[3:] == [("silver", "bronze", 0)] * 3
    await assert_audit_holds(sessions)


async def test_a_refresh_leaves_accounts_that_a_worker_holds_for_the_next_round(
    sessions: Sessions,
) -> None:
    await tell(sessions, paid(customer_id=uuid4(), received_minor=50_000))
    now = lapses_at(JANUARY)

    async with sessions.begin() as holder:
        await holder.execute(text("SELECT 1 FROM loyalty_accounts FOR UPDATE"))
        async with sessions.begin() as session:
            assert await refresh_tiers(session, now, 10) == 0
    async with sessions.begin() as session:
        assert await refresh_tiers(session, now, 10) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE points_transactions SET points = 1", "DELETE FROM points_transactions"]
)
async def test_the_service_cannot_rewrite_its_ledger(sessions: Sessions, statement: str) -> None:
    await tell(sessions, paid(customer_id=uuid4()))

    async with sessions() as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await session.execute(text(statement))
