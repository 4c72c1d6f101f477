"""The fixtures themselves: what each test gets is real, its own, and gone afterwards."""

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from shared.events import TOPICS
from shared.topics import topic_name
from tests.conftest import Database


async def test_topics_exist_under_a_prefix_of_the_tests_own(
    kafka_servers: str, topics: str
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers)
    await admin.start()
    try:
        present = set(await admin.list_topics())
    finally:
        await admin.close()
    assert {topic_name(topics, topic) for topic in TOPICS} <= present


@pytest.mark.parametrize("turn", [1, 2])
def test_an_empty_database_is_fresh_each_time(empty_database: Database, turn: int) -> None:
    with psycopg.connect(empty_database.url) as connection:
        connection.execute("CREATE TABLE once (turn int)")
        connection.execute("INSERT INTO once VALUES (%s)", (turn,))
        assert connection.execute("SELECT turn FROM once").fetchall() == [(turn,)]


def test_a_database_is_migrated(database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    assert row is not None


@pytest.mark.parametrize("service", ["pricing", "payments", "loyalty", "analytics"])
def test_each_service_logs_in_with_its_own_role(database: Database, service: str) -> None:
    with psycopg.connect(database.url_for(service)) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (f"{service}_app",)
