"""Revisions on top of ours in a folder of the test's own, and a guarded way to put them on a database."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from migrations.guard.apply import Applier
from migrations.guard.policy import Policy
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail
from migrations.guard.watch import Watcher
from migrations.run_lock import connect
from shared.schema import WANTED_REVISION
from tests.conftest import Database
from tests.migrations.conftest import migrated, postgres_15_url, template_15

# Fixtures, by import: `migrated` is a database on each PostgreSQL version that must do.
__all__ = ["migrated", "postgres_15_url", "template_15"]
# Quick to give up: tests wait for every pause.
IMPATIENT = Policy(
    stall_lock_timeout_ms=300,
    # A machine that is busy with other tests is slow, and nobody's fault.
    stall_limit_ms=10_000,
    patient_lock_timeout_ms=1_000,
    attempts=3,
    first_pause_seconds=0.05,
    longest_pause_seconds=0.1,
    block_limit_ms=20_000,
)

Write = Callable[..., Chain]


def add_revision(folder: Path, name: str, after: str, up: str, down: str = "pass") -> None:
    body = textwrap.indent(textwrap.dedent(up).strip(), "    ")
    back = textwrap.indent(textwrap.dedent(down).strip(), "    ")
    (folder / f"{name}.py").write_text(
        f'"""Test revision {name}."""\n\nfrom alembic import op\n\n'
        f'revision = "{name}"\ndown_revision = "{after}"\nbranch_labels = depends_on = None\n\n\n'
        f"def upgrade():\n{body}\n\n\ndef downgrade():\n{back}\n"
    )


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    folder = tmp_path / "versions"
    folder.mkdir()
    return folder


@pytest.fixture
def on_top(versions: Path) -> Write:
    """`on_top(up, down="pass", name="x01")`: our chain with one revision more."""

    def write(
        up: str, down: str = "pass", name: str = "x01", after: str = WANTED_REVISION
    ) -> Chain:
        add_revision(versions, name, after, up, down)
        return Chain(versions)

    return write


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "audit")


@pytest.fixture
def job(database: Database) -> Iterator[Connection]:
    with connect(database.url) as connection:
        yield connection


@pytest.fixture
def applier(
    database: Database, job: Connection, trail: Trail, said: list[str]
) -> Iterator[Applier]:
    watcher = Watcher(database.url)
    try:
        yield Applier(job, watcher, trail, IMPATIENT, said.append)
    finally:
        watcher.close()


@pytest.fixture
def look(database: Database) -> Iterator[Callable[[str], object]]:
    """The first value that a query gives, seen from outside the job."""
    with psycopg.connect(database.url, autocommit=True) as connection:

        def ask(query: str) -> object:
            row = connection.execute(query.encode()).fetchone()
            return row[0] if row else None

        yield ask
