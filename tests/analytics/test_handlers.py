import asyncio
from collections.abc import Sequence
from datetime import date
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.app import counting_in
from services.analytics.audit import checks
from services.analytics.handlers import (
    HANDLERS,
    RevisionSaidTwice,
    count_payments,
    settle_time_zone,
)
from shared.consumer import Handlers, deliver
from shared.db import Sessions
from shared.events import Event, PaymentChanged
from tests.analytics.conftest import changed, on, payment, priced

Rows = list[tuple[object, ...]]
PAYMENTS = (
    "SELECT day, currency, attempts, attempts_succeeded, attempts_failed, failures, received_count,"
    " gross_minor, refunded_minor, disputed_minor, net_minor FROM payment_analytics"
    " WHERE attempts + received_count + abs(refunded_minor) + abs(disputed_minor) <> 0"
    " ORDER BY day, currency"
)
SUBSCRIPTIONS = (
    "SELECT day, currency, new, paused, resumed, canceled, active_change, mrr_change_minor,"
    " price_changes, price_mrr_change_minor FROM subscription_analytics"
    " WHERE (new, paused, resumed, canceled, active_change, mrr_change_minor, price_changes)"
    " <> (0, 0, 0, 0, 0, 0, 0) ORDER BY day, currency"
)


async def tell(sessions: Sessions, *facts: Event, handlers: Handlers = HANDLERS) -> None:
    await deliver(sessions, "analytics", handlers, facts)


async def rows(sessions: Sessions, query: str) -> Rows:
    async with sessions() as session:
        return [tuple(row) for row in await session.execute(text(query))]


async def assert_audit_holds(sessions: Sessions) -> None:
    async with sessions() as session:
        assert [check.detail for check in await checks(session) if not check.ok] == []


def january(day: int) -> date:
    return date(2026, 1, day)


def payment_life(payment_id: UUID) -> list[PaymentChanged]:
    """Declined, paid a day later, refunded, the refund fails, disputed, won."""
    refund = {"kind": "refund", "id": "re_1", "amount_minor": 900, "at": on(12)}
    returned = {"kind": "refund", "id": "re_1:returned", "amount_minor": -900, "at": on(14)}
    withdrawn = {"kind": "dispute", "id": "txn_1", "amount_minor": 2_500, "at": on(15)}
    reinstated = {"kind": "dispute", "id": "txn_2", "amount_minor": -2_500, "at": on(16)}
    declined: dict[str, Any] = {"status": "requires_payment_method", "received_minor": 0}
    paid: dict[str, Any] = {"succeeded_at": on(11)}
    return [
        payment(payment_id, 1, **declined),
        payment(payment_id, 2, **declined, failure_code="card_declined"),
        payment(payment_id, 3, **paid),
        payment(payment_id, 4, **paid, refunded_minor=900, movements=(refund,)),
        payment(payment_id, 5, **paid, movements=(refund, returned)),
        payment(
            payment_id,
            6,
            **paid,
            disputed_minor=2_500,
            movements=(refund, returned, withdrawn),
        ),
        payment(payment_id, 7, **paid, movements=(refund, returned, withdrawn, reinstated)),
    ]


LIFE_IN_DAYS: Rows = [
    (january(10), "USD", 1, 1, 0, {}, 0, 0, 0, 0, 0),
    (january(11), "USD", 0, 0, 0, {}, 1, 2_500, 0, 0, 2_500),
    (january(12), "USD", 0, 0, 0, {}, 0, 0, 900, 0, -900),
    (january(14), "USD", 0, 0, 0, {}, 0, 0, -900, 0, 900),
    (january(15), "USD", 0, 0, 0, {}, 0, 0, 0, 2_500, -2_500),
    (january(16), "USD", 0, 0, 0, {}, 0, 0, 0, -2_500, 2_500),
]


def subscription_life(one: UUID) -> list[Event]:
    return [
        changed(one, 1),
        priced(one, 2, (None, 1_000)),
        changed(one, 3, "paused", total_minor=1_000),
        changed(one, 4, total_minor=1_000),
        priced(one, 5, (1_000, 1_100)),
        changed(one, 6, "canceled", total_minor=1_100),
    ]


async def test_a_declined_payment_is_counted_with_its_reason_until_it_succeeds(
    sessions: Sessions,
) -> None:
    facts = payment_life(uuid4())

    await tell(sessions, *facts[:2])
    declined = await rows(sessions, PAYMENTS)
    await tell(sessions, facts[2])

    assert declined == [(january(10), "USD", 1, 0, 1, {"card_declined": 1}, 0, 0, 0, 0, 0)]
    assert await rows(sessions, PAYMENTS) == LIFE_IN_DAYS[:2]
    await assert_audit_holds(sessions)


@pytest.mark.parametrize("seed", range(6))
async def test_facts_late_twice_and_out_of_order_give_the_same_days(
    sessions: Sessions, seed: int
) -> None:
    random = Random(seed)
    facts: list[Event] = []
    for _ in range(3):
        facts += payment_life(uuid4()) + subscription_life(uuid4())
    told = facts + random.choices(facts, k=20)
    random.shuffle(told)

    while told:
        size = random.randint(1, len(told))
        # Each batch to a consumer of its own: no inbox helps, the numbers must not need it.
        await deliver(sessions, f"consumer {len(told)}", HANDLERS, told[:size])
        told = told[size:]

    assert await rows(sessions, PAYMENTS) == [
        (day, currency, *(3 * n if isinstance(n, int) else n for n in measures))
        for day, currency, *measures in LIFE_IN_DAYS
    ]
    assert await rows(sessions, SUBSCRIPTIONS) == [
        (january(1), "EUR", 3, 0, 0, 0, 3, 0, 0, 0),
        (january(2), "EUR", 0, 0, 0, 0, 0, 3_000, 0, 0),
        (january(3), "EUR", 0, 3, 0, 0, -3, -3_000, 0, 0),
        (january(4), "EUR", 0, 0, 3, 0, 3, 3_000, 0, 0),
        (january(5), "EUR", 0, 0, 0, 0, 0, 300, 3, 300),
        (january(6), "EUR", 0, 0, 0, 3, -3, -3_300, 0, 0),
    ]
    await assert_audit_holds(sessions)


async def test_failures_of_several_payments_and_reasons_add_up(sessions: Sessions) -> None:
    failed: dict[str, Any] = {"status": "requires_payment_method", "received_minor": 0}
    codes = ["card_declined", "expired_card", "card_declined"]

    for code in codes:
        await tell(sessions, payment(**failed, failure_code=code))
    await tell(sessions, *(payment(**failed, failure_code=code) for code in codes))

    [(failures,)] = await rows(sessions, "SELECT failures FROM payment_analytics")
    assert failures == {"card_declined": 4, "expired_card": 2}


async def test_a_crash_before_the_commit_leaves_no_trace_and_the_retry_counts(
    sessions: Sessions,
) -> None:
    fact = payment()

    async def crash_after_writing(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
        await count_payments(session, facts)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await tell(sessions, fact, handlers={PaymentChanged: crash_after_writing})
    for table in ("inbox", "payment_facts", "payment_analytics"):
        assert await rows(sessions, f"SELECT 1 FROM {table}") == []
    await tell(sessions, fact)

    [(_, _, attempts, *_)] = await rows(sessions, PAYMENTS)
    assert attempts == 1


async def test_eight_deliveries_at_once_count_once(sessions: Sessions) -> None:
    one = uuid4()
    facts = [*payment_life(uuid4()), *subscription_life(one)]

    await asyncio.gather(*(deliver(sessions, f"c{n}", HANDLERS, facts) for n in range(8)))

    assert await rows(sessions, PAYMENTS) == LIFE_IN_DAYS
    assert len(await rows(sessions, "SELECT 1 FROM subscription_facts")) == 6
    await assert_audit_holds(sessions)


async def test_workers_that_hear_a_payment_s_states_at_once_agree_on_the_newest(
    sessions: Sessions,
) -> None:
    facts = [fact for _ in range(4) for fact in payment_life(uuid4())]

    await asyncio.gather(*(deliver(sessions, "one", HANDLERS, [fact]) for fact in facts))

    revisions = "SELECT DISTINCT revision FROM payment_facts"
    assert await rows(sessions, revisions) == [(7,)]
    await assert_audit_holds(sessions)


async def test_workers_that_hear_a_subscription_s_facts_at_once_agree(sessions: Sessions) -> None:
    facts = [fact for _ in range(3) for fact in subscription_life(uuid4())]
    Random(1).shuffle(facts)

    await asyncio.gather(*(deliver(sessions, "one", HANDLERS, [fact]) for fact in facts))

    await assert_audit_holds(sessions)
    assert len(await rows(sessions, "SELECT 1 FROM subscription_facts")) == 18


async def test_batches_of_several_days_do_not_lock_each_other_out(sessions: Sessions) -> None:
    def batch(days: range) -> list[Event]:
        return [
            fact
            for day in days
            for fact in (
                payment(created_at=on(day), succeeded_at=on(day)),
                changed(uuid4(), 1, occurred_at=on(day)),
            )
        ]

    batches = [batch(range(1, 29)), list(reversed(batch(range(1, 29)))), batch(range(28, 0, -1))]

    await asyncio.gather(*(deliver(sessions, f"c{n}", HANDLERS, b) for n, b in enumerate(batches)))

    assert await rows(sessions, "SELECT DISTINCT attempts FROM payment_analytics") == [(3,)]
    assert await rows(sessions, "SELECT DISTINCT new FROM subscription_analytics") == [(3,)]


@pytest.mark.parametrize("together", [True, False])
async def test_two_facts_with_one_revision_are_refused(sessions: Sessions, together: bool) -> None:
    one = uuid4()
    first, other = changed(one, 1), changed(one, 1, "paused", id=uuid4())

    told = [first, other] if together else [other]
    if not together:
        await tell(sessions, first)

    with pytest.raises(RevisionSaidTwice, match="revision 1"):
        await tell(sessions, *told)


async def test_days_are_those_of_the_calendar_that_the_worker_settled(sessions: Sessions) -> None:
    late = payment(created_at=on(10, 23), succeeded_at=on(10, 23))

    await tell(sessions, late, handlers=counting_in("Europe/Berlin"))
    await tell(sessions, payment(), handlers=counting_in("America/New_York"))
    async with sessions() as session:
        settled = await settle_time_zone(session, "Asia/Tokyo")

    assert settled == "Europe/Berlin"
    days = await rows(sessions, "SELECT day FROM payment_analytics ORDER BY day")
    assert days == [(january(10),), (january(11),)]
    await assert_audit_holds(sessions)


async def test_what_was_counted_before_a_calendar_was_settled_stays_counted(
    sessions: Sessions,
) -> None:
    await tell(sessions, payment())

    async with sessions.begin() as session:
        assert await settle_time_zone(session, "Europe/Berlin") == "UTC"
