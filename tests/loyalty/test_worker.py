"""The real worker process, on a real Kafka: killed in the middle, it loses and repeats nothing."""

import signal
from uuid import uuid4

from sqlalchemy import text

from services.loyalty.audit import checks
from shared.db import Sessions
from tests.conftest import Database
from tests.loyalty.conftest import JANUARY, paid
from tests.loyalty.processes import environment, send, until, worker

# Each partition holds more than a batch, so that whichever is read first, its first batch does not reach the last customer.
CUSTOMERS = 600
PAYMENTS_EACH = 5
HOLD = text("INSERT INTO loyalty_accounts (user_id, opened_at) VALUES (:user_id, :at)")


async def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(
    database: Database, sessions: Sessions, kafka_servers: str, topics: str
) -> None:
    where = environment("loyalty", database, kafka_servers, topics)
    customers = [uuid4() for _ in range(CUSTOMERS)]
    facts = [paid(customer_id=c) for c in customers for _ in range(PAYMENTS_EACH)]
    await send(kafka_servers, topics, facts)
    booked = "SELECT count(*) FROM points_transactions"

    async with sessions() as holder:
        # The last customer's account is being opened by somebody else: the worker cannot get to the end.
        row = {"user_id": customers[-1], "at": JANUARY}
        await holder.execute(HOLD, row)
        with worker("loyalty", where) as process:
            await until(sessions, booked, lambda count: count > 0)
            process.send_signal(signal.SIGKILL)
            process.wait()
        await holder.rollback()
    with worker("loyalty", where) as process:
        await until(sessions, booked, lambda count: count == len(facts))
        unsent = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
        await until(sessions, unsent, lambda count: count == 0)
        process.terminate()
        assert process.wait(timeout=20) == 0

    async with sessions() as session:
        assert [check for check in await checks(session) if not check.ok] == []
        balances = await session.execute(
            text("SELECT DISTINCT balance_points, revision FROM loyalty_accounts")
        )
        assert [tuple(row) for row in balances] == [(25 * PAYMENTS_EACH, PAYMENTS_EACH)]
