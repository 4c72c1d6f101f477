"""A database with far more tables than the models name: nothing may take minutes, lock them all, or list them all."""

from collections.abc import Iterator

import pytest
from psycopg import Connection

from migrations.guard.drift import drift
from migrations.run_lock import connect
from tests.conftest import Database

MANY = 60


@pytest.fixture
def crowd(database: Database) -> Iterator[Connection]:
    with connect(database.url) as connection:
        made = ";".join(f"CREATE TABLE public.t{n} (id int PRIMARY KEY)" for n in range(MANY))
        connection.execute(made.encode())
        yield connection


def test_drift_reads_the_tables_that_the_models_name_and_counts_the_others(
    crowd: Connection, database: Database
) -> None:
    found = drift(database.url)
    assert all(each.extra for each in found)
    assert [each.what for each in found] == [
        *(f"remove table public.{name}" for name in ("t0", "t1", "t10", "t11", "t12")),
        f"… and {MANY - 5} more tables",
    ]
