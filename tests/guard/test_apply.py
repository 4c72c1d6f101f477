"""Steps onto a real database: waits are short, failures leave nothing, a second run goes on."""

import re
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import Connection
from sqlalchemy import create_engine, pool
from sqlalchemy.engine import make_url

from migrations.guard import ledger, snapshot
from migrations.guard.apply import Applier, StepFailed, TableBusy
from migrations.guard.compare import Written, written_since
from migrations.guard.statements import Chain, Kind
from migrations.guard.trail import Trail, entries
from migrations.guard.watch import Watcher
from migrations.run_lock import connect
from migrations.steps import ROOT, Migrations
from shared.schema import WANTED_REVISION
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.migrations import storefront

Look = Callable[[str], object]
HEAD = (WANTED_REVISION,)
BOTH = 'op.execute("CREATE TABLE public.x (id int)")\nop.execute("SELECT 1/0")'
UNIQUE = """
with op.get_context().autocommit_block():
    op.execute("CREATE UNIQUE INDEX CONCURRENTLY ux ON public.subscriptions (billing_interval)")
"""
INVALID = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
REVISION = "SELECT version_num FROM public.alembic_version"


def fill(url: str, rows: int = 40) -> None:
    with psycopg.connect(url) as connection:
        storefront.fill(connection, rows)


def test_what_it_brings_about_is_what_alembic_would(empty_database: Database, trail: Trail) -> None:
    with connect(empty_database.url) as connection:
        watcher = Watcher(empty_database.url)
        Applier(connection, watcher, trail, IMPATIENT, print).apply(Chain().upgrade(()))
        watcher.close()
    assert Migrations(empty_database.url).pending() == []
    config = Config(toml_file=ROOT / "pyproject.toml")
    url = make_url(empty_database.url).set(drivername="postgresql+psycopg")
    with create_engine(url, poolclass=pool.NullPool).connect() as checked:
        config.attributes["connection"] = checked
        command.check(config)


def test_a_percent_sign_stays_one(on_top: Write, applier: Applier, look: Look) -> None:
    chain = on_top("op.execute(\"COMMENT ON TABLE public.users IS 'half: 50%'\")")
    applier.apply(chain.upgrade(HEAD))
    assert look("SELECT obj_description('public.users'::regclass)") == "half: 50%"


def test_a_transaction_that_fails_half_way_leaves_nothing(
    on_top: Write, applier: Applier, look: Look
) -> None:
    with pytest.raises(StepFailed, match="division by zero"):
        applier.apply(on_top(BOTH).upgrade(HEAD))
    assert look("SELECT to_regclass('public.x')") is None
    assert look(REVISION) == WANTED_REVISION
    assert look("SELECT count(*) FROM farebox_migration.ledger WHERE closed_at IS NULL") == 0


def test_who_holds_the_table_is_named_and_others_wait_no_longer_than_one_attempt(
    database: Database, on_top: Write, applier: Applier, look: Look
) -> None:
    fill(database.url)
    steps = on_top('op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")').upgrade(HEAD)
    stalls: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            while not stop.is_set():
                started = time.monotonic()
                connection.execute("UPDATE public.subscriptions SET status = status")
                stalls.append(time.monotonic() - started)

    with psycopg.connect(database.url, application_name="report") as holder:
        holder.execute("LOCK TABLE public.subscriptions IN ACCESS SHARE MODE")
        writer = threading.Thread(target=write)
        writer.start()
        try:
            with pytest.raises(TableBusy, match=r"in 3 attempts.*\(report\), idle in transaction"):
                applier.apply(steps)
        finally:
            stop.set()
            writer.join()
    assert 0.2 < max(stalls) < IMPATIENT.stall_lock_timeout_ms / 1000 + 0.7
    assert look("SELECT count(*) FROM pg_attribute WHERE attname = 'x'") == 0
    kinds = [each for each in entries(applier.trail.path) if each["kind"] == "lock_busy"]
    assert [each["attempt"] for each in kinds] == [1, 2, 3]


def test_a_concurrent_index_that_fails_leaves_none_and_is_built_by_the_next_run(
    database: Database, on_top: Write, applier: Applier, look: Look
) -> None:
    fill(database.url)
    steps = on_top(UNIQUE).upgrade(HEAD)
    with pytest.raises(StepFailed, match="could not create unique index"):
        applier.apply(steps)
    assert look(INVALID) == 0
    assert look(REVISION) == WANTED_REVISION
    with psycopg.connect(database.url) as connection:
        connection.execute("DELETE FROM public.subscriptions")
    applier.apply(steps)
    assert look("SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.ux'::regclass") is True
    assert look(REVISION) == "x01"


def test_an_invalid_index_of_a_killed_run_is_replaced(
    database: Database, on_top: Write, applier: Applier, look: Look
) -> None:
    fill(database.url)
    steps = on_top(UNIQUE).upgrade(HEAD)
    with psycopg.connect(database.url, autocommit=True) as connection:
        ledger.create(connection)
        ledger.begin(connection, "killed", steps[0])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(steps[0].statements[0].encode())
        connection.execute("DELETE FROM public.subscriptions")
    assert look(INVALID) == 1
    applier.apply(steps)
    assert look(INVALID) == 0
    assert look(REVISION) == "x01"


@pytest.mark.parametrize("killed", [True, False], ids=["ours, built by a killed run", "somebody's"])
def test_an_index_that_is_there_already_is_ours_only_if_the_ledger_says_so(
    database: Database, on_top: Write, applier: Applier, look: Look, killed: bool
) -> None:
    steps = on_top(UNIQUE).upgrade(HEAD)
    with psycopg.connect(database.url, autocommit=True) as connection:
        ledger.create(connection)
        if killed:
            ledger.begin(connection, "killed", steps[0])
        connection.execute(steps[0].statements[0].encode())
    if killed:
        applier.apply(steps)
        assert look(REVISION) == "x01"
        return
    for _ in range(2):
        with pytest.raises(StepFailed, match="already exists"):
            applier.apply(steps)
    assert look(REVISION) == WANTED_REVISION


BACKFILL = """
op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
with op.get_context().autocommit_block():
    op.execute("/* farebox: repeat */ UPDATE public.subscriptions SET x = 1 WHERE id IN"
               " (SELECT id FROM public.subscriptions WHERE x IS NULL LIMIT 7)")
"""


def test_a_backfill_goes_in_batches_and_goes_on_where_it_was_cut(
    database: Database, on_top: Write, applier: Applier, look: Look
) -> None:
    fill(database.url, 20)
    steps = on_top(BACKFILL).upgrade(HEAD)
    assert [step.kind for step in steps] == [Kind.TRANSACTION, Kind.BACKFILL, Kind.TRANSACTION]
    given, cuts = applier.sleep, [0]

    def cut(seconds: float) -> None:
        cuts[0] += 1
        if cuts[0] == 2:
            raise KeyboardInterrupt

    applier.sleep = cut
    with pytest.raises(KeyboardInterrupt):
        applier.apply(steps)
    assert look("SELECT count(*) FROM public.subscriptions WHERE x = 1") == 14
    applier.sleep = given
    applier.apply(steps)
    assert look("SELECT count(*) FROM public.subscriptions WHERE x IS NULL") == 0
    assert look("SELECT rows_changed FROM farebox_migration.ledger WHERE kind = 'backfill'") == 20
    assert look(REVISION) == "x01"


def test_plain_alembic_repeats_a_backfill_too(
    database: Database, on_top: Write, look: Look
) -> None:
    fill(database.url, 20)
    config = on_top(BACKFILL).config
    url = make_url(database.url).set(drivername="postgresql+psycopg")
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "x01")
    assert look("SELECT count(*) FROM public.subscriptions WHERE x = 1") == 20
    assert look(REVISION) == "x01"


def test_a_write_outside_of_a_block_is_done_once_whenever_it_is_killed(
    database: Database, on_top: Write, applier: Applier, look: Look
) -> None:
    fill(database.url, 20)
    up = """
    with op.get_context().autocommit_block():
        op.execute("UPDATE public.product_variants SET price_minor = price_minor + 1")
    """
    steps = on_top(up).upgrade(HEAD)
    total = "SELECT sum(price_minor)::int FROM public.product_variants"
    before = look(total)
    assert isinstance(before, int)
    noted = applier.trail.note

    def die(kind: str, **fields: object) -> None:
        if kind == "statement_done":
            applier.connection.close()
        noted(kind, **fields)

    applier.trail.note = die  # type: ignore[method-assign]
    with pytest.raises((StepFailed, psycopg.Error)):
        applier.apply(steps)
    assert look(total) == before
    applier.trail.note = noted  # type: ignore[method-assign]
    with connect(database.url) as again:
        Applier(again, applier.watcher, applier.trail, IMPATIENT, print).apply(steps)
    count = look("SELECT count(*)::int FROM public.product_variants")
    assert look(total) == before + count  # type: ignore[operator]


def test_other_sql_for_a_begun_revision_is_refused(
    on_top: Write, applier: Applier, job: Connection
) -> None:
    applier.apply(on_top(BACKFILL).upgrade(HEAD)[:1])
    with pytest.raises(ledger.OtherSql, match="with other SQL"):
        applier.apply(on_top(BACKFILL.replace("x int", "x bigint")).upgrade(HEAD))


def test_an_earlier_releases_ledger_is_read_and_completed(
    database: Database, on_top: Write, applier: Applier, look: Look, job: Connection
) -> None:
    fill(database.url, 20)
    steps = on_top(BACKFILL).upgrade(HEAD)
    applier.apply(steps[:1])
    job.execute("ALTER TABLE farebox_migration.ledger DROP COLUMN created")
    job.execute("ALTER TABLE farebox_migration.transactions DROP COLUMN deleted")
    assert [each.created for each in ledger.open_entries(job)] == [[]]
    applier.apply(steps)
    assert look(REVISION) == "x01"
    assert look("SELECT count(*) FROM public.subscriptions WHERE x IS NULL") == 0
    assert ledger.deleted(job) == {}


IN_SAVEPOINTS = """
op.execute("UPDATE public.subscriptions SET currency = currency WHERE id::text < '8'")
op.execute("UPDATE public.subscriptions SET currency = currency WHERE id::text >= '8'")
with op.get_context().autocommit_block():
    op.execute("UPDATE public.users SET email = email")
"""


def caught(statement: str) -> str:
    """As a block of PL/pgSQL that goes on whatever becomes of it: PostgreSQL makes a savepoint of that."""
    return f"DO $$ BEGIN BEGIN {statement}; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$"


def test_rows_written_after_a_savepoint_are_known_for_the_runs_own(
    migrated: Database, on_top: Write, trail: Trail
) -> None:
    fill(migrated.url, 20)
    up = re.sub(r"UPDATE [^\"]*", lambda found: caught(found[0]), IN_SAVEPOINTS)
    with connect(migrated.url) as connection:
        before = snapshot.take(connection)
        with psycopg.connect(migrated.url) as somebody:
            somebody.execute("SELECT pg_current_xact_id()")
            watcher = Watcher(migrated.url)
            Applier(connection, watcher, trail, IMPATIENT, print).apply(on_top(up).upgrade(HEAD))
            watcher.close()
        written = written_since(connection, before, ledger.transactions(connection))
    assert written["public.subscriptions"] == Written(20, 0)
    assert written["public.users"] == Written(20, 0)


def test_a_downgrade_by_hand_makes_the_ledger_begin_anew(
    on_top: Write, applier: Applier, look: Look, job: Connection
) -> None:
    steps = on_top('op.execute("CREATE TABLE public.x (id int)")\n' + UNIQUE).upgrade(HEAD)
    applier.apply(steps[:2])
    job.execute("DROP TABLE public.x")
    job.execute("DROP INDEX public.ux")
    applier.apply(steps)
    assert look("SELECT to_regclass('public.x')") == "x"
    assert look("SELECT to_regclass('public.ux')") == "ux"
    assert look(REVISION) == "x01"


def test_it_does_not_run_on_another_revision_than_it_was_planned_for(
    on_top: Write, applier: Applier, look: Look
) -> None:
    steps = on_top('op.execute("CREATE TABLE public.x (id int)")').upgrade(HEAD)
    applier.connection.execute("UPDATE public.alembic_version SET version_num = 'other'")
    with pytest.raises(StepFailed, match="another revision stands"):
        applier.apply(steps)
    assert look("SELECT to_regclass('public.x')") is None
