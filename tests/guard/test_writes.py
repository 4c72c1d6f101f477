"""The second look, when the doors are shut: certain without reading again what nobody wrote to."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from migrations.guard import catalog, writes
from migrations.guard.tools import on_database
from migrations.guard.writes import look, phrase
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.test_restore import execute, execute_alone
from tests.servers import drop_database

SAVEPOINT = "BEGIN; SAVEPOINT s; UPDATE public.b SET v = 9 WHERE id = 1; RELEASE s; COMMIT"


@pytest.fixture
def copy_url(empty_database: Database) -> Iterator[str]:
    """Both hold a row in `a` that the other has not, and the same in `b`."""
    elsewhere, name = on_database(empty_database.url, "postgres"), f"{empty_database.name}_copy"
    execute(
        empty_database.url,
        "CREATE TABLE public.a (id int PRIMARY KEY)",
        "CREATE TABLE public.b (id int PRIMARY KEY, v int)",
        "INSERT INTO public.b SELECT n, n FROM generate_series(1, 10) n",
    )
    execute_alone(elsewhere, f'CREATE DATABASE "{name}" TEMPLATE "{empty_database.name}"')
    execute(empty_database.url, "INSERT INTO public.a VALUES (1)")
    await_older_transactions(empty_database.url)
    try:
        yield on_database(empty_database.url, name)
    finally:
        drop_database(elsewhere, name)


def await_older_transactions(url: str) -> None:
    """A neighbour's, in whatever database of the server: while one is open, a row may have been written after it."""
    with psycopg.connect(url, autocommit=True) as connection:
        mark = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        for _ in range(300):
            over = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > %s::xid8"
            if connection.execute(over, mark).fetchone() == (True,):
                return
            time.sleep(0.1)
    raise TimeoutError("a neighbour's transaction is open for 30 s")


@pytest.mark.parametrize(
    ("written", "lost", "read_again"),
    [
        ("SELECT 1", "1 row in public.a", []),
        ("INSERT INTO public.a VALUES (2)", "2 rows in public.a", ["public.a"]),
        ("DELETE FROM public.a", "", ["public.a"]),
        (SAVEPOINT, "1 row in public.a, 1 row in public.b", ["public.b"]),
        ("DELETE FROM public.b WHERE id = 3", "1 row in public.a, 1 row in public.b", ["public.b"]),
        ("UPDATE public.b SET v = v", "1 row in public.a", ["public.b"]),
        ("BEGIN; INSERT INTO public.b VALUES (11); ROLLBACK", "1 row in public.a", []),
        ("SELECT * FROM public.b FOR UPDATE", "1 row in public.a", []),
        ("TRUNCATE public.a; INSERT INTO public.a VALUES (7)", "1 row in public.a", ["public.a"]),
        ("CREATE TABLE public.c AS SELECT 1", "1 row in public.a, 1 row in public.c", ["public.c"]),
        ("ALTER TABLE public.b ADD w int DEFAULT 4", "1 row in public.a", ["public.b"]),
        ("VACUUM (FREEZE) public.b", "1 row in public.a", []),
        ("VACUUM FULL public.b", "1 row in public.a", []),
    ],
)
def test_only_what_was_written_to_is_read_again_and_nothing_is_missed(
    empty_database: Database,
    copy_url: str,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    lost: str,
    read_again: list[str],
) -> None:
    read: list[str] = []
    compare = writes._compare

    def noted(
        live: psycopg.Connection,
        copy: psycopg.Connection,
        table: catalog.Table,
        copied: catalog.Table | None,
    ) -> writes.Lost:
        read.append(table.name)
        return compare(live, copy, table, copied)

    monkeypatch.setattr(writes, "_compare", noted)
    with connect(empty_database.url) as live, connect(copy_url) as copy:
        first = look(live, copy)
        assert phrase(first.lost) == "1 row in public.a"
        read.clear()
        execute_alone(empty_database.url, written)
        second = look(live, copy, first)
    assert phrase(second.lost) == lost
    assert read == read_again


def test_a_transaction_that_was_under_way_at_the_first_look_is_seen_at_the_second(
    empty_database: Database, copy_url: str
) -> None:
    with (
        connect(empty_database.url) as live,
        connect(copy_url) as copy,
        psycopg.connect(empty_database.url) as early,
    ):
        early.execute("UPDATE public.b SET v = 0 WHERE id = 2")
        # Younger ones end before it, so that it is the oldest by far.
        for number in range(3):
            execute(empty_database.url, f"INSERT INTO public.a VALUES ({number + 10})")
        first = look(live, copy)
        early.commit()
        second = look(live, copy, first)
    assert phrase(first.lost) == "4 rows in public.a"
    assert phrase(second.lost) == "4 rows in public.a, 1 row in public.b"
