"""What goes wrong while a backup is made: said with its cause, and nothing half made is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard import backup as module
from migrations.guard.backup import backup, list_backups
from migrations.guard.manifest import BackupFault
from migrations.guard.tools import NotEnoughSpace, ToolFault, find_tools, on_database, server_major
from migrations.guard.trail import Trail
from tests.conftest import Database

ROOT = Path(__file__).resolve().parent.parent.parent
DUMPS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'farebox-dump-%%' AND datname = %s AND wait_event_type = 'Lock'"
PATIENCE_SECONDS = 20.0


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "trail")


def until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.05)


def dumps(watcher: psycopg.Connection, database: str) -> int:
    row = watcher.execute(DUMPS, (database,)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_killed_job_leaves_a_temporary_name_that_the_next_one_cleans(
    database: Database, tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_MS", 500)
    folder = tmp_path / "b"
    program = (
        "import sys; from pathlib import Path; from migrations.guard.backup import backup;"
        "from migrations.guard.trail import Trail;"
        "backup(sys.argv[1], Path(sys.argv[2]), 'killed', trail=Trail(Path(sys.argv[3])))"
    )
    with (
        psycopg.connect(database.url, autocommit=True) as watcher,
        psycopg.connect(database.url) as blocker,
    ):
        blocker.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
        command = [sys.executable, "-c", program, database.url, str(folder), str(trail.folder)]
        job = subprocess.Popen(command, cwd=ROOT)
        until(lambda: dumps(watcher, database.name) > 0)
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert [each.name.startswith(".partial-") for each in folder.iterdir()] == [True]
        assert list_backups(folder) == []
        # The orphan waits for the lock; it goes, and its folder with it.
        with pytest.raises(BackupFault, match="locked by somebody's schema change"):
            backup(database.url, folder, "next", trail=trail)
        until(lambda: dumps(watcher, database.name) == 0)
        assert list(folder.iterdir()) == []
    assert backup(database.url, folder, "last", trail=trail).path.parent == folder


def test_a_backup_that_is_being_made_is_not_cleaned_away(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    made: list[Path] = []

    def make() -> None:
        made.append(backup(database.url, tmp_path / "b", "slow", trail=trail).path)

    with (
        psycopg.connect(database.url, autocommit=True) as watcher,
        psycopg.connect(database.url) as blocker,
    ):
        blocker.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=make)
        thread.start()
        until(lambda: dumps(watcher, database.name) > 0)
        elsewhere = on_database(database.url, "template1")
        other = backup(elsewhere, tmp_path / "b", "other", trail=trail)
        blocker.rollback()
        thread.join()
    assert {each.path for each in list_backups(tmp_path / "b")} == {*made, other.path}


def test_the_password_is_in_no_process_list(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system has no /proc to read command lines from")
    secret = "correct-horse-battery"
    url = database.url.replace("@", f":{secret}@", 1)
    with (
        psycopg.connect(database.url, autocommit=True) as watcher,
        psycopg.connect(database.url) as blocker,
    ):
        blocker.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=backup, args=(url, tmp_path, "x"), kwargs={"trail": trail})
        thread.start()
        until(lambda: dumps(watcher, database.name) > 0)
        lines = [
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
        ]
        blocker.rollback()
        thread.join()
    assert any(b"pg_dump" in each and database.name.encode() in each for each in lines)
    assert [each for each in lines if secret.encode() in each] == []
    assert secret not in trail.path.read_text()


def test_a_table_that_may_not_be_read_is_named(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    with psycopg.connect(database.url) as connection:
        for schema in ("public", "pricing", "payments", "loyalty", "analytics"):
            for what in (f"USAGE ON SCHEMA {schema}", f"SELECT ON ALL TABLES IN SCHEMA {schema}"):
                connection.execute(f"GRANT {what} TO loyalty_app".encode())
            connection.execute(
                f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO loyalty_app".encode()
            )
        connection.execute("REVOKE SELECT ON payments.payment_intents FROM loyalty_app")
    with pytest.raises(BackupFault, match=r"loyalty_app may not read payments.payment_intents:"):
        backup(database.url_for("loyalty"), tmp_path / "b", "x", trail=trail)
    assert list((tmp_path / "b").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("this machine has no mount")
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_refused_before_the_dump(
    database: Database, small_disk: Path, trail: Trail
) -> None:
    with pytest.raises(NotEnoughSpace, match="are needed"):
        backup(database.url, small_disk, "x", trail=trail)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_during_the_dump_leaves_nothing(
    database: Database, small_disk: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "space_needed", lambda connection: 0)
    with psycopg.connect(database.url) as connection:
        connection.execute(
            "INSERT INTO public.users (email) SELECT gen_random_uuid() FROM generate_series(1, 20000)"
        )
    with pytest.raises(BackupFault, match="the disk is full"):
        backup(database.url, small_disk, "x", trail=trail)
    assert list(small_disk.iterdir()) == []


def test_programs_of_another_version_are_refused_naming_both(tmp_path: Path) -> None:
    for name in ("pg_dump", "pg_restore"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 13.4'\n")
        program.chmod(0o755)
    with pytest.raises(ToolFault, match=r"the server is PostgreSQL 18 .*pg_dump is 13\.4"):
        find_tools(18, {"FAREBOX_PG_BIN": str(tmp_path), "PATH": os.environ["PATH"]})


def test_no_programs_at_all_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ToolFault, match="none was found; install postgresql-client-17"):
        find_tools(17, {"FAREBOX_PG_BIN": str(tmp_path)})


@pytest.mark.parametrize(("knows", "asked"), [(True, ["zstd:3"]), (False, ["zstd:3", "1"])])
def test_zstd_is_taken_where_pg_dump_has_it(
    empty_database: Database,
    tmp_path: Path,
    trail: Trail,
    monkeypatch: pytest.MonkeyPatch,
    knows: bool,
    asked: list[str],
) -> None:
    """The real programs, behind one that notes what it is asked; it may take zstd in the real one's stead."""
    with psycopg.connect(empty_database.url) as connection:
        connection.execute("CREATE TABLE public.a AS SELECT 1 AS id")
        real = find_tools(server_major(connection))
    if real.major < module.ZSTD_SINCE:
        pytest.skip(f"pg_dump {real.major} knows no zstd and is not asked for it")
    binaries, notes = tmp_path / "bin", tmp_path / "notes"
    binaries.mkdir()
    replaced = "s/--compress=zstd:3/--compress=1/" if knows else ""
    dump = f"""#!/bin/bash
    for each in "$@"; do case $each in --compress=*) echo "${{each#*=}}" >> {notes};; esac; done
    for each in "$@"; do given+=("$(sed '{replaced}' <<< "$each")"); done
    exec {real.pg_dump} "${{given[@]}}"
    """
    restore = f'#!/bin/bash\nexec {real.pg_restore} "$@"\n'
    for name, text in (("pg_dump", dump), ("pg_restore", restore)):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    monkeypatch.setenv("FAREBOX_PG_BIN", str(binaries))
    made = backup(empty_database.url, tmp_path / "b", "x", trail=trail)
    said = notes.read_text().split()
    if not knows and said == ["zstd:3"]:
        pytest.skip("this pg_dump has zstd: there is nothing to fall back from")
    assert said == asked
    assert made.manifest.compression == ("zstd:3" if knows else "gzip:1")


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "x" * 61])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, trail: Trail, name: str) -> None:
    with pytest.raises(BackupFault, match="is no name"):
        backup("postgresql://nobody@localhost/nothing", tmp_path, name, trail=trail)
