"""Parked facts: taken up in order, through the same door, once; given up with a reason."""

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest

from shared.consumer import BEHIND
from shared.db import create_engine, create_sessions
from shared.events import PaymentChanged
from shared.parking import park
from tests.cli.conftest import Farebox
from tests.conftest import Database

NOW = datetime(2026, 1, 31, tzinfo=UTC)
POISON = b'{"id": 5'


def fact(user: UUID, payment: UUID, revision: int, received: int = 5_000) -> PaymentChanged:
    return PaymentChanged(
        id=uuid4(),
        occurred_at=NOW,
        customer_id=user,
        payment_id=payment,
        stripe_id=f"pi_{payment.hex}",
        revision=revision,
        status="succeeded",
        currency="USD",
        amount_minor=5_000,
        received_minor=received,
        created_at=NOW,
        succeeded_at=NOW,
    )


def parked_row(
    key: str, offset: int, event: PaymentChanged | None, error: str
) -> dict[str, object]:
    """As the consumer writes it; `event` None is a body nobody can read."""
    headers = {
        "ce_id": str(event.id if event else uuid4()),
        "ce_type": PaymentChanged.type,
        "ce_dataschema": PaymentChanged.dataschema(),
    }
    return {
        "consumer": "loyalty",
        "event_id": headers["ce_id"],
        "key": key,
        "topic": "farebox.payments",
        "partition": 0,
        "offset": offset,
        "body": json.dumps(event.body()).encode() if event else POISON,
        "headers": [[n, base64.b64encode(v.encode()).decode()] for n, v in headers.items()],
        "error": error,
        "attempts": 1,
    }


def store(database: Database, rows: Sequence[dict[str, object]]) -> None:
    async def insert() -> None:
        engine = create_engine(database.url_for("loyalty"), "loyalty")
        try:
            async with create_sessions(engine).begin() as session:
                for row in rows:
                    await park(session, [row])
        finally:
            await engine.dispose()

    asyncio.run(insert())


@pytest.fixture
def loyalty(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("SET search_path = loyalty")
        yield connection


def points(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    query = "SELECT payment_revision, points FROM points_transactions ORDER BY id"
    return connection.execute(query).fetchall()


def states(connection: psycopg.Connection) -> list[object]:
    return [row[0] for row in connection.execute("SELECT status FROM parked_events ORDER BY id")]


def test_a_retry_applies_a_customers_facts_in_order_and_once(
    farebox: Farebox, database: Database, loyalty: psycopg.Connection
) -> None:
    user, payment = uuid4(), uuid4()
    first, second = fact(user, payment, 1), fact(user, payment, 2, received=3_000)
    store(
        database,
        [
            parked_row(str(user), 0, first, "the database of taxes was away"),
            parked_row(str(user), 1, second, BEHIND),
        ],
    )
    assert farebox("parked", "retry", "loyalty", "2").code == 0
    assert points(loyalty) == [(1, 50), (2, -20)]
    assert states(loyalty) == ["retried", "retried"]
    claimed = {row[0] for row in loyalty.execute("SELECT message_id FROM inbox")}
    assert claimed == {first.id, second.id}


def test_a_fact_that_was_applied_meanwhile_is_not_applied_again(
    farebox: Farebox, database: Database, loyalty: psycopg.Connection
) -> None:
    user, payment = uuid4(), uuid4()
    store(database, [parked_row(str(user), 0, fact(user, payment, 1), "fluke")])
    assert farebox("parked", "retry", "loyalty", "--all").code == 0
    loyalty.execute("UPDATE parked_events SET status = 'parked'")
    assert farebox("parked", "retry", "loyalty", "--all").code == 0
    assert points(loyalty) == [(1, 50)]


def test_what_still_cannot_be_stays_and_holds_back_its_own_customer_only(
    farebox: Farebox, database: Database, loyalty: psycopg.Connection
) -> None:
    stuck, free = uuid4(), uuid4()
    store(
        database,
        [
            parked_row(str(stuck), 0, None, "not JSON"),
            parked_row(str(stuck), 1, fact(stuck, uuid4(), 1), BEHIND),
            parked_row(str(free), 2, fact(free, uuid4(), 1), "fluke"),
        ],
    )
    outcome = farebox("parked", "retry", "loyalty", "--all")
    assert outcome.code == 1
    assert "1 still cannot be (ValidationError" in outcome.out
    assert "1 wait behind" in outcome.out
    assert states(loyalty) == ["parked", "parked", "retried"]
    assert points(loyalty) == [(1, 50)]
    attempts = loyalty.execute("SELECT attempts FROM parked_events ORDER BY id").fetchall()
    assert attempts == [(2,), (1,), (2,)]


def test_what_is_given_up_lets_those_behind_it_go_on(
    farebox: Farebox, database: Database, loyalty: psycopg.Connection
) -> None:
    user = uuid4()
    store(
        database,
        [
            parked_row(str(user), 0, None, "not JSON"),
            parked_row(str(user), 1, fact(user, uuid4(), 1), BEHIND),
        ],
    )
    outcome = farebox("parked", "drop", "loyalty", "1", "--reason", "written by hand")
    assert outcome.code == 0
    assert states(loyalty) == ["dropped", "retried"]
    assert points(loyalty) == [(1, 50)]
    row = loyalty.execute("SELECT error FROM parked_events WHERE id = 1").fetchone()
    assert row == ("dropped: written by hand (was: not JSON)",)
    again = farebox("parked", "drop", "loyalty", "1", "--reason", "again")
    assert (again.code, "dropped already" in again.err) == (1, True)


def test_a_list_and_a_look_show_what_came(farebox: Farebox, database: Database) -> None:
    user = uuid4()
    store(database, [parked_row(str(user), 7, None, "not JSON")])
    [row] = json.loads(farebox("parked", "list", "--json").out)
    assert (row["service"], row["key"], row["error"]) == ("loyalty", str(user), "not JSON")
    shown = json.loads(farebox("parked", "show", "loyalty", "1", "--json").out)
    assert shown["body"] == POISON.decode()
    assert shown["headers"]["ce_type"] == PaymentChanged.type
    assert (shown["topic"], shown["offset"]) == ("farebox.payments", 7)
    assert "nothing is parked" in farebox("parked", "list", "--service", "payments").out


def test_a_list_that_was_cut_says_so_and_how_to_go_on(farebox: Farebox, database: Database) -> None:
    store(database, [parked_row(str(uuid4()), offset, None, "not JSON") for offset in range(5)])
    cut = farebox("parked", "list", "--limit", "2", "--json")
    assert [row["id"] for row in json.loads(cut.out)] == [1, 2]
    assert "loyalty has more than these 2: go on with --service loyalty --after 2" in cut.err
    rest = farebox(
        *("parked", "list", "--service", "loyalty", "--after", "2", "--limit", "3", "--json")
    )
    assert ([row["id"] for row in json.loads(rest.out)], rest.err) == ([3, 4, 5], "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("parked", "list", "--after", "2"), 2),
        (("parked", "retry", "loyalty"), 2),
        (("parked", "retry", "loyalty", "1", "--all"), 2),
        (("parked", "retry", "loyalty", "1"), 1),
        (("parked", "show", "loyalty", "1"), 1),
        (("parked", "drop", "loyalty", "1"), 2),
        (("parked", "drop", "loyalty", "1", "--reason", "  "), 2),
    ],
)
def test_what_was_not_said_rightly_does_nothing(
    farebox: Farebox, arguments: tuple[str, ...], code: int
) -> None:
    assert farebox(*arguments).code == code
