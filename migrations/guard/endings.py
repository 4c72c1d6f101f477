"""What ends a run that nobody foresaw, told as what it is: who is in the way, what is full, what went away."""

from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from migrations.faults import CannotReach, LockBusy, MigrationFault
from migrations.guard.exits import ExitCode
from migrations.guard.watch import Blocker
from migrations.run_lock import connect

# What this run did to the schema so far.
Phase = Literal["before", "changing", "after"]
FORESEEN = (MigrationFault, psycopg.Error, DBAPIError, OSError)
SHUT_DOWN = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow)
NO_LOCK = (errors.LockNotAvailable, errors.DeadlockDetected)
FULL = (errors.DiskFull, errors.OutOfMemory, errors.TooManyConnections)
# What keeps even a reader out.
HOLDERS = """
SELECT DISTINCT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'no name'), a.state,
    round(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::numeric, 1)::float,
    left(a.query, 200)
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
    AND l.pid <> pg_backend_pid() AND a.datname = current_database()
"""


class ConnectionLost(MigrationFault):
    """What was committed stands, what was not is undone; the ledger knows which."""

    exit_code = ExitCode.FAILED_RESUMABLE


class StoppedMidway(ConnectionLost):
    """The database is there; a statement or a file of ours failed."""


class Stopped(MigrationFault):
    """Nothing of the live database was changed."""

    exit_code = ExitCode.REFUSED_BY_PREFLIGHT


class StoppedAtBackup(Stopped):
    exit_code = ExitCode.REFUSED_BY_BACKUP


class StoppedAtRehearsal(Stopped):
    exit_code = ExitCode.REFUSED_BY_REHEARSAL


STOPPED = {
    "backup": StoppedAtBackup,
    "restore test": StoppedAtBackup,
    "rehearsal": StoppedAtRehearsal,
}
STANDS: dict[Phase, str] = {
    "before": "nothing was changed",
    "changing": "what was done stands: run again",
    "after": "the schema is this release's and was found good, what follows it was cut short: run again",
}


@dataclass(frozen=True)
class Where:
    """How far the run against the database of `url` was."""

    url: str
    stage: str
    phase: Phase


def fault_of(error: Exception, where: Where) -> MigrationFault:
    """`error` itself where it says all; it is one of `FORESEEN`."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        error = error.orig
    if isinstance(error, MigrationFault):
        if not isinstance(error, CannotReach) or where.phase != "changing":
            return error
        return _lost(str(error).removeprefix("cannot reach the database: "), where)
    if isinstance(error, OSError):
        return _stopped(_file(error), where)
    said = " ".join(str(error).split())
    if isinstance(error, psycopg.Error) and _is_gone(error):
        return _lost(said, where)
    if isinstance(error, NO_LOCK):
        return LockBusy(
            f"no lock in time (stage {where.stage}): {said}; in the way: {_holders(where.url)};"
            f" {STANDS[where.phase]}"
        )
    what = "the server has no room" if isinstance(error, FULL) else "the server ended a statement"
    return _stopped(f"{what}: {said}", where)


def _is_gone(error: psycopg.Error) -> bool:
    if isinstance(error, SHUT_DOWN):
        return True
    own = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return own and (error.sqlstate or "08").startswith("08")


def _lost(said: str, where: Where) -> MigrationFault:
    if where.phase == "changing":
        return ConnectionLost(f"the database went away: {said}; run again when it answers")
    return CannotReach(f"the database went away: {said}; {STANDS[where.phase]}")


def _stopped(what: str, where: Where) -> MigrationFault:
    said = f"{what} (stage {where.stage}); {STANDS[where.phase]}"
    if where.phase != "before":
        return StoppedMidway(said)
    return STOPPED.get(where.stage, Stopped)(said)


def _file(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else "a file of the audit or of a backup: "
    return f"cannot go on without its files: {name}{error.strerror or error}"


def _holders(url: str) -> str:
    try:
        with connect(url) as connection:
            found = [Blocker(*row) for row in connection.execute(HOLDERS)]
    except (MigrationFault, psycopg.Error) as error:
        return f"cannot be asked now ({' '.join(str(error).split())})"
    return "; ".join(map(str, found)) or "nobody that is still there"
