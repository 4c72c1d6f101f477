"""The whole run on a real database: what stops it, what it leaves, what it never touches."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from migrations.faults import MigrationFault
from migrations.guard.backup import list_backups
from migrations.guard.exits import ExitCode
from migrations.guard.run import Options, Result, Run, Show
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail, entries, verify
from migrations.steps import Migrations
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.migrations import storefront
from tests.migrations.test_003 import BEFORE, Writer

Look = Callable[[str], object]
REVISION = "SELECT version_num FROM public.alembic_version"
# Only where it is not rehearsed: what nobody could have foreseen.
LIVE = "current_database() NOT LIKE 'farebox_scratch_%'"
STAGES = ["plan", "preflight", "lint", "backup", "restore test", "rehearsal"]
CHANGES = ["snapshot", "apply", "validate", "after"]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(backup_folder=tmp_path / "backups", policy=IMPATIENT)


@pytest.fixture
def go(trail: Trail, said: list[str]) -> Callable[[Database, Options], Result]:
    return lambda database, options: Run(database.url, options, trail, Show(said.append)).go()


Go = Callable[[Database, Options], Result]


@pytest.fixture
def old(empty_database: Database) -> Database:
    """As the storefront left it, with rows."""
    migrations = Migrations(empty_database.url)
    for step in migrations.pending():
        migrations.apply(step)
        if step.revision == BEFORE:
            break
    with psycopg.connect(empty_database.url) as connection:
        storefront.fill(connection, 30)
    return empty_database


@pytest.fixture
def writer(request: pytest.FixtureRequest) -> Iterator[Writer]:
    """The storefront at work on the test's database; every write it was told of must be there at the end."""
    name = "old" if "old" in request.fixturenames else "database"
    database = request.getfixturevalue(name)
    writing = Writer(database.url)
    thread = threading.Thread(target=writing.run)
    thread.start()
    writing.wait_for_writes()
    yield writing
    writing.wait_for_writes()
    writing.stop.set()
    thread.join()
    assert writing.errors == []
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT id, status FROM public.subscriptions").fetchall()
    assert set(writing.acknowledged.items()) <= set(found)


def value(database: Database, query: str) -> object:
    with psycopg.connect(database.url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def copies(database: Database, trail: Trail) -> list[object]:
    """Of the copies that this run made, those that are still there; other tests share the server."""
    made = [e["database"] for e in entries(trail.path) if e["kind"] == "backup restore-tested"]
    return [
        name
        for name in made
        if value(database, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'")
    ]


def stages(trail: Trail) -> list[object]:
    return [each["stage"] for each in entries(trail.path) if each["kind"] == "stage_done"]


def test_it_goes_through_all_stages_while_the_storefront_writes(
    old: Database, options: Options, go: Go, trail: Trail, writer: Writer
) -> None:
    after: list[object] = []
    options = replace(options, after=lambda connection: after.append(connection.info.dbname))
    result = go(old, options)
    assert result.code is ExitCode.DONE
    assert value(old, REVISION) == Chain().heads()[0]
    assert stages(trail) == STAGES + CHANGES
    assert after == [old.name]
    [made] = list_backups(options.backup_folder)
    assert made.tested is not None
    assert made.pinned is None
    assert copies(old, trail) == []
    assert verify(trail.path).problems == ()
    again = go(old, options)
    assert again.code is ExitCode.NOTHING_TO_DO
    assert len(list_backups(options.backup_folder)) == 1


def test_a_dry_run_backs_up_and_rehearses_and_changes_nothing(
    old: Database, options: Options, go: Go, trail: Trail, writer: Writer
) -> None:
    result = go(old, replace(options, dry_run=True))
    assert stages(trail) == STAGES
    assert result.prepared is not None
    assert result.prepared.rehearsal is not None
    locks = {lock for each in result.prepared.rehearsal.statements for lock in each.locks}
    assert ("public.subscriptions", "AccessExclusiveLock") in locks
    assert value(old, REVISION) == BEFORE
    assert value(old, "SELECT to_regnamespace('farebox_migration')") is None
    assert value(old, "SELECT to_regnamespace('pricing')") is None
    assert len(list_backups(options.backup_folder)) == 1


def test_an_empty_database_is_brought_to_head(
    empty_database: Database, options: Options, go: Go
) -> None:
    assert go(empty_database, options).code is ExitCode.DONE
    assert value(empty_database, REVISION) == Chain().heads()[0]


def refused(go: Go, database: Database, options: Options, said: str) -> MigrationFault:
    with pytest.raises(MigrationFault, match=said) as caught:
        go(database, options)
    return caught.value


@pytest.mark.parametrize(
    ("up", "code", "reason"),
    [
        (
            'op.execute("ALTER TABLE public.users RENAME COLUMN email TO mail")',
            ExitCode.REFUSED_BY_LINT,
            "dangerous",
        ),
        (
            'op.execute("CREATE SCHEMA loyalty")',
            ExitCode.REFUSED_BY_PREFLIGHT,
            'schema "loyalty" already exists',
        ),
        (
            (
                "with op.get_context().autocommit_block():\n"
                '    op.execute("CREATE UNIQUE INDEX CONCURRENTLY ux ON public.subscriptions (currency)")'
            ),
            ExitCode.REFUSED_BY_REHEARSAL,
            "could not create unique index",
        ),
        (
            'op.execute("UPDATE public.subscriptions SET loyalty_discount_minor = 1")',
            ExitCode.REFUSED_BY_REHEARSAL,
            "money public.subscriptions.loyalty_discount_minor",
        ),
    ],
    ids=["lint", "preflight", "rehearsal", "a cent moves"],
)
def test_what_is_refused_changes_nothing(
    database: Database,
    options: Options,
    go: Go,
    on_top: Write,
    versions: Path,
    trail: Trail,
    up: str,
    code: ExitCode,
    reason: str,
) -> None:
    on_top(up)
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 30)
    fault = refused(go, database, replace(options, more_versions=versions), reason)
    assert fault.exit_code == code
    assert value(database, REVISION) == Chain().heads()[0]
    assert value(database, "SELECT to_regnamespace('farebox_migration')") is None
    assert copies(database, trail) == []


def test_a_cent_that_moves_only_on_the_live_database_fails_the_validation_and_is_said(
    database: Database, options: Options, go: Go, on_top: Write, versions: Path
) -> None:
    on_top(
        'op.execute("CREATE TABLE public.x (id int)")\n'
        f'op.execute("UPDATE public.subscriptions SET loyalty_discount_minor = 1 WHERE {LIVE}")',
        'op.execute("DROP TABLE public.x")',
    )
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 30)
    fault = refused(
        go, database, replace(options, more_versions=versions), "loyalty_discount_minor"
    )
    assert fault.exit_code == ExitCode.VALIDATION_FAILED
    assert "what was found is still so" in str(fault)
    assert str(fault).count("loyalty_discount_minor") == 1
    assert value(database, "SELECT to_regclass('public.x')") is None
    assert value(database, REVISION) == Chain().heads()[0]
    [made] = list_backups(options.backup_folder)
    assert made.pinned is not None


def test_a_constraint_that_breaks_only_on_the_live_database_goes_on_when_it_is_repaired(
    old: Database, options: Options, trail: Trail, on_top: Write, versions: Path, writer: Writer
) -> None:
    on_top(
        """
        op.execute("ALTER TABLE public.users ADD CONSTRAINT ck_x CHECK (email <> 'x') NOT VALID")
        with op.get_context().autocommit_block():
            op.execute("ALTER TABLE public.users VALIDATE CONSTRAINT ck_x")
        """,
        'op.execute("ALTER TABLE public.users DROP CONSTRAINT ck_x")',
    )
    broken: list[str] = []

    def say(text: str) -> None:
        if text.startswith("rehearsed"):
            with psycopg.connect(old.url) as connection:
                connection.execute("INSERT INTO public.users (email) VALUES ('x')")
            broken.append(text)

    run = Run(old.url, replace(options, more_versions=versions), trail, Show(say))
    with pytest.raises(MigrationFault, match="ck_x") as caught:
        run.go()
    assert broken
    assert caught.value.exit_code == ExitCode.FAILED_RESUMABLE
    assert value(old, REVISION) == Chain().heads()[0]
    with psycopg.connect(old.url) as connection:
        connection.execute("DELETE FROM public.users WHERE email = 'x'")
    again = Run(old.url, replace(options, more_versions=versions), trail, Show(print)).go()
    assert again.code is ExitCode.DONE
    assert value(old, REVISION) == "x01"


def test_a_step_that_fails_only_on_the_live_database_is_undone(
    database: Database, options: Options, go: Go, on_top: Write, versions: Path, writer: Writer
) -> None:
    on_top(
        'op.execute("CREATE TABLE public.x (id int)")\n'
        f'op.execute("SELECT 1 / (CASE WHEN {LIVE} THEN 0 ELSE 1 END)")'
    )
    fault = refused(go, database, replace(options, more_versions=versions), "division by zero")
    assert fault.exit_code == ExitCode.FAILED_UNDONE
    assert value(database, "SELECT to_regclass('public.x')") is None
    assert value(database, REVISION) == Chain().heads()[0]


def test_a_table_that_stays_busy_is_the_retryable_code(
    database: Database, options: Options, go: Go, on_top: Write, versions: Path
) -> None:
    on_top('op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")')
    with psycopg.connect(database.url, application_name="report") as holder:
        holder.execute("LOCK TABLE public.subscriptions IN ROW EXCLUSIVE MODE")
        fault = refused(go, database, replace(options, more_versions=versions), r"\(report\)")
    assert fault.exit_code == ExitCode.LOCK_BUSY
    assert go(database, replace(options, more_versions=versions)).code is ExitCode.DONE


def test_the_trail_tells_the_run_and_no_password(
    old: Database, options: Options, go: Go, trail: Trail
) -> None:
    go(old, options)
    kinds = [str(each["kind"]) for each in entries(trail.path)]
    wanted = [
        "run_started",
        "run_lock",
        "plan",
        "backup made",
        "rehearsed",
        "statement",
        "run_ended",
    ]
    assert [kind for kind in wanted if kind not in kinds] == []
    assert kinds.index("backup made") < kinds.index("rehearsal_done") < len(kinds) - 1
    assert kinds[-1] == "run_ended"
