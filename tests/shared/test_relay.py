"""What is committed is sent, in order, at least once; ids make the second time harmless."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import func, select, update

from shared.db import Sessions, create_engine, create_sessions, plain_url
from shared.events import Event
from shared.outbox import OutboxMessage, publish
from shared.relay import Relay
from shared.trace import Cause
from tests.conftest import Database
from tests.shared.facts import payment


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def relay(database: Database, kafka_servers: str, topics: str) -> AsyncIterator[Relay]:
    relay = Relay("payments", database.url_for("payments"), kafka_servers, topics)
    yield relay
    await relay.close()


async def stage(sessions: Sessions, *events: Event) -> None:
    async with sessions.begin() as session:
        await publish(session, [(event, Cause("test")) for event in events])


async def sent(kafka_servers: str, prefix: str) -> list[dict[str, str]]:
    """The headers of every record of `payments`, partition by partition."""
    places = [TopicPartition(f"{prefix}.payments", number) for number in range(3)]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(places)
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(places)
        records = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                records += batch
    finally:
        await consumer.stop()
    return [{k: v.decode() for k, v in r.headers} | {"key": r.key.decode()} for r in records]


async def test_what_is_staged_is_sent_once_with_cloudevents_headers(
    sessions: Sessions, relay: Relay, kafka_servers: str, topics: str
) -> None:
    fact = payment()
    await stage(sessions, fact)

    assert [await relay.run_once(), await relay.run_once()] == [1, 0]

    [headers] = await sent(kafka_servers, topics)
    assert headers["key"] == headers["ce_subject"] == str(fact.customer_id)
    assert headers["ce_id"] == str(fact.id)
    assert headers["ce_type"] == "payments.payment_changed"
    assert headers["ce_source"] == "/farebox/payments"
    assert headers["ce_dataschema"] == "urn:farebox:payments.payment_changed:v1"
    assert headers["ce_causationid"] == "test"
    assert headers["traceparent"].startswith("00-")


async def test_what_is_rolled_back_is_never_sent(
    sessions: Sessions, relay: Relay, kafka_servers: str, topics: str
) -> None:
    async with sessions() as session:
        await publish(session, [(payment(), Cause("test"))])
        await session.rollback()

    assert await relay.run_once() == 0
    assert await sent(kafka_servers, topics) == []


async def test_a_transaction_that_commits_late_is_not_skipped(
    sessions: Sessions, relay: Relay, kafka_servers: str, topics: str
) -> None:
    late, early = payment(), payment()
    relay_floor_rises_at_once(relay)
    async with sessions() as slow:
        await publish(slow, [(late, Cause("test"))])  # draws the lower position …
        await stage(sessions, early)
        for _ in range(5):
            await relay.run_once()
        await slow.commit()  # … and becomes visible after the higher one was sent
    while await relay.run_once():
        pass

    assert {h["ce_id"] for h in await sent(kafka_servers, topics)} == {str(late.id), str(early.id)}


def relay_floor_rises_at_once(relay: Relay) -> None:
    relay._floor_at = float("-inf")
    relay._swept_at = float("inf")  # no sweep: the floor alone must not lose the row


async def test_the_floor_rises_past_what_is_published(sessions: Sessions, relay: Relay) -> None:
    await stage(sessions, *[payment() for _ in range(10)])
    async with asyncio.timeout(30):
        # Whoever else writes on this server holds it back for as long as their transactions last.
        while relay._floor < 10:
            relay._floor_at = float("-inf")
            await relay.run_once()

    assert relay._floor == 10


async def test_a_second_relay_sends_nothing_while_the_first_holds_the_lease(
    sessions: Sessions, relay: Relay, database: Database, kafka_servers: str, topics: str
) -> None:
    await relay.run_once()
    await stage(sessions, payment())
    other = Relay("payments", database.url_for("payments"), kafka_servers, topics)
    try:
        assert await other.run_once() == 0
        await relay.close()  # gives the lease up
        assert await other.run_once() == 1
    finally:
        await other.close()


async def test_an_owner_that_stalls_loses_the_lease_and_its_late_batch_is_the_same_events(
    sessions: Sessions, relay: Relay, database: Database, kafka_servers: str, topics: str
) -> None:
    facts = [payment() for _ in range(5)]
    await stage(sessions, *facts)
    connection = (await relay._connected()).connection
    assert await relay.run_once() == 5
    await connection.execute("UPDATE outbox SET published_at = NULL")  # it stalled before marking
    await connection.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 s'")
    successor = Relay("payments", database.url_for("payments"), kafka_servers, topics)
    try:
        assert await successor.run_once() == 5
        assert await relay.run_once() == 0  # awake again: no longer the owner
    finally:
        await successor.close()

    ids = [h["ce_id"] for h in await sent(kafka_servers, topics)]
    assert len(ids) == 10
    assert set(ids) == {str(fact.id) for fact in facts}


async def test_one_customers_facts_keep_their_order_over_batches(
    sessions: Sessions,
    relay: Relay,
    kafka_servers: str,
    topics: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.relay.BATCH_ROWS", 7)
    customer = uuid4()
    facts = [payment(customer, revision=number) for number in range(1, 51)]
    for fact in facts:
        await stage(sessions, fact, payment())
    while await relay.run_once():
        pass

    mine = [h["ce_id"] for h in await sent(kafka_servers, topics) if h["key"] == str(customer)]
    assert mine == [str(fact.id) for fact in facts]


DIES_AFTER_SEND = """
import asyncio, os, signal, sys
from shared import relay

relay._MARK = "SELECT pg_sleep(0.01), $1::bigint[]"

class Dying(relay.Relay):
    async def _raise_floor(self, connection):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(Dying("payments", *sys.argv[1:]).run_once())
"""


async def test_killed_between_send_and_mark_the_facts_are_sent_again_and_none_is_lost(
    sessions: Sessions, relay: Relay, database: Database, kafka_servers: str, topics: str
) -> None:
    facts = [payment() for _ in range(3)]
    await stage(sessions, *facts)
    arguments = (database.url_for("payments"), kafka_servers, topics)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES_AFTER_SEND, *arguments, cwd=os.getcwd()
    )
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert len(await sent(kafka_servers, topics)) == 3

    # The dead owner's lease runs out by itself; the test does not wait for it.
    owner = await asyncpg.connect(plain_url(database.url))
    await owner.execute("DELETE FROM payments.leases")
    await owner.close()
    assert await relay.run_once() == 3

    ids = [h["ce_id"] for h in await sent(kafka_servers, topics)]
    assert sorted(ids) == sorted([str(fact.id) for fact in facts] * 2)


async def test_a_relay_whose_broker_is_away_keeps_the_rows_and_says_so(
    sessions: Sessions, database: Database, topics: str
) -> None:
    await stage(sessions, payment())
    lost = Relay("payments", database.url_for("payments"), "127.0.0.1:1", topics)
    with pytest.raises(Exception, match="Unable to bootstrap"):
        await lost.run_once()
    await lost.close()
    async with sessions() as session:
        waiting = select(func.count()).where(OutboxMessage.published_at.is_(None))
        assert await session.scalar(waiting) == 1


async def test_a_backlog_of_many_loads_is_sent_at_one_go_and_each_fact_once(
    sessions: Sessions,
    relay: Relay,
    kafka_servers: str,
    topics: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.relay.BATCH_ROWS", 7)
    monkeypatch.setattr("shared.relay.LOADS_AT_ONCE", 3)
    facts = [payment() for _ in range(50)]
    await stage(sessions, *facts)

    assert [await relay.run_once() for _ in range(4)] == [21, 21, 8, 0]

    ids = [h["ce_id"] for h in await sent(kafka_servers, topics)]
    assert sorted(ids) == sorted(str(fact.id) for fact in facts)


async def test_what_could_not_be_read_ahead_does_not_unsend_what_went_before(
    sessions: Sessions,
    relay: Relay,
    kafka_servers: str,
    topics: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.relay.BATCH_ROWS", 2)
    monkeypatch.setattr("shared.relay.SEND_TIMEOUT_SECONDS", 1)
    facts = [payment() for _ in range(4)]
    await stage(sessions, *facts)
    async with sessions.begin() as session:
        homeless = update(OutboxMessage).where(OutboxMessage.id == facts[3].id)
        await session.execute(homeless.values(aggregatetype="nowhere"))

    for _ in range(2):
        with pytest.raises(TimeoutError):
            await relay.run_once()

    assert len(await sent(kafka_servers, topics)) == 2
