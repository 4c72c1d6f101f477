"""The whole run through what may happen to it: killed at each stage, the server restarted, a pooler in between."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from embedded.ports import free_port
from embedded.postgres import EmbeddedPostgres
from migrations.faults import MigrationFault, PoolerBetween
from migrations.guard.exits import ExitCode
from migrations.guard.run import Options, Run, Show
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail, verify
from migrations.steps import ROOT, Migrations
from tests.conftest import Database, own_database
from tests.guard.conftest import IMPATIENT, Write
from tests.guard.poolers import pgbouncer
from tests.migrations import storefront
from tests.migrations.test_003 import BEFORE, Writer
from tests.servers import database_parent, make_run_folder

REVISION = "SELECT version_num FROM public.alembic_version"
UNFINISHED = """
SELECT (SELECT count(*) FROM farebox_migration.ledger WHERE closed_at IS NULL)
    + (SELECT count(*) FROM farebox_migration.runs WHERE ended_at IS NULL)
"""
# Between what they begin and what they end lies everything a run does.
MOMENTS = ("rehearsal", "apply", "validate")
KILLED = """
import os, signal, sys
from pathlib import Path
from migrations.guard.run import Options, Run, Show
from migrations.guard.trail import Trail
from tests.guard.conftest import IMPATIENT

class Killing(Trail):
    def _append(self, kind, fields, *, durable):
        super()._append(kind, fields, durable=durable)
        if kind == "stage_started" and fields["stage"] == moment:
            os.kill(os.getpid(), signal.SIGKILL)

url, folder, moment = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
options = Options(backup_folder=folder / "backups", policy=IMPATIENT)
Run(url, options, Killing(folder / "audit"), Show(print)).go()
"""


def value(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def make_old(url: str) -> None:
    migrations = Migrations(url)
    for step in migrations.pending():
        migrations.apply(step)
        if step.revision == BEFORE:
            break
    with psycopg.connect(url) as connection:
        storefront.fill(connection, 20)


def test_killed_at_each_stage_the_next_run_goes_on_and_no_write_is_lost(
    empty_database: Database, tmp_path: Path
) -> None:
    url = empty_database.url
    make_old(url)
    writer = Writer(url)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        for moment in MOMENTS:
            killed = subprocess.run(
                [sys.executable, "-c", KILLED, url, str(tmp_path), moment], cwd=ROOT, check=False
            )
            assert killed.returncode == -signal.SIGKILL, moment
            writer.wait_for_writes()
        head = Chain().heads()[0]
        # Killed when all was applied: what is left to do is to look at it.
        assert value(url, REVISION) == head
        trail = Trail(tmp_path / "audit")
        options = Options(backup_folder=tmp_path / "backups", policy=IMPATIENT)
        assert Run(url, options, trail, Show(print)).go().code is ExitCode.DONE
        assert Run(url, options, trail, Show(print)).go().code is ExitCode.NOTHING_TO_DO
        writer.wait_for_writes()
    finally:
        writer.stop.set()
        thread.join()
    assert writer.errors == []
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id, status FROM public.subscriptions").fetchall()
    assert set(writer.acknowledged.items()) <= set(found)
    assert value(url, UNFINISHED) == 0
    assert verify(trail.path).problems == ()


@dataclass(frozen=True)
class Restart:
    """At the first line `kind` of `stage` whose statement holds `sql`; while somebody waits for `holding`, if given."""

    stage: str
    kind: str
    code: ExitCode
    sql: str = ""
    holding: str = ""


class RestartingTrail(Trail):
    """Stops the server and starts it again, once, there."""

    now = ""
    server: EmbeddedPostgres | None = None
    url = ""
    at: Restart | None = None
    thread: threading.Thread | None = None

    def _append(self, kind: str, fields: Mapping[str, object], *, durable: bool) -> None:
        super()._append(kind, fields, durable=durable)
        if kind == "stage_started":
            self.now = str(fields["stage"])
        at, server = self.at, self.server
        if at is None or server is None or (self.now, kind) != (at.stage, at.kind):
            return
        if at.sql not in str(fields.get("sql")):
            return
        self.server = None
        if not at.holding:
            server.stop()
            server.start()
            return
        holder = psycopg.connect(self.url)
        holder.execute(at.holding.encode())
        self.thread = threading.Thread(target=self._when_it_waits, args=(server, holder))
        self.thread.start()

    def _when_it_waits(self, server: EmbeddedPostgres, holder: psycopg.Connection) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        deadline = time.monotonic() + 60
        while not value(self.url, query):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.stop()
        holder.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedPostgres]:
    folder = make_run_folder(database_parent())
    server = EmbeddedPostgres(folder / "postgres", port=free_port(), durable=False)
    try:
        server.start()
        migrations = Migrations(server.url)
        for step in migrations.pending():
            migrations.apply(step)
        with psycopg.connect(server.url) as connection:
            storefront.fill(connection, 20)
        yield server
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


UP = """
op.execute("CREATE TABLE public.x (id int)")
op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
op.execute("ALTER TABLE public.subscriptions ADD CONSTRAINT ck_x CHECK (x > 0) NOT VALID")
with op.get_context().autocommit_block():
    op.execute("ALTER TABLE public.subscriptions VALIDATE CONSTRAINT ck_x")
    op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.subscriptions (x)")
"""
SUBSCRIPTIONS = "LOCK TABLE public.subscriptions IN {} MODE"
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"
RESTARTS = {
    "dump": Restart(
        "backup",
        "backup started",
        ExitCode.UNREACHABLE,
        holding=SUBSCRIPTIONS.format("ACCESS EXCLUSIVE"),
    ),
    "rehearsal": Restart("rehearsal", "step_started", ExitCode.UNREACHABLE),
    "transaction": Restart("apply", "statement", ExitCode.FAILED_RESUMABLE, "COLUMN x"),
    "validation of a constraint": Restart(
        "apply",
        "statement",
        ExitCode.FAILED_RESUMABLE,
        "VALIDATE",
        SUBSCRIPTIONS.format("SHARE UPDATE EXCLUSIVE"),
    ),
    "concurrent index": Restart(
        "apply", "statement", ExitCode.FAILED_RESUMABLE, "CONCURRENTLY", SNAPSHOT
    ),
    "validation": Restart("validate", "stage_started", ExitCode.FAILED_RESUMABLE),
}


@pytest.mark.parametrize("at", RESTARTS.values(), ids=RESTARTS)
def test_a_server_that_restarts_mid_run_leaves_a_run_that_is_gone_on_with(
    own_server: EmbeddedPostgres,
    unique: Iterator[str],
    on_top: Write,
    versions: Path,
    tmp_path: Path,
    at: Restart,
) -> None:
    on_top(UP)
    policy = replace(IMPATIENT, stall_lock_timeout_ms=5_000, patient_lock_timeout_ms=30_000)
    options = Options(backup_folder=tmp_path / "backups", policy=policy, more_versions=versions)
    for database in own_database(own_server.url, "postgres", f"fbx_{next(unique)}"):
        trail = RestartingTrail(tmp_path / "audit")
        trail.at, trail.server, trail.url = at, own_server, database.url
        with pytest.raises(MigrationFault) as caught:
            Run(database.url, options, trail, Show(print)).go()
        assert trail.server is None, "it was not restarted"
        if trail.thread is not None:
            trail.thread.join()
            # A server that a thread starts would die with the thread.
            own_server.start()
        assert caught.value.exit_code == at.code, caught.value
        again = Run(database.url, options, Trail(tmp_path / "audit"), Show(print)).go()
        assert again.code is ExitCode.DONE
        assert value(database.url, REVISION) == "x01"
        assert value(database.url, "SELECT count(*) FROM public.subscriptions") == 20
        assert value(database.url, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
        assert value(database.url, UNFINISHED) == 0


@pytest.fixture
def pooler(database: Database, tmp_path: Path) -> Iterator[str]:
    """PgBouncer in transaction mode in front of the test's database."""
    with pgbouncer(database.url, "transaction", tmp_path) as url:
        yield url


def test_a_pooler_in_transaction_mode_is_refused(pooler: str, tmp_path: Path) -> None:
    with pytest.raises(PoolerBetween, match="give the URL of PostgreSQL itself") as caught:
        Run(pooler, Options(backup_folder=tmp_path), Trail(tmp_path), Show(print)).go()
    assert caught.value.exit_code == ExitCode.REFUSED_BY_PREFLIGHT
