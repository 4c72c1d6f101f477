"""A dump that is whole or not there: made under a temporary name, hashed, described, then renamed.

What the manifest says of the database was read in the very snapshot that was dumped, so that later the copy can be
compared with it however busily the application writes.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import Connection
from sqlalchemy.engine import make_url

from migrations.guard.exits import ExitCode
from migrations.guard.manifest import (
    DATA,
    MANIFEST,
    PINNED,
    Backup,
    BackupFault,
    Manifest,
    damage,
    hash_files,
    read_backup,
    sync,
    write,
)
from migrations.guard.progress import CopyWatch, Say, silent
from migrations.guard.snapshot import Snapshot, one, take
from migrations.guard.tools import (
    ToolFailed,
    Tools,
    find_tools,
    require_space,
    run_tool,
    server_major,
)
from migrations.guard.trail import Trail
from migrations.run_lock import connect
from shared.clock import Clock, utc_now

DEFAULT_FOLDER = Path("backups")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
PARTIAL, OWNER = ".partial-", "owner.lock"
APPLICATION = "farebox-dump-"
# A dump leaves indexes out and compresses: half of the database is seldom reached.
COMPRESSED, ROOM_BYTES = 0.5, 64 * 2**20
# Below this a second connection costs more than it brings.
PARALLEL_FROM_BYTES = 64 * 2**20
JOBS = min(4, os.cpu_count() or 1)
# A dump that queues behind somebody's DDL holds the whole run; it had better say so.
LOCK_WAIT_MS = 30_000
# Where pg_dump was built without zstd: level 5 takes twice as long for a tenth less.  Not compressed by ourselves,
# for in an emergency pg_restore alone must be enough.
ZSTD, GZIP = "zstd:3", "1"
ZSTD_SINCE = 16

# Neither takes a lock: pg_table_size would wait behind somebody's schema change.
DATABASE_BYTES = "SELECT pg_database_size(current_database())"
TABLE_BYTES = """
SELECT coalesce(sum(c.relpages::bigint), 0)::bigint * current_setting('block_size')::bigint FROM pg_class c
WHERE c.relkind IN ('r', 'm', 't') AND c.relnamespace <> 'pg_catalog'::regnamespace
"""
UNREADABLE = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't'
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind
        WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
ORDER BY 1
"""
WAL_POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text
"""
ORPHANS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"


class NoName(BackupFault):
    exit_code = ExitCode.USAGE

    def __init__(self, given: str) -> None:
        super().__init__(
            f"{given!r} is no name for a backup: up to 60 letters, digits, dots, dashes and"
            " underscores, a letter or digit first; the folder is said with --folder"
        )


def default_folder() -> Path:
    return Path(os.environ.get("FAREBOX_BACKUP_DIR") or DEFAULT_FOLDER)


def backup(
    url: str,
    folder: Path,
    name: str,
    *,
    trail: Trail,
    progress: Say = silent,
    clock: Clock = utc_now,
) -> Backup:
    """Dump the database of `url` into a new folder of `folder`.  Raises MigrationFault, leaving nothing."""
    if not NAME.fullmatch(name):
        raise NoName(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _in_our_words(), connect(url) as watch, _partial(folder, watch) as partial:
        tools = find_tools(server_major(watch))
        _require_readable(watch)
        require_space(folder, space_needed(watch))
        trail.record("backup started", name=name, folder=partial)
        manifest = _dump(url, watch, partial, tools, (name, progress, clock))
        made = Backup(partial, manifest)
        verify(made, tools)
        final = _free_place(folder, name, manifest.started_at)
        partial.rename(final)
        sync(folder)
    (final / OWNER).unlink()
    made = Backup(final, manifest)
    took = (manifest.ended_at - manifest.started_at).total_seconds()
    trail.record("backup made", path=final, bytes=made.size, seconds=took, wal=manifest.wal_end)
    return made


def verify(backup: Backup, tools: Tools | None = None) -> None:
    """Every byte as it was written, and a list of contents that can be read.  Raises BackupFault."""
    wrong = damage(backup)
    if not backup.manifest.files:
        wrong.append("it is empty")
    if wrong:
        raise BackupFault(f"{backup.path} is damaged: {'; '.join(wrong[:5])}")
    if tools is None:
        return
    command = [str(tools.pg_restore), "--list", str(backup.data)]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        raise BackupFault(f"{backup.path} cannot be listed: {listed.stderr.strip()}")
    dumped = listed.stdout.count(" TABLE DATA ")
    wanted = len(backup.manifest.snapshot.tables)
    if dumped < wanted:
        raise BackupFault(f"{backup.path} holds {dumped} tables' rows instead of {wanted}")


def server_of(url: str) -> str:
    """As the manifest names it."""
    place = make_url(url)
    return f"{place.host or 'localhost'}:{place.port or 5432}"


def list_backups(folder: Path) -> list[Backup]:
    """Oldest first; those whose files are all there in their sizes, hashes are for `verify`."""
    return [each for each in _looked_at(folder) if isinstance(each, Backup)]


def damaged(folder: Path) -> list[tuple[Path, str]]:
    """The others, and why they are no backups."""
    return [each for each in _looked_at(folder) if not isinstance(each, Backup)]


def _looked_at(folder: Path) -> list[Backup | tuple[Path, str]]:
    good, bad = list[Backup](), list[tuple[Path, str]]()
    for path in sorted(each.parent for each in folder.glob(f"[!.]*/{MANIFEST}")):
        try:
            found = read_backup(path)
        except BackupFault as fault:
            bad.append((path, str(fault)))
            continue
        if wrong := damage(found, hashes=False):
            bad.append((path, f"{path} is damaged: {'; '.join(wrong[:5])}"))
        else:
            good.append(found)
    return [*sorted(good, key=lambda each: each.manifest.started_at), *bad]


def pin(backup: Backup, reason: str) -> None:
    """Until it is unpinned, `prune` leaves it alone."""
    write(backup.path / PINNED, f"{reason}\n")


def unpin(backup: Backup) -> None:
    (backup.path / PINNED).unlink(missing_ok=True)


def prune(folder: Path, keep: int, *, trail: Trail) -> list[Path]:
    """Remove all but the newest `keep` of each database and those pinned; returns what was removed.

    Newest by the clock or by the server's log: a clock that was put back makes nothing old.  A damaged one neither counts nor goes: it may be all that is left of something.
    """
    if keep < 1:
        raise BackupFault("the last backup is not removed: keep at least 1")
    of = defaultdict[tuple[str, str], list[Backup]](list)
    for each in list_backups(folder):
        of[each.manifest.server, each.manifest.database].append(each)
    old = [each for some in of.values() for each in _old(some, keep) if each.pinned is None]
    for each in old:
        trail.record("backup removed", path=each.path, started_at=each.manifest.started_at)
        # Renamed first: one that is half removed must not look like one.
        gone = each.path.with_name(f"{PARTIAL}{secrets.token_hex(4)}")
        each.path.rename(gone)
        shutil.rmtree(gone)
    return [each.path for each in old]


def _old(by_clock: Sequence[Backup], keep: int) -> list[Backup]:
    by_log = sorted(by_clock, key=lambda each: _position(each.manifest.wal_start))
    newest = {each.path for each in [*by_clock[-keep:], *by_log[-keep:]]}
    return [each for each in by_clock if each.path not in newest]


def _position(wal: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in wal.split("/"))


def unreadable_tables(connection: Connection) -> list[str]:
    """Tables and sequences that this role may not read, and so not back up."""
    return [str(row[0]) for row in connection.execute(UNREADABLE).fetchall()]


def table_bytes(connection: Connection) -> int:
    """As of the last VACUUM or ANALYZE: for a progress bar."""
    return _size(connection, TABLE_BYTES)


def space_needed(connection: Connection) -> int:
    """Bytes that a backup of this database may take."""
    return int(_size(connection, DATABASE_BYTES) * COMPRESSED) + ROOM_BYTES


def _size(connection: Connection, query: str) -> int:
    size = one(connection, query)
    return size if isinstance(size, int) else 0


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise BackupFault(f"no backup was made: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise BackupFault(f"no backup was made: {error}") from error


def _require_readable(connection: Connection) -> None:
    closed = unreadable_tables(connection)
    if closed:
        user = connection.info.user
        raise BackupFault(
            f"{user} may not read {', '.join(closed)}: GRANT SELECT ON … TO {user}, or take the owner"
        )


def _dump(
    url: str, watch: Connection, partial: Path, tools: Tools, how: tuple[str, Say, Clock]
) -> Manifest:
    name, progress, clock = how
    expected, started_at = table_bytes(watch), clock()
    wal_start = str(one(watch, WAL_POSITION))
    application = APPLICATION + partial.name.removeprefix(PARTIAL)
    copied = CopyWatch(watch, application, f"dump of {make_url(url).database}", expected, progress)
    with connect(url) as reader, ThreadPoolExecutor(1) as beside:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        exported = str(one(reader, "SELECT pg_export_snapshot()"))
        read = beside.submit(take, reader, contents=True)
        try:
            compression = _pg_dump(
                [
                    *(tools.pg_dump, "--format=directory", f"--file={partial / DATA}"),
                    *(f"--snapshot={exported}", f"--lock-wait-timeout={LOCK_WAIT_MS}"),
                    f"--jobs={JOBS if expected >= PARALLEL_FROM_BYTES else 1}",
                ],
                (url, application),
                tools,
                copied,
            )
        except BaseException:
            reader.cancel_safe()
            raise
        snapshot: Snapshot = read.result()
    copied.done()
    info = watch.info
    manifest = Manifest(
        name=name,
        server=server_of(url),
        database=info.dbname,
        server_version=info.parameter_status("server_version") or str(info.server_version),
        tools_version=tools.version,
        compression=compression,
        started_at=started_at,
        ended_at=clock(),
        wal_start=wal_start,
        wal_end=str(one(watch, WAL_POSITION)),
        data_bytes=expected,
        database_bytes=_size(watch, DATABASE_BYTES),
        files=hash_files(partial / DATA),
        snapshot=snapshot,
    )
    write(partial / MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def _pg_dump(
    command: Sequence[str | Path], where: tuple[str, str], tools: Tools, copied: CopyWatch
) -> str:
    """Returns the compression.  Raises BackupFault."""
    url, application = where
    methods = [ZSTD, GZIP] if tools.major >= ZSTD_SINCE else [GZIP]
    for method in methods:
        try:
            arguments = [*command, f"--compress={method}"]
            run_tool(arguments, url, name=application, on_poll=copied.look)
        except ToolFailed as failed:
            if method == ZSTD and "compress" in failed.said:
                # Built without it; it says so before it connects.
                continue
            raise BackupFault(_explained(failed)) from failed
        return f"gzip:{GZIP}" if method == GZIP else method
    raise BackupFault("pg_dump knows no compression")


def _explained(failed: ToolFailed) -> str:
    if "No space left on device" in failed.said:
        return f"the disk is full: {failed}; free some, or name another folder; nothing was kept"
    if "due to statement timeout" in failed.said:
        return f"a table is locked by somebody's schema change: {failed}; try again"
    return str(failed)


@contextmanager
def _partial(folder: Path, connection: Connection) -> Iterator[Path]:
    """A folder of a temporary name, gone if the block fails; whose owner was killed, goes first."""
    partial = folder / f"{PARTIAL}{secrets.token_hex(4)}"
    with contextlib.ExitStack() as held:
        with _alone_in(folder):
            _sweep(folder, connection)
            partial.mkdir(mode=0o700)
            lock = held.enter_context((partial / OWNER).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path, connection: Connection) -> None:
    for partial in folder.glob(f"{PARTIAL}*"):
        try:
            lock = (partial / OWNER).open()
        except FileNotFoundError:
            shutil.rmtree(partial, ignore_errors=True)
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            # A pg_dump that outlived the job writes on, and holds its locks.
            connection.execute(ORPHANS, (APPLICATION + partial.name.removeprefix(PARTIAL),))
            shutil.rmtree(partial, ignore_errors=True)


def _free_place(folder: Path, name: str, at: datetime) -> Path:
    stem = f"{name}-{at:%Y%m%dT%H%M%SZ}"
    places = (folder / (f"{stem}-{number}" if number > 1 else stem) for number in range(1, 1000))
    return next(each for each in places if not each.exists())
