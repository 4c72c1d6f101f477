"""The runbook's third trouble, "backup failed": disk, folder, programs, other dumps."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard import room as module
from migrations.guard.backup import APPLICATION, OWNER, PARTIAL
from migrations.guard.preflight import preflight
from migrations.guard.statements import Chain
from migrations.guard.subject import Problem, Subject
from migrations.guard.tools import find_tools, server_major
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.test_apply import HEAD
from tests.guard.test_backup_faults import small_disk, until

__all__ = ["small_disk"]
BUSY = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = %s AND wait_event_type = 'Lock'"


def of(url: str, folder: Path) -> dict[str, Problem]:
    with connect(url) as connection:
        return {p.check: p for p in preflight(Subject(connection, Chain(), HEAD, (), folder))}


def test_a_disk_too_small_for_the_backup_is_refused(migrated: Database, small_disk: Path) -> None:
    problem = of(migrated.url, small_disk)["disk"]
    assert problem.severity == "refusal"
    assert problem.cause.startswith("the backup may need ")
    assert f"{small_disk} has 0 MB" in problem.cause
    assert problem.remedy == "free some space, or set FAREBOX_BACKUP_DIR"


def test_the_rehearsal_is_measured_by_the_size_of_the_database_never_analyzed(
    migrated: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(migrated.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.big (t text) WITH (autovacuum_enabled = off)")
        connection.execute(
            "INSERT INTO public.big SELECT repeat('x', 500) FROM generate_series(1, 40000)"
        )
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    assert row[0] > 20 * 2**20
    asked: list[module.Need] = []

    def note(needs: list[module.Need]) -> Iterator[Problem]:
        asked.extend(needs)
        return iter(())

    monkeypatch.setattr(module, "_too_small", note)
    of(migrated.url, tmp_path)
    assert [each.purpose for each in asked] == ["the backup", "the rehearsal"]
    assert asked[1].size >= 2 * row[0]
    assert asked[1].folder.joinpath("PG_VERSION").exists()


def test_what_shares_a_disk_adds_up(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    half = module.Need(tmp_path, free * 6 // 10, "the backup", "free some")
    assert list(module._too_small([half])) == []
    [problem] = module._too_small(
        [half, module.Need(tmp_path, free * 6 // 10, "the rehearsal", "free some")]
    )
    assert problem.cause.startswith("the backup and the rehearsal may need ")
    assert problem.remedy == "free some"


def test_a_server_on_another_machine_is_said_not_to_be_measured(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "THIS_MACHINE", {"localhost"})
    problem = of(database.url, tmp_path)["disk"]
    assert problem.severity == "warning"
    assert "cannot be seen from here; it may need " in problem.cause


def test_a_folder_that_cannot_be_written_is_named(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = of(database.url, tmp_path / "file" / "x")["backup folder"]
    assert f"cannot write to {tmp_path / 'file' / 'x'}: Not a directory" in problem.cause
    assert "FAREBOX_BACKUP_DIR" in problem.remedy


def test_programs_that_may_not_be_executed_are_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    monkeypatch.setenv("FAREBOX_PG_BIN", str(tmp_path))
    problem = of(database.url, tmp_path / "b")["programs"]
    assert f"{tmp_path / 'pg_dump'} may not be executed" in problem.cause


def test_programs_that_cannot_run_here_are_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_bytes(b"\x7fELFnot really")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("FAREBOX_PG_BIN", str(tmp_path))
    problem = of(database.url, tmp_path / "b")["programs"]
    assert "Exec format error" in problem.cause


def waits(watcher: psycopg.Connection, database: str, application: str) -> bool:
    return watcher.execute(BUSY, (database, application)).fetchone() != (0,)


@pytest.fixture
def watcher(migrated: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(migrated.url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("application", ["pg_dump", f"{APPLICATION}1234"])
def test_another_dump_is_named_with_how_to_end_it(
    migrated: Database, watcher: psycopg.Connection, tmp_path: Path, application: str
) -> None:
    """A real one, held by a lock; ours on another machine are named like this."""
    program = find_tools(server_major(watcher)).pg_dump
    with psycopg.connect(migrated.url) as blocker:
        # Of no model, so that no other check waits for it.
        blocker.execute("CREATE TABLE public.held ()")
        blocker.commit()
        blocker.execute("LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE")
        environment = {**os.environ, "PGAPPNAME": application}
        command = [str(program), f"--dbname={migrated.url}", f"--file={tmp_path / 'dump'}"]
        with subprocess.Popen(command, env=environment) as dump:
            until(lambda: waits(watcher, migrated.name, application))
            problem = of(migrated.url, tmp_path)["dump"]
            # What the remedy says ends it.
            watcher.execute(problem.remedy.rpartition(": ")[2].encode())
            assert dump.wait(20) != 0
    assert problem.severity == "refusal"
    assert "another dump runs (process " in problem.cause
    assert "dump" not in of(migrated.url, tmp_path)


def test_the_dump_of_a_killed_run_is_left_to_the_backup_that_ends_it(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / f"{PARTIAL}1234").mkdir()
    (tmp_path / f"{PARTIAL}1234" / OWNER).touch()
    with psycopg.connect(database.url, application_name=f"{APPLICATION}1234"):
        assert "dump" not in of(database.url, tmp_path)
