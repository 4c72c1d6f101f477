"""The real worker process, on a real Kafka: killed in the middle, its days are right all the same."""

import signal
from datetime import date
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from services.analytics.audit import checks
from shared.db import Sessions
from shared.events import Event
from tests.analytics.conftest import changed, on, payment, priced
from tests.conftest import Database
from tests.loyalty.processes import environment, send, until, worker

CUSTOMERS = 300


def facts_of_a_customer() -> list[Event]:
    """An hour before midnight UTC it is the next day in Berlin."""
    customer, one = uuid4(), uuid4()
    late = on(10, 23)
    whose: dict[str, Any] = {"customer_id": customer}
    return [
        changed(one, 1, occurred_at=late, **whose),
        priced(one, 2, (None, 1_000), occurred_at=late, **whose),
        payment(created_at=late, succeeded_at=late, **whose),
        payment(created_at=late, succeeded_at=late, refunded_minor=500, occurred_at=late, **whose),
    ]


async def test_a_worker_killed_in_the_middle_counts_everything_once(
    database: Database, sessions: Sessions, kafka_servers: str, topics: str
) -> None:
    where = environment("analytics", database, kafka_servers, topics)
    lives = [facts_of_a_customer() for _ in range(CUSTOMERS)]
    facts = [life[n] for n in range(4) for life in lives]
    await send(kafka_servers, topics, facts)
    counted = (
        "SELECT (SELECT count(*) FROM payment_facts) + (SELECT count(*) FROM subscription_facts)"
    )

    with worker("analytics", where) as process:
        await until(sessions, counted, lambda count: count > 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with worker("analytics", where) as process:
        await until(sessions, counted, lambda count: count == len(facts))
        process.terminate()
        assert process.wait(timeout=20) == 0

    async with sessions() as session:
        assert [check for check in await checks(session) if not check.ok] == []
        payments = "SELECT day, attempts, gross_minor, refunded_minor FROM payment_analytics"
        days = [tuple(row) for row in await session.execute(text(payments))]
        subscriptions = "SELECT day, new, mrr_change_minor FROM subscription_analytics"
        days += [tuple(row) for row in await session.execute(text(subscriptions))]
    assert days == [
        (date(2026, 1, 11), 2 * CUSTOMERS, 5_000 * CUSTOMERS, 500 * CUSTOMERS),
        (date(2026, 1, 11), CUSTOMERS, 1_000 * CUSTOMERS),
    ]
