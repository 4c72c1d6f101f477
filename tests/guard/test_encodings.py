"""Letters arrive as they were written, whatever the database's own encoding."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from migrations.guard.apply import Applier
from migrations.guard.drift import drift
from migrations.guard.statements import PlannedStep
from migrations.guard.trail import Trail
from migrations.guard.watch import Watcher
from migrations.run_lock import connect
from tests.guard.conftest import IMPATIENT
from tests.servers import drop_database, url_of

UP = (
    "CREATE TABLE public.q (id int, t text DEFAULT 'Zürich')",
    "INSERT INTO public.q DEFAULT VALUES",
)
STEP = PlannedStep("x01", "Orte in der Schweiz, für alle", 1, UP, True)


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def elsewhere(
    request: pytest.FixtureRequest, postgres_url: str, unique: Iterator[str]
) -> Iterator[str]:
    name = f"farebox_{next(unique)}"
    make = "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LOCALE 'C'"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL(make).format(sql.Identifier(name), sql.Literal(request.param)))
    yield url_of(postgres_url, name)
    drop_database(postgres_url, name)


def test_a_letter_is_one_letter_in_a_database_of_another_encoding(
    elsewhere: str, trail: Trail
) -> None:
    with connect(elsewhere) as connection:
        watcher = Watcher(elsewhere)
        Applier(connection, watcher, trail, IMPATIENT, print).apply([STEP])
        watcher.close()
    with psycopg.connect(elsewhere, client_encoding="utf8") as seen:
        assert seen.execute("SELECT t, convert_to(t, 'UTF8') FROM public.q").fetchall() == [
            ("Zürich", "Zürich".encode())
        ]


def test_the_models_are_compared_in_a_database_of_another_encoding(elsewhere: str) -> None:
    assert "users" in {each.subject for each in drift(elsewhere)}
