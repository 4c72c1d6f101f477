"""A database with far more tables than the models name: nothing may take minutes, lock them all, or list them all."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

from migrations.guard import compare, snapshot, validate
from migrations.guard.drift import drift
from migrations.guard.gates import pass_preflight
from migrations.guard.statements import Chain
from migrations.guard.subject import SHOWN_NAMES, Subject
from migrations.guard.trail import Trail, entries
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.test_apply import HEAD
from tests.guard.test_validate import DAMAGED

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


def test_the_models_are_compared_in_some_dozens_of_queries(database: Database) -> None:
    asked: list[object] = []

    def note(*told: object) -> None:
        asked.append(told)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert drift(database.url) == []
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    # Of eight kinds for each schema, and some more; of each table it would be ten times as many.
    assert 0 < len(asked) < 100


LOCKS = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'relation'"


@pytest.mark.parametrize("installed", [False, True])
def test_amcheck_shows_how_far_it_is_and_holds_nothing_from_one_look_to_the_next(
    crowd: Connection, database: Database, installed: bool
) -> None:
    if installed:
        crowd.execute("CREATE EXTENSION amcheck")
    seen = list[tuple[int, int, int]]()
    with connect(database.url) as watch:

        def look(what: str, done: int, expected: int) -> None:
            [held] = watch.execute(LOCKS, (crowd.info.backend_pid,)).fetchone() or (None,)
            assert crowd.info.transaction_status == TransactionStatus.IDLE
            seen.append((done, expected, held))

        checked, damaged = validate.check_indexes(crowd, progress=look)
    assert damaged == []
    assert checked is not None
    assert checked > 2 * validate.BATCH
    assert len(seen) > 3
    assert [held for _, _, held in seen] == [0] * len(seen)
    assert seen[-1][0] == seen[-1][1]


def test_of_a_batch_the_damaged_index_alone_is_named(crowd: Connection) -> None:
    crowd.execute("INSERT INTO public.users (email) VALUES ('x')")
    for each in DAMAGED:
        crowd.execute(each.encode())
    _, damaged = validate.check_indexes(crowd)
    assert [each.name for each in damaged] == ["public.odd"]


def test_a_snapshot_holds_no_more_locks_than_the_table_it_reads(
    crowd: Connection, database: Database
) -> None:
    seen = list[int]()
    with connect(database.url) as watch:

        def look(what: str, done: int, expected: int) -> None:
            [held] = watch.execute(LOCKS, (crowd.info.backend_pid,)).fetchone() or (None,)
            seen.append(held)

        with snapshot.one_instant(crowd):
            before = snapshot.take(crowd, progress=look)
            compare.written_since(crowd, before, set())
            look("the end", 0, 0)
    assert len(seen) > MANY
    # What PostgreSQL 18 looks into for the definitions of its catalog, and no table of ours.
    assert max(seen) < MANY / 2


def test_a_table_that_somebody_drops_while_others_are_read_is_left_out(
    crowd: Connection, database: Database
) -> None:
    with psycopg.connect(database.url, autocommit=True) as other:

        def drop(what: str, done: int, expected: int) -> None:
            other.execute("DROP TABLE IF EXISTS public.t59")

        taken = snapshot.take(crowd, progress=drop)
    assert "public.t58" in taken.tables
    assert "public.t59" not in taken.tables


def test_a_table_of_money_alone_is_read(crowd: Connection) -> None:
    columns = ", ".join(f"c{n}_minor bigint NOT NULL DEFAULT {n}" for n in range(900))
    crowd.execute(f"CREATE TABLE public.wide (id int PRIMARY KEY, {columns})".encode())
    crowd.execute("INSERT INTO public.wide (id) VALUES (1), (2)")
    money = snapshot.take(crowd).tables["public.wide"].money
    assert [money[f"c{n}_minor"].total for n in (0, 499, 500, 899)] == ["0", "998", "1000", "1798"]


def test_of_many_warnings_of_one_kind_a_few_are_said(
    crowd: Connection, database: Database, trail: Trail, said: list[str], tmp_path: Path
) -> None:
    crowd.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ '^t[0-9]+_pkey$'"
    )
    pass_preflight(Subject(crowd, Chain(), HEAD, (), tmp_path), trail, said.append)
    assert len(said) == SHOWN_NAMES + 1
    assert said[0].startswith("warning: index public.t")
    assert said[-1] == f"warning: … and {MANY - SHOWN_NAMES} more of these: see the trail"
    assert len([each for each in entries(trail.path) if each["kind"] == "preflight"]) == MANY
