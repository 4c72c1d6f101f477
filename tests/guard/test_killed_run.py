"""SIGKILL in every stage of a whole run, undo included, while the storefront writes; then the job runs again."""

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
op.execute("ALTER TABLE public.subscriptions ADD COLUMN {name} int")
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY ix_{name} ON public.subscriptions ({name})")
"""
DOWN = """
op.execute("ALTER TABLE public.subscriptions DROP COLUMN {name}")
op.execute("DROP TABLE public.{name}")
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


def points(audit: Path) -> list[str]:
    """Each kind of line in each stage of the last run, in order."""
    stage, run = "begin", ""
    found: dict[str, None] = {}
    for each in entries(audit / "trail.jsonl"):
        if each["run"] != run:
            run, stage, found = str(each["run"]), "begin", {}
        if each["kind"] == "stage_started":
            stage = str(each["stage"])
        found[f"{stage}/{each['kind']}"] = None
    return list(found)


# Left out: between the lines of a step lies nothing that tests/guard/test_killed.py does not look at; before the
# first change one stage is like another; and where nothing is done between two lines, one of them is enough.
KINDS_LEFT_OUT = {"step_started", "statement", "statement_done", "step_done", "after_work"}
LEFT_OUT = {
    "snapshot/stage_done",
    "apply/stage_done",
    "validate/validation",
    "undo/validation",
    "undo/run_ended",
}
UNTOUCHED = ("backup/stage_started", "restore test/stage_started", "rehearsal/commit")


def since(found: list[str], first: str) -> list[str]:
    return [
        each
        for each in found[found.index(first) :]
        if each not in LEFT_OUT and each.partition("/")[2] not in KINDS_LEFT_OUT
    ]


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
) -> None:
    audit, last = tmp_path / "audit", WANTED_REVISION

    def revise(number: int) -> str:
        name = f"x{number:02}"
        on_top(UP.format(name=name), DOWN.format(name=name), name, last)
        return name

    last = revise(0)
    assert ask(driver, database.url, tmp_path, "-") == 0
    found = points(audit)
    name = revise(1)
    for point in UNTOUCHED:
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
        assert look(REVISION) == last, point
    for number, point in enumerate(since(found, "snapshot/stage_started"), 2):
        before = validated(audit)
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
        assert ask(driver, database.url, tmp_path, "-") == 0, point
        assert look(REVISION) == name, point
        assert validated(audit) > before, point
        assert look(UNFINISHED) == 0, point
        assert [each for each in list_backups(tmp_path / "backups") if each.pinned] == [], point
        last = name
        name = revise(number)
    assert verify(audit / "trail.jsonl").problems == ()
    assert {"apply/commit", "validate/stage_started", "after/after_work"} <= set(found)


def test_killed_while_it_takes_back_the_next_run_takes_back_the_rest(
    database: Database,
    driver: "subprocess.Popen[str]",
    on_top: Write,
    tmp_path: Path,
    writer: Writer,
    look: Look,
) -> None:
    audit = tmp_path / "audit"
    on_top(UP.format(name="x01"), DOWN.format(name="x01"))
    on_top(CENT, "pass", "x02", "x01")
    wrong = ExitCode.VALIDATION_FAILED
    assert ask(driver, database.url, tmp_path, "-") == wrong
    found = points(audit)
    # Also from the moment when all is applied and nobody has looked yet.
    for point in since(found, "validate/stage_started"):
        assert ask(driver, database.url, tmp_path, point) == -signal.SIGKILL, point
        # Killed after the last word was in the database, only the exit code is missing.
        if look("SELECT count(*) FROM farebox_migration.runs WHERE ended_at IS NULL"):
            assert ask(driver, database.url, tmp_path, "-") == wrong, point
        assert look(REVISION) == WANTED_REVISION, point
        assert look("SELECT to_regclass('public.x01')") is None, point
        assert look(UNFINISHED) == 0, point
    assert "undo/commit" in found
    assert verify(audit / "trail.jsonl").problems == ()
