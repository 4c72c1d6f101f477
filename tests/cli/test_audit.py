"""The audit says yes to a system at rest, and no, by the right name, to each thing broken on purpose."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from cli import audit
from cli.services import HANDLERS
from migrations import after
from shared.audit import CheckResult
from shared.consumer import BEHIND, Consumer
from shared.db import SERVICES, create_engine, create_sessions
from shared.relay import Relay
from shared.settings import Settings
from shared.topics import create_topics
from tests.cli.conftest import Farebox
from tests.conftest import Database, delete_topics, own_database
from tests.migrations import storefront
from tests.servers import Servers

SUBSCRIPTIONS = 5
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Settled:
    """A database and topics in which everything has been said, heard and applied."""

    database: str
    prefix: str


def settings_of(url: str, servers: str, prefix: str) -> Settings:
    return Settings(database_url=url, kafka_bootstrap_servers=servers, farebox_topic_prefix=prefix)


async def carry(settings: Settings) -> None:
    """The real relays and consumers, until nothing is left over."""
    stop = asyncio.Event()
    engines = {s: create_engine(settings.url_of(s), s) for s in SERVICES}
    servers, prefix = settings.kafka_bootstrap_servers, settings.farebox_topic_prefix
    try:
        async with asyncio.TaskGroup() as group:
            for service, engine in engines.items():
                relay = Relay(service, settings.url_of(service), servers, prefix)
                consumer = Consumer(service, create_sessions(engine), HANDLERS[service])
                group.create_task(relay.run(stop))
                group.create_task(consumer.run(servers, prefix, stop))
            results = await audit.run(settings, PATIENCE_SECONDS)
            stop.set()
    finally:
        for engine in engines.values():
            await engine.dispose()
    assert [result for result in results if not result.ok] == []


@pytest.fixture(scope="module")
def settled(servers: Servers, kafka_servers: str, unique: Iterator[str]) -> Iterator[Settled]:
    name = next(unique)
    prefix = f"t{name.replace('_', '-')}"
    admin_url = servers.ask("postgres")
    asyncio.run(create_topics(kafka_servers, prefix, partitions=2))
    for database in own_database(admin_url, servers.ask("template"), f"fbx_{name}"):
        settings = settings_of(database.url, kafka_servers, prefix)
        after.default_config(settings)
        with psycopg.connect(database.url) as connection:
            for _ in range(SUBSCRIPTIONS):
                storefront.add_subscription(connection, storefront.add_customer(connection))
        asyncio.run(carry(settings))
        yield Settled(database.name, prefix)
    asyncio.run(delete_topics(kafka_servers, prefix))


@pytest.fixture
def copy(postgres_url: str, settled: Settled, unique: Iterator[str]) -> Iterator[Database]:
    """To be broken: the settled database, once more."""
    yield from own_database(postgres_url, settled.database, f"fbx_{next(unique)}")


@pytest.fixture
def look(
    copy: Database, settled: Settled, kafka_servers: str
) -> Callable[[], dict[str, CheckResult]]:
    """The audit's results by id, without waiting."""

    def run() -> dict[str, CheckResult]:
        settings = settings_of(copy.url, kafka_servers, settled.prefix)
        return {result.id: result for result in asyncio.run(audit.run(settings, 0))}

    return run


BREAKS = [
    (
        "S3",
        "ALTER TABLE loyalty.inbox DROP CONSTRAINT pk_inbox",
        "loyalty inbox lost its key",
    ),
    (
        "S9",
        (
            "INSERT INTO payments.payment_intents (id, stripe_id, livemode, status, currency, amount_minor,"
            " capturable_minor, received_minor, refunded_minor, disputed_minor, created_at, revision, fold)"
            " VALUES (gen_random_uuid(), 'pi_x', false, 'succeeded', 'EUR', 7, 0, 7, 0, 0, now(), 1, '{}')"
        ),
        "EUR: payments (7, 0, 0), analytics None",
    ),
    (
        "S10",
        (
            "DELETE FROM analytics.inbox WHERE message_id = (SELECT min(message_id::text)::uuid"
            " FROM analytics.inbox)"
        ),
        "is neither applied nor parked",
    ),
    (
        "S10",
        "UPDATE analytics.consumer_progress SET next_offset = next_offset - 1 WHERE next_offset > 0",
        "Kafka has",
    ),
    (
        "L1",
        "UPDATE pricing.outbox SET published_at = NULL WHERE position = 1",
        "pricing has 1 facts unsent",
    ),
    (
        "L1",
        "UPDATE analytics.consumer_progress SET next_offset = next_offset - 1 WHERE next_offset > 0",
        "facts to apply",
    ),
    (
        "L1",
        (
            "INSERT INTO payments.stripe_events (id, type, livemode, stripe_created_at, body)"
            " VALUES ('evt_1', 'charge.updated', false, now(), '')"
        ),
        "payments has 1 Stripe events to fold",
    ),
    (
        "L2",
        (
            'INSERT INTO loyalty.parked_events (consumer, key, topic, partition, "offset", body, headers,'
            f" error, attempts) VALUES ('loyalty', 'k', 't', 0, 0, '', '[]', '{BEHIND}', 0)"
        ),
        "loyalty 1 waits behind nothing of k",
    ),
]


def test_a_system_at_rest_passes(look: Callable[[], dict[str, CheckResult]]) -> None:
    results = look()
    assert list(results) == list(audit.IDS)
    assert [result for result in results.values() if not result.ok] == []
    # Every subscription's creation is heard by pricing and by analytics.
    assert results["S10"].counted >= 2 * SUBSCRIPTIONS
    assert results["L1"].counted >= SUBSCRIPTIONS


@pytest.mark.parametrize(("identity", "statement", "said"), BREAKS)
def test_what_is_broken_is_found(
    copy: Database,
    look: Callable[[], dict[str, CheckResult]],
    identity: str,
    statement: str,
    said: str,
) -> None:
    with psycopg.connect(copy.url) as connection:
        connection.execute(statement.encode())
    result = look()[identity]
    assert not result.ok
    assert said in result.detail


def test_a_parked_fact_counts_as_dealt_with(
    copy: Database, settled: Settled, look: Callable[[], dict[str, CheckResult]]
) -> None:
    with psycopg.connect(copy.url) as connection:
        for offset in range(SUBSCRIPTIONS * 2):
            for partition in (0, 1):
                connection.execute(
                    'INSERT INTO analytics.parked_events (consumer, key, topic, partition, "offset",'
                    " body, headers, error, attempts)"
                    " VALUES ('analytics', %s, %s, %s, %s, '', '[]', 'broken', 1)",
                    (f"{partition}/{offset}", f"{settled.prefix}.pricing", partition, offset),
                )
        connection.execute("DELETE FROM analytics.inbox")
    assert look()["S10"].ok


def test_the_command_prints_what_a_script_reads_and_its_code_says_the_rest(
    farebox: Farebox,
    copy: Database,
    settled: Settled,
    kafka_servers: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", copy.url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_servers)
    monkeypatch.setenv("FAREBOX_TOPIC_PREFIX", settled.prefix)
    fine = farebox("audit", "--json")
    assert fine.code == 0, fine.err
    said = json.loads(fine.out)
    assert said["ok"] is True
    assert [set(check) for check in said["checks"]] == [{"id", "ok", "counted", "detail"}] * 12
    with psycopg.connect(copy.url) as connection:
        connection.execute("UPDATE pricing.outbox SET published_at = NULL WHERE position = 1")
    broken = farebox("audit", "--settle", "0")
    assert broken.code == 1
    assert "FAIL L1" in broken.out


def test_what_no_check_spoke_of_has_failed() -> None:
    [first, *others] = audit.merged(
        [CheckResult("S1", True, 3, "a"), CheckResult("S1", False, 4, "b")]
    )
    assert first == CheckResult("S1", False, 7, "b")
    assert {other.ok for other in others} == {False}
