"""A retry and the consumer meet: the one waits for the other, and nothing overtakes."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from cli.retry import retry_key
from cli.services import HANDLERS
from shared.consumer import Handlers
from shared.db import create_engine, create_sessions
from shared.events import PaymentChanged
from shared.parking import keys_held_back, park
from tests.cli.test_parked import fact, parked_row
from tests.conftest import Database


async def test_the_consumer_waits_for_a_retry_that_is_under_way(database: Database) -> None:
    user = uuid4()
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    sessions = create_sessions(engine)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def take_long(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
        begun.set()
        await go_on.wait()

    async with sessions.begin() as session:
        await park(session, [parked_row(str(user), 0, fact(user, uuid4(), 1), "fluke")])
    async with sessions() as consuming:
        async with sessions.begin() as retrying, asyncio.TaskGroup() as group:
            handlers: Handlers = {PaymentChanged: take_long}
            group.create_task(retry_key(retrying, "loyalty", handlers, str(user)))
            await begun.wait()
            asked = asyncio.create_task(keys_held_back(consuming, "loyalty", [str(user)]))
            done, _ = await asyncio.wait([asked], timeout=0.3)
            assert not done
            go_on.set()
        assert await asked == set()
    await engine.dispose()


async def test_a_fact_parked_while_a_retry_waited_is_taken_up_too(database: Database) -> None:
    user = uuid4()
    payment = uuid4()
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    sessions = create_sessions(engine)
    async with sessions.begin() as session:
        await park(session, [parked_row(str(user), 0, fact(user, payment, 1), "fluke")])
    async with sessions() as consuming, sessions.begin() as retrying:
        assert await keys_held_back(consuming, "loyalty", [str(user)]) == {str(user)}
        await park(consuming, [parked_row(str(user), 1, fact(user, payment, 2, 3_000), "behind")])
        taking_up = asyncio.create_task(
            retry_key(retrying, "loyalty", HANDLERS["loyalty"], str(user))
        )
        done, _ = await asyncio.wait([taking_up], timeout=0.3)
        assert not done
        await consuming.commit()
        assert (await taking_up).applied == 2
    await engine.dispose()
