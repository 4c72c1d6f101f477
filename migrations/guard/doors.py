"""A database's doors: shut while a copy takes its place, and opened again whatever ends the restore.

That they are shut is written on the copy, in the same transaction: the server knows it even when whoever
shut them was killed, and the next restore, or `reopen`, puts it right.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import Connection

from migrations.faults import CannotReach, LockBusy
from migrations.guard import properties
from migrations.guard.manifest import BackupFault
from migrations.run_lock import connect

NAME_BYTES = 63
STAMP = r"\d{8}_\d{6}_[0-9a-f]{4}"
SHUT = properties.OURS + "{} is shut until this copy takes its place"
PUT_OUT_PAUSE_SECONDS = 0.1
# Every second more is one without a database.
PUT_OUT_PATIENCE_SECONDS = 30.0
# A server that restarts replays at most its last checkpoint's log.
REOPEN_PATIENCE_SECONDS = 60.0
REOPEN_PAUSE_SECONDS = 0.5

SHUTTERS = """
SELECT d.datname, EXISTS (SELECT FROM pg_stat_activity WHERE application_name = d.datname)
FROM pg_database d WHERE shobj_description(d.oid, 'pg_database') = %s
"""
PUT_OUT = """
SELECT pg_terminate_backend(pid, 5000),
    format('%%s of %%s (%%s)', pid, usename, coalesce(nullif(application_name, ''), backend_type))
FROM pg_stat_activity WHERE datname = %s AND pid <> ALL (%s) AND backend_type = 'client backend'
"""


class StillShut(BackupFault):
    def __init__(self, database: str) -> None:
        super().__init__(f"{database} is as it was but takes no connections: {opening(database)}")


def opening(database: str) -> str:
    """What to do about one that is shut."""
    return f'`migration_utils.py reopen`, or ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'


@dataclass(frozen=True)
class Names:
    """`beside` takes the place of `target`, which is kept as `kept`."""

    target: str
    beside: str
    kept: str

    @classmethod
    def of(cls, target: str, stamp: str) -> "Names":
        return cls(
            target, *(_short(target, f"_{w}_{stamp}") for w in ("restored", "before_restore"))
        )


def copies_of(target: str) -> re.Pattern[str]:
    """Names of the copies that restores make to take its place, and of nothing that a person would name."""
    stem = _short(target, "_restored_00000000_000000_0000").removesuffix("00000000_000000_0000")
    return re.compile(re.escape(stem) + STAMP)


def recover(control: Connection, target: str) -> bool:
    """Open `target` if a killed restore left it shut; whether one had.  Raises LockBusy while one is at work."""
    left = control.execute(SHUTTERS, (SHUT.format(target),)).fetchall()
    for copy, claimed in left:
        if claimed:
            raise LockBusy(f"{copy} takes the place of {target} at this moment: try again")
    if not left or properties.is_open(control, target):
        return False
    properties.allow(control, target, True)
    return True


@contextmanager
def shut(control: Connection, elsewhere: str, names: Names, staying: set[int]) -> Iterator[None]:
    """Nobody new comes in, all but the backends `staying` are put out; opened again when the block fails."""
    try:
        with control.transaction():
            properties.allow(control, names.target, False)
            properties.comment(control, names.beside, SHUT.format(names.target))
        _put_out(control, names.target, staying)
        yield
    except BaseException:
        _open_again(control, elsewhere, names.target)
        raise


def _put_out(control: Connection, database: str, staying: set[int]) -> None:
    give_up_at = time.monotonic() + PUT_OUT_PATIENCE_SECONDS
    # One that was just logging in shows up a moment later.
    while there := control.execute(PUT_OUT, (database, list(staying))).fetchall():
        if time.monotonic() >= give_up_at:
            who = ", ".join(name for _, name in there[:5])
            raise BackupFault(f"process {who} did not leave {database}; end it and try again")
        time.sleep(PUT_OUT_PAUSE_SECONDS)


def _open_again(control: Connection, elsewhere: str, database: str) -> None:
    try:
        properties.allow(control, database, True)
        return
    except psycopg.OperationalError:
        # The server restarts: this connection is gone, the next may be had in a moment.
        give_up_at = time.monotonic() + REOPEN_PATIENCE_SECONDS
    while True:
        try:
            with connect(elsewhere) as again:
                properties.allow(again, database, True)
            return
        except (CannotReach, psycopg.OperationalError) as error:
            if time.monotonic() >= give_up_at:
                raise StillShut(database) from error
        time.sleep(REOPEN_PAUSE_SECONDS)


def swap(control: Connection, names: Names) -> None:
    """Both names or neither; what was said of the database goes with its name."""
    with control.transaction():
        said = properties.comment_of(control, names.target)
        properties.rename(control, names.target, names.kept)
        take_place(control, names, said)


def take_place(control: Connection, names: Names, said: str | None = None) -> None:
    """`said` of the database, in place of the mark of a copy."""
    with control.transaction():
        properties.rename(control, names.beside, names.target)
        properties.comment(control, names.target, said)


def _short(name: str, ending: str) -> str:
    return name.encode()[: NAME_BYTES - len(ending)].decode(errors="ignore") + ending
