"""The run lock: never two jobs at once, never through a pooler."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from migrations.faults import LockBusy, PoolerBetween
from migrations.guard.trail import entries
from migrations.run_lock import LOCK_KEY, connect, run_lock
from tests.conftest import Database
from tests.guard.poolers import pgbouncer
from tests.migrations.conftest import ROOT, upgrade
from tests.migrations.test_003 import BEFORE

PATIENCE_SECONDS = 60.0
# In the test's own database: jobs of other tests run on the same server.
LOCKED = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


Job = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def job(empty_database: Database, tmp_path: Path) -> Iterator[Job]:
    """`job(*arguments)`: another run_migration.py on the database."""
    folders = {name: str(tmp_path / name) for name in ("FAREBOX_AUDIT_DIR", "FAREBOX_BACKUP_DIR")}
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": empty_database.url} | folders
    with ExitStack() as last:

        def start(*arguments: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "run_migration.py"), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            last.enter_context(process)
            last.callback(process.kill)
            return process

        yield start


def until_one(url: str, query: str, *values: object) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    with psycopg.connect(url, autocommit=True) as watcher:
        while watcher.execute(query.encode(), values or None).fetchone() != (1,):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_of_two_jobs_at_once_one_waits_and_one_leaves_and_only_one_migrates(
    empty_database: Database, job: Job, tmp_path: Path
) -> None:
    upgrade(empty_database.url, BEFORE)
    with psycopg.connect(empty_database.url) as storefront:
        # A writer: the first is not done before it ends, and yet reads whatever it must.
        storefront.execute("LOCK TABLE public.subscriptions IN ROW EXCLUSIVE MODE")
        first = job()
        until_one(empty_database.url, LOCKED, LOCK_KEY)
        waiting = job("--lock-wait", "120")
        leaving = job("--lock-wait", "0")
        _, refused = leaving.communicate(timeout=60)
        assert leaving.returncode == 4, refused
        assert "another migration job runs: process " in refused
        assert f"(farebox-migrate on {socket.gethostname()[:30]}" in refused
        assert f"process {first.pid})" in refused
        assert "connected since 20" in refused
        assert first.poll() is None
    _, said = first.communicate(timeout=180)
    assert first.returncode == 0, said
    _, waited = waiting.communicate(timeout=180)
    assert waiting.returncode == 0, waited
    assert "waiting for another migration job: process " in waited
    assert "nothing to do" in waited
    trail = entries(tmp_path / "FAREBOX_AUDIT_DIR" / "trail.jsonl")
    kinds = [str(each["kind"]) for each in trail]
    assert kinds.count("run_started") == 3
    assert kinds.count("lock_wait") == 1
    assert kinds.count("rehearsal_started") == 1


def take(url: str) -> None:
    with run_lock(url, wait_seconds=0, on_wait=print):
        pass


def test_the_holder_is_named_with_where_and_since_when(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True, application_name="by hand") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(LockBusy) as caught:
            take(database.url)
        expected = f"process {holder.info.backend_pid} of postgres (by hand) from 127.0.0.1"
    assert expected in str(caught.value)
    assert ", connected since 20" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_lock_that_is_given_back_is_taken_at_the_next_look(database: Database) -> None:
    told: list[str] = []
    with psycopg.connect(database.url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        release = threading.Timer(1.0, holder.close)
        release.start()
        with run_lock(database.url, wait_seconds=30, on_wait=told.append) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
                " AND locktype = 'advisory'"
            ).fetchone()
        release.join()
    assert row == (1,)
    assert len(told) == 1
    # And given back: somebody else may have it.
    take(database.url)


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
def test_no_pooler_gets_as_far_as_the_lock(database: Database, tmp_path: Path, mode: str) -> None:
    """In session mode too: from here nobody can prove which mode it is in, nor that it stays so."""
    with (
        pgbouncer(database.url, mode, tmp_path) as pooled,
        pytest.raises(PoolerBetween, match="give the URL of PostgreSQL itself") as caught,
    ):
        take(pooled)
    assert caught.value.exit_code == 20
    with connect(database.url) as connection:
        assert connection.execute(LOCKED, (LOCK_KEY,)).fetchone() == (0,)


def test_a_lock_through_transaction_mode_is_nobodys(database: Database, tmp_path: Path) -> None:
    """Why it is refused: two clients hold one session lock, for they are one session."""
    with (
        pgbouncer(database.url, "transaction", tmp_path) as pooled,
        connect(pooled) as first,
        connect(pooled) as second,
    ):
        for each in (first, second):
            row = each.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
            assert row == (True,)
        row = first.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        assert row == second.execute("SELECT pg_backend_pid()").fetchone()
        assert row[0] not in (first.info.backend_pid, second.info.backend_pid)
