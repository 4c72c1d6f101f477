"""A backup is whole, describes what it holds, and is proven by bringing it back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from migrations.guard.backup import backup, list_backups, pin, prune, unpin, verify
from migrations.guard.compare import EXACT, compare
from migrations.guard.manifest import MANIFEST, Backup, BackupFault, read_backup, write
from migrations.guard.restore import proven
from migrations.guard.snapshot import Snapshot, take
from migrations.guard.tools import find_tools, server_major
from migrations.guard.trail import Trail, entries
from shared.schema import WANTED_REVISION
from tests.conftest import Database
from tests.migrations.storefront import add_customer, add_subscription, fill


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "trail")


@pytest.fixture
def filled(database: Database) -> Database:
    with psycopg.connect(database.url) as connection:
        fill(connection, 20)
        connection.execute("UPDATE public.subscriptions SET total_minor = 100, tax_minor = 7")
    return database


@contextmanager
def writing(url: str) -> Iterator[list[object]]:
    """The storefront goes on: new customers, money that moves, rows that go."""
    stop, written = threading.Event(), list[object]()

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                written.append(add_subscription(connection, add_customer(connection)))
                connection.execute(
                    "UPDATE public.subscriptions SET total_minor = coalesce(total_minor, 0) + 1"
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


def test_a_backup_made_under_live_writes_is_restored_and_compared_row_by_row(
    filled: Database, tmp_path: Path, trail: Trail
) -> None:
    with writing(filled.url) as written:
        made = backup(filled.url, tmp_path / "b", "pre_003", trail=trail)
        with proven(made, filled.url, trail=trail) as copy:
            assert copy.differences == []
            assert copy.database.startswith("farebox_scratch_")
            assert copy.database in databases(filled.url)
            assert copy.snapshot.tables == made.manifest.snapshot.tables
    assert written
    # Other tests share the server: only our own copy must be gone.
    assert copy.database not in databases(filled.url)
    assert made.tested
    assert [each["kind"] for each in entries(trail.path)] == [
        "backup started",
        "backup made",
        "backup restore-tested",
    ]


def test_the_manifest_says_what_is_in_it(filled: Database, tmp_path: Path, trail: Trail) -> None:
    made = backup(filled.url, tmp_path, "by-hand", trail=trail)
    manifest = read_backup(made.path).manifest
    assert made.path.name.startswith("by-hand-")
    assert manifest.name == "by-hand"
    assert manifest.database == filled.name
    assert manifest.snapshot.revision == (WANTED_REVISION,)
    assert manifest.snapshot.tables["public.subscriptions"].rows == 20
    assert manifest.snapshot.tables["public.subscriptions"].money["total_minor"].total == "2000"
    assert manifest.wal_start.count("/") == manifest.wal_end.count("/") == 1
    assert all(len(each.sha256) == 64 and each.size for each in manifest.files.values())
    with psycopg.connect(filled.url) as connection:
        major = server_major(connection)
    assert manifest.server_version.startswith(str(major))
    assert manifest.tools_version.startswith(str(major))
    # The embedded programs are built without zstd.
    assert manifest.compression in ("zstd:3", "gzip:1")


def test_two_backups_of_one_name_stand_beside_each_other(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    made = [backup(database.url, tmp_path, "again", trail=trail).path for _ in range(2)]
    assert made[0] != made[1]
    assert [each.path for each in list_backups(tmp_path)] == made


@pytest.mark.parametrize("how", ["truncated", "corrupted", "empty", "missing", "foreign"])
def test_a_damaged_backup_is_refused_and_named(
    database: Database, tmp_path: Path, trail: Trail, how: str
) -> None:
    made = backup(database.url, tmp_path, "x", trail=trail)
    name, _ = max(made.manifest.files.items(), key=lambda each: each[1].size)
    path = made.data / name
    content = path.read_bytes()
    match how:
        case "truncated":
            path.write_bytes(content[:-10])
        case "corrupted":
            path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case _:
            (made.data / "9999.dat.gz").write_bytes(b"what is this")
    with pytest.raises(BackupFault, match="damaged: (9999|" + name.replace(".", r"\.") + ")"):
        verify(read_backup(made.path))
    with (
        pytest.raises(BackupFault, match="is damaged"),
        proven(made, database.url, trail=trail),
    ):
        pass


def test_a_dump_without_all_tables_is_refused_whatever_its_hashes_say(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    made = backup(database.url, tmp_path, "x", trail=trail)
    tables = dict(made.manifest.snapshot.tables)
    tables["public.forgotten"] = tables["public.users"]
    snapshot = made.manifest.snapshot.model_copy(update={"tables": tables})
    claimed = Backup(made.path, made.manifest.model_copy(update={"snapshot": snapshot}))
    with psycopg.connect(database.url) as connection:
        tools = find_tools(server_major(connection))
    with pytest.raises(BackupFault, match="rows instead of"):
        verify(claimed, tools)


def test_a_copy_that_misses_a_cent_is_no_backup(
    filled: Database, tmp_path: Path, trail: Trail
) -> None:
    made = backup(filled.url, tmp_path, "x", trail=trail)
    with psycopg.connect(filled.url) as connection:
        one = "UPDATE public.subscriptions SET total_minor = total_minor + %s WHERE id = (SELECT {}(id::text)::uuid FROM public.subscriptions)"
        connection.execute(one.format("min").encode(), (1,))
        connection.execute(one.format("max").encode(), (-1,))
        now = take(connection, contents=True)
    snapshot: Snapshot = made.manifest.snapshot
    said = "\n".join(map(str, compare(snapshot, now, EXACT)))
    assert "money public.subscriptions.total_minor: still adds up to 2000, but in other" in said


def test_prune_keeps_the_newest_and_what_is_pinned(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    made = [backup(database.url, tmp_path, f"n{each}", trail=trail) for each in range(4)]
    pin(made[0], "migration 003 is not marked good")
    assert prune(tmp_path, 2, trail=trail) == [made[1].path]
    assert [each.manifest.name for each in list_backups(tmp_path)] == ["n0", "n2", "n3"]
    other = made[3].manifest.model_copy(update={"database": "another"})
    write(made[3].path / MANIFEST, other.model_dump_json())
    assert prune(tmp_path, 1, trail=trail) == []
    write(made[3].path / MANIFEST, made[3].manifest.model_dump_json())
    unpin(made[0])
    assert prune(tmp_path, 1, trail=trail) == [made[0].path, made[2].path]
    assert {each.name for each in tmp_path.iterdir()} == {"trail", made[3].path.name}
    with pytest.raises(BackupFault, match="keep at least 1"):
        prune(tmp_path, 0, trail=trail)


def test_a_clock_that_was_put_back_makes_no_new_backup_old(
    database: Database, tmp_path: Path, trail: Trail
) -> None:
    made = [backup(database.url, tmp_path, f"n{each}", trail=trail) for each in range(2)]
    with psycopg.connect(database.url) as connection:
        connection.execute("CREATE TABLE public.more AS SELECT 1")
    back = made[0].manifest.started_at - timedelta(hours=1)
    newest = backup(database.url, tmp_path, "n2", trail=trail, clock=lambda: back)
    assert newest.path not in prune(tmp_path, 1, trail=trail)
    assert made[1].path.exists()
    assert newest.path.exists()
