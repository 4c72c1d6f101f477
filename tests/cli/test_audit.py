"""The audit says yes to a system at rest, and no, by the right name, to each thing broken on purpose."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from cli import audit
from cli.agreement import fact_id
from migrations import after
from shared.audit import CheckResult
from shared.consumer import BEHIND
from shared.events import PaymentChanged
from shared.settings import Settings
from shared.topics import create_topics
from tests.cli.conftest import Farebox
from tests.cli.running import everything_runs, until_quiet
from tests.conftest import Database, delete_topics, own_database
from tests.migrations import storefront
from tests.servers import Servers

SUBSCRIPTIONS = 5


@dataclass(frozen=True)
class Settled:
    """A database and topics in which everything has been said, heard and applied."""

    database: str
    prefix: str


def settings_of(url: str, servers: str, prefix: str) -> Settings:
    return Settings(database_url=url, kafka_bootstrap_servers=servers, farebox_topic_prefix=prefix)


async def carry(settings: Settings) -> None:
    """The real relays and consumers, until nothing is left over."""
    async with everything_runs(settings):
        await until_quiet(settings)
    assert [result for result in await audit.run(settings, 0) if not result.ok] == []


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


PAYMENT = UUID(int=7)
SAID_AT = datetime(2026, 1, 31, tzinfo=UTC)
ACCOUNT = (
    "INSERT INTO loyalty.loyalty_accounts (user_id, opened_at)"
    " VALUES ('00000000-0000-0000-0000-000000000007', now());"
)


def payment(received: int = 7, refunded: int = 0, disputed: int = 0) -> str:
    """As payments holds one."""
    return (
        "INSERT INTO payments.payment_intents (id, stripe_id, livemode, status, currency, amount_minor,"
        " capturable_minor, received_minor, refunded_minor, disputed_minor, created_at, revision, fold)"
        f" VALUES ('{PAYMENT}', 'pi_x', false, 'succeeded', 'EUR', 9, 0, {received}, {refunded},"
        f" {disputed}, now(), 1, '{{}}');"
    )


def state(received: int, revision: int) -> str:
    fact = PaymentChanged(
        id=fact_id(PAYMENT, revision),
        occurred_at=SAID_AT,
        payment_id=PAYMENT,
        stripe_id="pi_x",
        revision=revision,
        status="succeeded",
        currency="EUR",
        amount_minor=9,
        received_minor=received,
        created_at=SAID_AT,
    )
    return fact.model_dump_json()


def said() -> str:
    return (
        "INSERT INTO payments.outbox (id, aggregatetype, aggregateid, type, payload, headers, published_at)"
        f" VALUES ('{fact_id(PAYMENT, 1)}', 'payments', 'k', 'payments.payment_changed',"
        f" '{state(7, 1)}', '{{}}', now());"
    )


def heard(received: int = 7, revision: int = 1) -> str:
    return (
        "INSERT INTO analytics.payment_facts (payment_id, revision, currency, state, days)"
        f" VALUES ('{PAYMENT}', {revision}, 'EUR', '{state(received, revision)}', '{{}}');"
    )


BREAKS = [
    (
        "S3",
        "ALTER TABLE loyalty.inbox DROP CONSTRAINT pk_inbox",
        "loyalty inbox lost its key",
    ),
    (
        "S3",
        (
            "INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version, kind,"
            " currency, new_breakdown, new_total_minor, effective_at, reason, changed_by, cause_id)"
            " SELECT s.id, s.user_id, v.version, 'config', 'USD', '{}', 1, now(), 'r', 'ada', 'request:1'"
            " FROM (SELECT * FROM public.subscriptions LIMIT 1) s, pricing.pricing_configs v,"
            " generate_series(1, 2)"
        ),
        "pricing ledger holds 1 lines from a fact that wrote one",
    ),
    (
        "S3",
        (
            f"{ACCOUNT} INSERT INTO loyalty.points_transactions (user_id, payment_id, payment_revision, kind,"
            " points, rule, event_id, occurred_at) SELECT user_id, gen_random_uuid(), n, 'earned', 1, 'r',"
            " user_id, now() FROM loyalty.loyalty_accounts, generate_series(1, 2) n"
        ),
        "loyalty ledger holds 1 lines from a fact that wrote one",
    ),
    ("S5", payment(received=5, refunded=3, disputed=3), "such as pi_x"),
    (
        "S5",
        (
            f"{ACCOUNT} INSERT INTO loyalty.points_lots (payment_id, user_id, payment_revision, currency, rule,"
            " points, peak_points, earned_at) SELECT user_id, user_id, 1, 'XXQ', 'r', 0, 0, now()"
            " FROM loyalty.loyalty_accounts"
        ),
        "loyalty currencies: 'XXQ' is not ISO",
    ),
    (
        "S5",
        "INSERT INTO analytics.payment_analytics (day, currency) VALUES (now(), 'XXQ')",
        "analytics currencies: 'XXQ' is not ISO",
    ),
    (
        "S5",
        "INSERT INTO analytics.subscription_analytics (day, currency) VALUES (now(), 'XXQ')",
        "analytics currencies: 'XXQ' is not ISO",
    ),
    (
        "S5",
        heard().replace("'EUR'", "'XXQ'"),
        "analytics currencies: 'XXQ' is not ISO",
    ),
    ("S9", payment(), "1 payments have not reached analytics"),
    (
        "S9",
        payment() + said() + heard(received=8),
        "pi_x revision 1: payments ('EUR', 7, 0, 0), analytics ('EUR', 8, 0, 0)",
    ),
    (
        "S9",
        payment(received=8) + said() + heard(),
        "pi_x revision 1: payments holds ('EUR', 8, 0, 0) and said ('EUR', 7, 0, 0)",
    ),
    (
        "S9",
        payment() + said() + heard(revision=2),
        "pi_x: payments never said the revision 2",
    ),
    ("S9", heard(), "analytics counts 1 payments that payments has not"),
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
    assert [set(check) for check in said["checks"]] == [{"id", "ok", "counted", "detail"}] * 14
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
