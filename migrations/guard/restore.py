"""A backup brought back: beside what is there, checked, and only then put in its place by renaming.

The database that was there is kept under another name.  Writes that the backup has not are shown, and given up
only by typing which.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import Connection
from sqlalchemy.engine import make_url

from migrations.faults import MigrationFault
from migrations.guard import compare, properties, writes
from migrations.guard.backup import JOBS, PARALLEL_FROM_BYTES, verify
from migrations.guard.exits import ExitCode
from migrations.guard.manifest import TESTED, Backup, BackupFault, write
from migrations.guard.progress import CopyWatch, Say, silent
from migrations.guard.snapshot import Snapshot, take
from migrations.guard.tools import ToolFailed, find_tools, on_database, run_tool, server_major
from migrations.guard.trail import Trail
from migrations.run_lock import connect
from shared.clock import Clock, utc_now

APPLICATION = "farebox-restore-"
SCRATCH = "farebox_scratch_"
NAME_BYTES = 63
# Where one stands to rename a database; every server has at least one of them.
ELSEWHERE = ("postgres", "template1")


class WritesWouldBeLost(BackupFault):
    """`phrase` is what to type; `lost` what is behind it.  The database is as it was."""

    exit_code = ExitCode.REFUSED_BY_PREFLIGHT

    def __init__(self, lost: list[writes.Lost], given: str | None) -> None:
        self.lost = lost
        self.phrase = writes.phrase(lost)
        wrong = "" if given is None else f"; {given!r} is not what would be lost now"
        super().__init__(
            f"refused: the database holds what the backup has not{wrong}."
            f' To give it up: --give-up-writes "{self.phrase}"'
        )


@dataclass(frozen=True)
class Copy:
    """A backup brought back as `database`; `differences` from what was backed up."""

    database: str
    url: str
    snapshot: Snapshot
    differences: list[compare.Difference]


@dataclass(frozen=True)
class Restored:
    """`kept` is the database that was there before, None if there was none."""

    database: str
    kept: str | None
    given_up: str
    differences: list[compare.Difference]


def restore_into(backup: Backup, admin_url: str, database: str, *, progress: Say = silent) -> str:
    """Make `database` on the server of `admin_url` from the backup; returns its URL.  Raises MigrationFault.

    What fails leaves no database.
    """
    url = on_database(admin_url, database)
    with _in_our_words(f"{backup.path} could not be restored"), connect(admin_url) as admin:
        tools = find_tools(server_major(admin))
        verify(backup, tools)
        properties.create_like(admin, make_url(admin_url).database or "", database)
        application = f"{APPLICATION}{secrets.token_hex(4)}"
        what, size = f"restore into {database}", backup.manifest.data_bytes
        copied = CopyWatch(admin, application, what, size, progress)
        tolerant = _old_faults(backup.manifest.snapshot)
        command: list[str | Path] = [
            *(tools.pg_restore, "--format=directory", "--no-subscriptions"),
            f"--jobs={JOBS if size >= PARALLEL_FROM_BYTES else 1}",
            # What was broken before cannot all be built again; the comparison tells which it was.
            *([] if tolerant else ["--exit-on-error"]),
            backup.data,
        ]
        with _dropped_on_failure(admin, database):
            try:
                run_tool(command, url, name=application, on_poll=copied.look)
            except ToolFailed as failed:
                if not (tolerant and "errors ignored on restore" in failed.said):
                    raise BackupFault(f"{backup.path} could not be restored: {failed}") from failed
            properties.dress_like(admin, str(make_url(admin_url).database), database)
        copied.done()
    return url


def check_copy(backup: Backup, url: str) -> Copy:
    """Compare what was restored with what was dumped."""
    with connect(url) as connection:
        snapshot = take(connection, contents=True)
    found = compare.compare(backup.manifest.snapshot, snapshot, compare.EXACT)
    return Copy(str(make_url(url).database), url, snapshot, found)


@contextmanager
def proven(
    backup: Backup,
    admin_url: str,
    *,
    trail: Trail,
    progress: Say = silent,
    clock: Clock = utc_now,
) -> Iterator[Copy]:
    """The backup, proven: restored into a scratch database and compared.  The copy lives as long as the block.

    Raises BackupFault if it is not what was backed up.
    """
    database = f"{SCRATCH}{secrets.token_hex(4)}"
    started = clock()
    with _scratch(admin_url, database):
        url = restore_into(backup, admin_url, database, progress=progress)
        copy = check_copy(backup, url)
        new = compare.faults(copy.differences)
        took = (clock() - started).total_seconds()
        trail.record(
            "backup restore-tested",
            path=backup.path,
            database=database,
            seconds=took,
            differences=[str(each) for each in copy.differences],
        )
        if new:
            raise BackupFault(
                f"{backup.path} was restored and is not what was backed up: {'; '.join(map(str, new[:5]))}"
            )
        write(backup.path / TESTED, f"{clock().isoformat()}\n")
        yield copy


def restore(
    backup: Backup,
    url: str,
    *,
    trail: Trail,
    give_up: str | None = None,
    progress: Say = silent,
    clock: Clock = utc_now,
) -> Restored:
    """Put the backup in the place of `url`'s database, which is kept.  Raises WritesWouldBeLost, BackupFault."""
    target = str(make_url(url).database)
    stamp = f"{clock():%Y%m%d_%H%M%S}_{secrets.token_hex(2)}"
    beside, kept = (_short(target, f"_{word}_{stamp}") for word in ("restored", "before_restore"))
    elsewhere = _elsewhere(url, target)
    with _in_our_words("nothing was restored"), connect(elsewhere) as control:
        properties.claim(control, beside)
        properties.sweep(control, _short(target, "_restored_"))
        there = properties.exists(control, target)
        if there and not properties.is_open(control, target):
            raise BackupFault(
                f"{target} takes no connections; if a restore was killed there, open it again:"
                f' ALTER DATABASE "{target}" ALLOW_CONNECTIONS true'
            )
        base = url if there else elsewhere
        trail.record("restore started", path=backup.path, database=target, beside=beside)
        copy_url = restore_into(backup, base, beside, progress=progress)
        with _dropped_on_failure(control, beside):
            differences = check_copy(backup, copy_url).differences
            if new := compare.faults(differences):
                raise BackupFault(f"the restored copy is wrong: {'; '.join(map(str, new[:5]))}")
            if there:
                _swap(control, (url, copy_url), kept, _judge(give_up, trail))
            else:
                properties.rename(control, ((beside, target),))
    given_up = give_up or ""
    trail.record("restored", path=backup.path, database=target, kept=kept, given_up=given_up)
    return Restored(target, kept if there else None, given_up, differences)


def _judge(give_up: str | None, trail: Trail) -> Callable[[list[writes.Lost]], None]:
    def judge(lost: list[writes.Lost]) -> None:
        # Rows themselves are shown to whoever decides; they may be personal, and the trail stays.
        said = writes.phrase(lost)
        if lost and writes.phrase(lost) != give_up:
            trail.record("restore refused", writes=said, typed=give_up)
            raise WritesWouldBeLost(lost, give_up)
        if lost:
            trail.record("writes given up", writes=said, typed=give_up)

    return judge


def _swap(
    control: Connection,
    urls: tuple[str, str],
    kept: str,
    judge: Callable[[list[writes.Lost]], None],
) -> None:
    """Judged once while everybody works, once more when nobody can write; then renamed, both or neither."""
    target, beside = (str(make_url(url).database) for url in urls)
    with connect(urls[0]) as live, connect(urls[1]) as copy:
        judge(writes.lost_writes(live, copy))
        with properties.closed(control, target, {live.info.backend_pid}):
            judge(writes.lost_writes(live, copy))
            live.close()
            copy.close()
            properties.rename(control, ((target, kept), (beside, target)))


def _elsewhere(url: str, target: str) -> str:
    for name in ELSEWHERE:
        there = on_database(url, name)
        if name == target:
            continue
        with suppress(MigrationFault), connect(there):
            return there
    return url


def _old_faults(snapshot: Snapshot) -> bool:
    return any(each.violations for each in snapshot.constraints.values())


def _short(name: str, ending: str) -> str:
    return name.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending


@contextmanager
def _scratch(admin_url: str, database: str) -> Iterator[None]:
    """Room for a scratch database that is dropped in the end; those of killed runs go first."""
    with connect(admin_url) as holder:
        with _in_our_words("no scratch database"):
            properties.claim(holder, database)
            properties.sweep(holder, SCRATCH)
        try:
            yield
        finally:
            with connect(admin_url) as admin:
                properties.drop(admin, database)


@contextmanager
def _dropped_on_failure(admin: Connection, database: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        properties.drop(admin, database)
        raise


@contextmanager
def _in_our_words(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise BackupFault(f"{what}: {' '.join(str(error).split())}") from error
