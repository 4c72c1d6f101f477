"""Facts are applied once, in order; what cannot be applied is parked and holds back its own customer only."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.consumer import BEHIND, Consumer, Handlers, deliver, grouped
from shared.db import Sessions, create_engine, create_sessions
from shared.errors import InvalidInput
from shared.events import Event, PaymentChanged
from shared.inbox import InboxMessage, progress_of
from shared.outbox import OutboxMessage, headers_of, publish
from shared.parking import ParkedEvent
from shared.trace import Cause
from tests.conftest import Database
from tests.shared.facts import payment, tier


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def producer(kafka_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka_servers, acks="all") as producer:
        yield producer


async def echo(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
    """An effect that can be counted: every fact stages another one."""
    for fact in facts:
        if fact.failure_code == "break":
            raise InvalidInput("this fact breaks a rule")
    effects = [(tier(fact.customer_id), Cause.of(fact)) for fact in facts if fact.customer_id]
    await publish(session, effects)


HANDLERS: Handlers = {PaymentChanged: echo}


async def send(
    producer: AIOKafkaProducer, prefix: str, event: Event, **odd: Sequence[tuple[str, bytes | None]]
) -> None:
    headers = [
        ("ce_id", str(event.id).encode()),
        ("ce_type", event.type.encode()),
        *[(k, v.encode()) for k, v in headers_of(event, Cause("test")).items()],
    ]
    await producer.send_and_wait(
        f"{prefix}.{event.topic}",
        event.model_dump_json().encode(),
        key=event.key.encode(),
        headers=odd.get("headers", [*headers, *odd.get("more", [])]),
    )


async def causes(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        rows = await session.scalars(select(OutboxMessage).order_by(OutboxMessage.position))
        return [row.headers["ce_causationid"] for row in rows]


async def parked(sessions: Sessions) -> list[ParkedEvent]:
    async with sessions() as session:
        return list(await session.scalars(select(ParkedEvent).order_by(ParkedEvent.id)))


async def settled(sessions: Sessions, count: int, prefix: str) -> None:
    """Wait until the consumer has put `count` records behind it."""
    async with asyncio.timeout(30):
        while True:
            async with sessions() as session:
                progress = await progress_of(session, "loyalty")
            if sum(o for (t, _), o in progress.items() if t.startswith(prefix)) >= count:
                return
            await asyncio.sleep(0.05)


async def consume(
    sessions: Sessions,
    kafka_servers: str,
    prefix: str,
    count: int,
    consumer: Consumer | None = None,
) -> None:
    """Run a consumer until it has settled `count` records, then stop it as SIGTERM does."""
    stop = asyncio.Event()
    consumer = consumer or Consumer("loyalty", sessions, HANDLERS)
    task = asyncio.create_task(consumer.run(kafka_servers, prefix, stop))
    try:
        await settled(sessions, count, prefix)
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


async def test_a_fact_delivered_many_times_at_once_takes_effect_once(sessions: Sessions) -> None:
    fact = payment()

    await asyncio.gather(*(deliver(sessions, "loyalty", HANDLERS, [fact, fact]) for _ in range(4)))

    assert await causes(sessions) == [str(fact.id)]


async def test_a_crash_after_the_effect_leaves_no_trace_and_the_retry_counts(
    sessions: Sessions,
) -> None:
    async def crash(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
        await echo(session, facts)
        raise ConnectionError

    fact = payment()
    with pytest.raises(ConnectionError):
        await deliver(sessions, "loyalty", {PaymentChanged: crash}, [fact])
    assert await causes(sessions) == []

    await deliver(sessions, "loyalty", HANDLERS, [fact])
    assert await causes(sessions) == [str(fact.id)]


async def test_killed_between_commit_and_offset_the_redelivery_changes_nothing(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    facts = [payment() for _ in range(20)]
    for fact in facts:
        await send(producer, topics, fact)

    class DiesBeforeCommit(Consumer):
        async def settle(self, records: Sequence[object]) -> bool:
            await super().settle(records)
            return False  # the process is gone: the offset is never committed

    await consume(
        sessions, kafka_servers, topics, 20, DiesBeforeCommit("loyalty", sessions, HANDLERS)
    )
    assert len(await causes(sessions)) == 20
    assert await committed(kafka_servers, topics) == 0

    stop = asyncio.Event()
    task = asyncio.create_task(
        Consumer("loyalty", sessions, HANDLERS).run(kafka_servers, topics, stop)
    )
    async with asyncio.timeout(30):
        while await committed(kafka_servers, topics) < 20:
            await asyncio.sleep(0.1)
    stop.set()
    await task
    assert sorted(await causes(sessions)) == sorted(str(fact.id) for fact in facts)


async def committed(kafka_servers: str, prefix: str) -> int:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_servers, group_id=f"{prefix}-loyalty", enable_auto_commit=False
    )
    await consumer.start()
    try:
        offsets = [
            await consumer.committed(TopicPartition(f"{prefix}.payments", number))
            for number in range(3)
        ]
    finally:
        await consumer.stop()
    return sum(offset or 0 for offset in offsets)


async def test_two_consumers_during_a_rebalance_apply_each_fact_once(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    facts = [payment() for _ in range(60)]
    stops = [asyncio.Event(), asyncio.Event()]
    first = asyncio.create_task(
        Consumer("loyalty", sessions, HANDLERS).run(kafka_servers, topics, stops[0])
    )
    for fact in facts[:30]:
        await send(producer, topics, fact)
    second = asyncio.create_task(
        Consumer("loyalty", sessions, HANDLERS).run(kafka_servers, topics, stops[1])
    )
    for fact in facts[30:]:
        await send(producer, topics, fact)
    await settled(sessions, 60, topics)
    for stop in stops:
        stop.set()
    await asyncio.gather(first, second)

    assert sorted(await causes(sessions)) == sorted(str(fact.id) for fact in facts)


async def test_a_fact_that_breaks_a_rule_is_parked_and_holds_back_its_customer_only(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    bad = payment(failure_code="break")
    behind = payment(bad.customer_id)
    others = [payment() for _ in range(10)]
    for fact in [*others[:5], bad, behind, *others[5:]]:
        await send(producer, topics, fact)

    await consume(sessions, kafka_servers, topics, 12)

    assert sorted(await causes(sessions)) == sorted(str(fact.id) for fact in others)
    first, second = await parked(sessions)
    assert (first.event_id, first.attempts) == (str(bad.id), 3)
    assert "breaks a rule" in first.error
    assert (second.event_id, second.error) == (str(behind.id), BEHIND)
    async with sessions() as session:
        claimed = set(await session.scalars(select(InboxMessage.message_id)))
    assert claimed == {fact.id for fact in others}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "the header ce_id is missing"),
        ([("ce_id", b"\xff\xfe"), ("ce_type", b"x")], "the header ce_id is not UTF-8"),
        ([("ce_id", None), ("ce_type", b"x")], "the header ce_id is missing"),
    ],
)
async def test_a_record_that_cannot_be_read_is_parked_byte_for_byte(
    sessions: Sessions,
    producer: AIOKafkaProducer,
    kafka_servers: str,
    topics: str,
    headers: list[tuple[str, bytes | None]],
    reason: str,
) -> None:
    broken, fine = payment(), payment()
    await send(producer, topics, broken, headers=headers)
    await send(producer, topics, fine)

    await consume(sessions, kafka_servers, topics, 2)

    [row] = await parked(sessions)
    assert row.error == reason
    assert row.body == broken.model_dump_json().encode()
    assert await causes(sessions) == [str(fine.id)]


@pytest.mark.parametrize("version", [b"2", b"9" * 5_000])
async def test_a_schema_version_of_the_future_is_parked(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str, version: bytes
) -> None:
    fact = payment()
    headers = [
        ("ce_id", str(fact.id).encode()),
        ("ce_type", fact.type.encode()),
        ("ce_dataschema", b"urn:farebox:payments.payment_changed:v" + version),
    ]
    await send(producer, topics, fact, headers=headers)

    await consume(sessions, kafka_servers, topics, 1)

    [row] = await parked(sessions)
    assert f"v{version.decode()}'"[:100] in row.error
    assert len(row.error) <= 1_000


async def test_reply_to_publishes_nothing_and_odd_headers_do_not_stop_a_good_fact(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    fact = payment()
    more = [("reply_to", f"{topics}.loyalty".encode()), ("x-odd", b"\xff\xfe")]
    await send(producer, topics, fact, more=more)

    await consume(sessions, kafka_servers, topics, 1)

    assert await causes(sessions) == [str(fact.id)]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_servers)
    await consumer.start()
    try:
        places = [TopicPartition(f"{topics}.loyalty", number) for number in range(3)]
        assert sum((await consumer.end_offsets(places)).values()) == 0
    finally:
        await consumer.stop()


async def test_a_transient_fault_holds_the_partition_and_loses_nothing(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    tries = 0

    async def away_twice(session: AsyncSession, facts: Sequence[PaymentChanged]) -> None:
        nonlocal tries
        tries += 1
        await echo(session, facts)
        if tries <= 2:
            raise ConnectionError("database away")

    fact = payment()
    await send(producer, topics, fact)
    consumer = Consumer("loyalty", sessions, {PaymentChanged: away_twice})

    await consume(sessions, kafka_servers, topics, 1, consumer)

    assert tries == 3
    assert await causes(sessions) == [str(fact.id)]
    assert await parked(sessions) == []


def test_grouping_keeps_each_customers_order_in_as_few_groups_as_it_can() -> None:
    one, two = uuid4(), uuid4()
    facts = [payment(one), payment(two), tier(one), payment(two), payment(one)]

    groups = grouped(facts)

    assert [[facts.index(fact) for fact in group] for group in groups] == [[0, 1, 3], [2], [4]]


async def test_a_replay_of_what_was_dropped_or_applied_holds_nobody_back(
    sessions: Sessions, producer: AIOKafkaProducer, kafka_servers: str, topics: str
) -> None:
    customer = uuid4()
    unreadable, bad, good = (
        payment(customer),
        payment(customer, failure_code="break"),
        payment(customer),
    )
    await send(producer, topics, unreadable, headers=[("ce_id", None)])
    await send(producer, topics, bad)
    await send(producer, topics, good)
    await consume(sessions, kafka_servers, topics, 3)
    first, second, third = await parked(sessions)
    async with sessions.begin() as session:  # as `farebox parked drop` and `retry` leave them
        await session.execute(text("UPDATE parked_events SET status = 'dropped'"))
        await session.execute(
            text("UPDATE parked_events SET status = 'retried' WHERE id = :id"), {"id": third.id}
        )
    await deliver(sessions, "loyalty", HANDLERS, [good])

    async with AIOKafkaConsumer(
        f"{topics}.payments",
        bootstrap_servers=kafka_servers,
        auto_offset_reset="earliest",
    ) as reader:
        records = [await asyncio.wait_for(reader.getone(), 20) for _ in range(3)]
    assert await Consumer("loyalty", sessions, HANDLERS).settle(records)

    after = [(row.id, row.status) for row in await parked(sessions)]
    assert after == [(first.id, "dropped"), (second.id, "dropped"), (third.id, "retried")]
    fresh = payment(customer)
    await send(producer, topics, fresh)
    await consume(sessions, kafka_servers, topics, 4)
    assert await causes(sessions) == [str(good.id), str(fresh.id)]
