"""SIGKILL in every stage of a whole run, undo included, while the storefront writes; then the job runs again."""

import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard.backup import list_backups
from migrations.guard.exits import ExitCode
from migrations.guard.trail import entries, verify
from migrations.steps import ROOT
from shared.schema import WANTED_REVISION
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_killed import ask
from tests.migrations import storefront
from tests.migrations.test_003 import Writer

Look = Callable[[str], object]
REVISION = "SELECT version_num FROM public.alembic_version"
UNFINISHED = """
SELECT (SELECT count(*) FROM farebox_migration.ledger WHERE closed_at IS NULL)
    + (SELECT count(*) FROM farebox_migration.runs WHERE ended_at IS NULL)
    + (SELECT count(*) FROM farebox_migration.transactions)
"""
UP = """
op.execute("CREATE TABLE public.{name} (id int)")
op.execute("CREATE ROLE {role}")
op.execute("GRANT SELECT ON public.{name} TO {role}")
op.execute("ALTER TABLE public.subscriptions ADD COLUMN {name} int")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY ix_{name} ON public.subscriptions ({name})")
"""
DOWN = """
op.execute("ALTER TABLE public.subscriptions DROP COLUMN {name}")
op.execute("DROP TABLE public.{name}")
op.execute("DROP ROLE {role}")
"""
# A cent of a table that the storefront leaves alone meanwhile: only this run can have moved it.
CENT = (
    'op.execute("UPDATE public.product_variants SET price_minor = price_minor + 1'
    " WHERE current_database() NOT LIKE 'farebox_scratch_%'\")"
)


@pytest.fixture
def driver() -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [sys.executable, "-m", "tests.guard.killed_run"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """Roles are the whole server's: one that a killed run left must not be in the next one's way."""
    name = f"t_{secrets.token_hex(4)}"
    yield name
    with psycopg.connect(database.url, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """The storefront at work; every write that it was told of must be there at the end."""
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 20)
    writing = Writer(database.url)
    thread = threading.Thread(target=writing.run)
    thread.start()
    yield writing
    writing.stop.set()
    thread.join()
    assert writing.errors == []
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT id, status FROM public.subscriptions").fetchall()
    assert set(writing.acknowledged.items()) <= set(found)


# Each run goes on where the one before it was killed, and is killed a little later.  Between the lines of a step
# lies nothing that tests/guard/test_killed.py does not look at.
UNTOUCHED = (
    "begin/run_lock",
    "preflight/stage_done",
    "lint/stage_done",
    "backup/backup made",
    "rehearsal/rehearsal_done",
)
CHANGING = {
    "apply/commit": "first transaction not committed",
    "apply/statement_done/3": "index built, not in the ledger",
    "validate/stage_started": "all applied",
    "validate/stage_done": "found good",
    "after/after_work": "default data not written",
}


def validated(audit: Path) -> int:
    lines = entries(audit / "trail.jsonl")
    return len([e for e in lines if e["kind"] == "stage_done" and e["stage"] == "validate"])


def test_killed_anywhere_the_next_run_goes_on_validates_and_marks_good(
    database: Database,
    driver: "subprocess.Popen[str]",
    on_top: Write,
    tmp_path: Path,
    writer: Writer,
    look: Look,
    role: str,
) -> None:
    audit = tmp_path / "audit"
    on_top(UP.format(name="x01", role=role), DOWN.format(name="x01", role=role))
    for point in UNTOUCHED:
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
        assert look("SELECT to_regclass('public.x01')") is None, point
    revisions = []
    for point in CHANGING:
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
        revisions.append(look(REVISION))
    assert revisions == [WANTED_REVISION] * 2 + ["x01"] * 3
    # The one that was killed at its end had validated: what others had not got to.
    assert validated(audit) == 1
    assert ask(driver, database.url, tmp_path, "-") == 0
    assert look(REVISION) == "x01"
    assert look("SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.ix_x01'::regclass")
    assert look(UNFINISHED) == 0
    assert [each for each in list_backups(tmp_path / "backups") if each.pinned] == []
    assert verify(audit / "trail.jsonl").problems == ()


def test_killed_while_it_takes_back_the_next_run_takes_back_the_rest(
    database: Database,
    driver: "subprocess.Popen[str]",
    on_top: Write,
    tmp_path: Path,
    writer: Writer,
    look: Look,
    role: str,
) -> None:
    audit = tmp_path / "audit"
    on_top(UP.format(name="x01", role=role), DOWN.format(name="x01", role=role))
    on_top(CENT, "pass", "x02", "x01")
    # From the moment when all is applied and nobody has looked yet.
    for point in ("validate/stage_started", "undo/commit", "undo/undo_done"):
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
    assert ask(driver, database.url, tmp_path, "-") == ExitCode.VALIDATION_FAILED
    assert look(REVISION) == WANTED_REVISION
    assert look("SELECT to_regclass('public.x01')") is None
    assert look(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'") == 0
    assert look(UNFINISHED) == 0
    assert verify(audit / "trail.jsonl").problems == ()
