"""A backup brought back: beside what is there, checked, and only then put in its place by renaming.

The database that was there is kept under another name.  Writes that the backup has not are shown, and given up
only by typing which.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import Connection
from sqlalchemy.engine import make_url

from migrations.faults import MigrationFault
from migrations.guard import compare, doors, properties, writes
from migrations.guard.backup import JOBS, PARALLEL_FROM_BYTES, verify
from migrations.guard.exits import ExitCode
from migrations.guard.manifest import TESTED, Backup, BackupFault, write
from migrations.guard.progress import Say, SizeWatch, silent
from migrations.guard.snapshot import Snapshot, take
from migrations.guard.tools import ToolFailed, find_tools, on_database, run_tool, server_major
from migrations.guard.trail import Trail
from migrations.run_lock import connect, run_lock
from shared.clock import Clock, utc_now

APPLICATION = "farebox-restore-"
SCRATCH = "farebox_scratch_"
SCRATCHES = re.compile(SCRATCH + "[0-9a-f]{8}")
# Where one stands to rename a database; every server has at least one of them.
ELSEWHERE = ("postgres", "template1")
# As PostgreSQL writes a grant: role=letters/giver, an empty role is everybody.
GRANT = re.compile(r'("(?:[^"]|"")*"|[^"=]*)=[^/]*/(.*)')
MISSING_ROLES = "SELECT name FROM unnest(%s::text[]) name WHERE to_regrole(name) IS NULL ORDER BY 1"


class WritesWouldBeLost(BackupFault):
    """`phrase` is what to type; `lost` what is behind it.  The database is as it was."""

    exit_code = ExitCode.REFUSED_BY_PREFLIGHT

    def __init__(self, lost: list[writes.Lost], given: str | None, whose: str = "") -> None:
        self.lost = lost
        self.phrase = writes.phrase(lost)
        wrong = "" if given is None else f"; {given!r} is not what would be lost now"
        super().__init__(
            f"refused: the database holds what the backup{whose} has not{wrong}."
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
    """`kept` is the database that was there before, None if there was none; nobody could connect for `shut_seconds`.

    `reopened`: a restore that was killed had left it shut.
    """

    database: str
    kept: str | None
    given_up: str
    differences: list[compare.Difference]
    shut_seconds: float = 0.0
    reopened: bool = False


@dataclass(frozen=True)
class _Place:
    """What it takes to put a copy in a database's place: connections elsewhere and `alone`, the run lock's."""

    control: Connection
    elsewhere: str
    names: doors.Names
    alone: Connection


def restore_into(backup: Backup, admin_url: str, database: str, *, progress: Say = silent) -> str:
    """Make `database` on the server of `admin_url` from the backup; returns its URL.  Raises MigrationFault.

    What fails leaves no database.
    """
    url = on_database(admin_url, database)
    with _in_our_words(f"{backup.path} could not be restored"), connect(admin_url) as admin:
        tools = find_tools(server_major(admin))
        verify(backup, tools)
        _require_roles(admin, backup)
        properties.create_like(admin, make_url(admin_url).database or "", database)
        application = f"{APPLICATION}{secrets.token_hex(4)}"
        size = backup.manifest.data_bytes
        grown = SizeWatch(admin, database, backup.manifest.database_bytes or size, progress)
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
                run_tool(command, url, name=application, on_poll=grown.look)
            except ToolFailed as failed:
                if not (tolerant and "errors ignored on restore" in failed.said):
                    raise BackupFault(f"{backup.path} could not be restored: {failed}") from failed
            properties.dress_like(admin, str(make_url(admin_url).database), database)
        grown.done()
    return url


def check_copy(backup: Backup, url: str, progress: Say = silent) -> Copy:
    """Compare what was restored with what was dumped."""
    with connect(url) as connection:
        snapshot = take(connection, contents=True, progress=progress)
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
        copy = check_copy(backup, url, progress)
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
    names = doors.Names.of(target, f"{clock():%Y%m%d_%H%M%S}_{secrets.token_hex(2)}")
    elsewhere = _elsewhere(url, target)
    shut_seconds = 0.0
    with _in_our_words("nothing was restored"), connect(elsewhere) as control:
        properties.claim(control, names.beside)
        reopened = _clear_away(control, target, trail)
        there = properties.exists(control, target)
        if there and not properties.is_open(control, target):
            raise BackupFault(f"{target} takes no connections; {doors.opening(target)}")
        with _alone(url, there) as alone:
            trail.record("restore started", path=backup.path, database=target, beside=names.beside)
            base = url if there else elsewhere
            copy_url = restore_into(backup, base, names.beside, progress=progress)
            with _dropped_on_failure(control, names.beside):
                differences = _right(backup, copy_url, progress)
                if alone is None:
                    doors.take_place(control, names)
                else:
                    place = _Place(control, elsewhere, names, alone)
                    judge = _judge(give_up, backup.manifest.database, (target, trail))
                    shut_seconds = _swap(place, (url, copy_url), judge)
    kept = names.kept if there else None
    facts = {"kept": kept, "given_up": give_up or "", "shut_seconds": shut_seconds}
    trail.record("restored", path=backup.path, database=target, **facts)
    return Restored(target, kept, give_up or "", differences, shut_seconds, reopened)


def reopen(url: str, *, trail: Trail) -> bool:
    """Open the database that a killed restore left shut, drop its copy; whether it was shut.  Raises MigrationFault."""
    target = str(make_url(url).database)
    with _in_our_words(f"{target} was not opened"), connect(_elsewhere(url, target)) as control:
        if not properties.exists(control, target):
            raise BackupFault(f"there is no database {target}")
        reopened = _clear_away(control, target, trail)
        if properties.is_open(control, target):
            return reopened
        properties.allow(control, target, True)
        trail.record("reopened", database=target, why="it was asked for")
    return True


def _clear_away(control: Connection, target: str, trail: Trail) -> bool:
    """What restores that were killed left: shut doors, copies.  Whether the doors were shut."""
    reopened = doors.recover(control, target)
    if reopened:
        trail.record("reopened", database=target, why="a restore was killed while it was shut")
    properties.sweep(control, doors.copies_of(target))
    return reopened


@contextmanager
def _alone(url: str, there: bool) -> Iterator[Connection | None]:
    """No migration and no other restore of the same database meanwhile; None where there is none yet."""
    if not there:
        yield None
        return
    with run_lock(url, wait_seconds=0, on_wait=lambda text: None) as connection:
        yield connection


def _right(backup: Backup, copy_url: str, progress: Say) -> list[compare.Difference]:
    differences = check_copy(backup, copy_url, progress).differences
    if new := compare.faults(differences):
        raise BackupFault(f"the restored copy is wrong: {'; '.join(map(str, new[:5]))}")
    return differences


def _judge(
    give_up: str | None, origin: str, where: tuple[str, Trail]
) -> Callable[[list[writes.Lost]], None]:
    target, trail = where
    whose = "" if origin == target else f" (of {origin}, not of {target})"

    def judge(lost: list[writes.Lost]) -> None:
        # Rows themselves are shown to whoever decides; they may be personal, and the trail stays.
        said = writes.phrase(lost)
        if lost and said != give_up:
            trail.record("restore refused", writes=said, typed=give_up)
            raise WritesWouldBeLost(lost, give_up, whose)
        if lost:
            trail.record("writes given up", writes=said, typed=give_up)

    return judge


def _swap(
    place: _Place, urls: tuple[str, str], judge: Callable[[list[writes.Lost]], None]
) -> float:
    """Judged once while everybody works, once more when nobody can write; then renamed, both or neither.

    Returns the seconds for which nobody could connect.
    """
    control, names = place.control, place.names
    with connect(urls[0]) as live, connect(urls[1]) as copy:
        first = writes.look(live, copy)
        judge(first.lost)
        staying = {live.info.backend_pid, place.alone.info.backend_pid}
        started = time.monotonic()
        with doors.shut(control, place.elsewhere, names, staying):
            judge(writes.look(live, copy, first).lost)
            for each in (live, copy, place.alone):
                each.close()
            doors.swap(control, names)
    return round(time.monotonic() - started, 3)


def _require_roles(admin: Connection, backup: Backup) -> None:
    """pg_restore names but the first that is missing, and only when the rows are in."""
    named = [
        GRANT.fullmatch(each)
        for grant in backup.manifest.snapshot.grants.values()
        for each in grant
    ]
    roles = sorted({role for found in named if found for role in found.groups() if role})
    missing = [str(row[0]) for row in admin.execute(MISSING_ROLES, (roles,)).fetchall()]
    if missing:
        wanted = "; ".join(f"CREATE ROLE {each}" for each in missing)
        raise BackupFault(f"this server has not the roles that the backup's grants name: {wanted}")


def _elsewhere(url: str, target: str) -> str:
    for name in ELSEWHERE:
        there = on_database(url, name)
        if name == target:
            continue
        with suppress(MigrationFault), connect(there):
            return there
    # It says why, if it is the server; a database that we stand in cannot be renamed.
    with connect(url) as connection:
        user = connection.info.user
    raise BackupFault(
        f"{user} can connect to none of {', '.join(ELSEWHERE)}, and {target} cannot be renamed from"
        f" within: GRANT CONNECT ON DATABASE {ELSEWHERE[0]} TO {user}"
    )


def _old_faults(snapshot: Snapshot) -> bool:
    return any(each.violations for each in snapshot.constraints.values())


@contextmanager
def _scratch(admin_url: str, database: str) -> Iterator[None]:
    """Room for a scratch database that is dropped in the end; those of killed runs go first."""
    with connect(admin_url) as holder:
        with _in_our_words("no scratch database"):
            properties.claim(holder, database)
            properties.sweep(holder, SCRATCHES)
        try:
            yield
        finally:
            with connect(admin_url) as admin:
                properties.drop(admin, database)


def sweep_copies(admin_url: str) -> None:
    """Drop the scratch databases of killed runs.  Raises BackupFault."""
    with connect(admin_url) as admin, _in_our_words("no scratch database"):
        properties.sweep(admin, SCRATCHES)


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
