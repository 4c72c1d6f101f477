"""One migration job per database at a time: a session lock on a connection of its own.

The connection is in autocommit, so that it never holds a snapshot which a concurrent index build waits for.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection

from migrations.faults import CannotReach, LockBusy, NotAUrl, PoolerBetween

# Any number will do, as long as every release of the job takes the same one.
LOCK_KEY = 7_274_003
POLL_SECONDS = 0.5
CONNECT_TIMEOUT_SECONDS = 10
APPLICATION = "farebox-migrate"
# PostgreSQL cuts names there.
NAME_LENGTH = 63

HOLDER = """
SELECT format('process %%s of %%s (%%s) from %%s%%s', a.pid, a.usename,
    coalesce(nullif(a.application_name, ''), 'no name'), coalesce(host(a.client_addr), 'an unseen address'),
    ', connected since ' || date_trunc('second', a.backend_start))
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""

# What a server or libpq says, and what to do about it; the first that fits.
REMEDIES = (
    (("password", "authentication"), "check user and password; in a password @ is written %40"),
    (("permission denied for database",), "GRANT CONNECT ON DATABASE … TO this user"),
    (
        ("not currently accepting connections",),
        "if a restore was killed, `migration_utils.py reopen` opens it",
    ),
    (("does not exist",), "create it, or correct the URL"),
    (("pg_hba.conf",), "the server wants a line for this user and host in its pg_hba.conf"),
    (("starting up", "shutting down", "not yet accepting", "recovery"), "run again when it is up"),
    (
        ("too many", "connection slots"),
        "run again when connections are free, or raise max_connections",
    ),
    (("sslmode", "ssl", "certificate"), "look at sslmode and sslrootcert in the URL"),
    (("resolve host", "translate host", "name or service"), "correct the host's name in the URL"),
    (
        ("refused", "no such file"),
        "see that the server runs, and listens on the host and port of the URL",
    ),
    (
        ("timeout", "timed out", "unreachable", "no route"),
        "see that the server runs and that no firewall stands between",
    ),
)
ANY_REMEDY = "check the URL, that the server runs, and that no firewall stands between"


def connect(url: str, application: str = APPLICATION) -> Connection:
    """An autocommit connection.  Raises CannotReach with libpq's own words on one line, and what to do."""
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name=application,
            # As the SQL is sent, whatever the database's own encoding is.
            client_encoding="utf8",
        )
    except psycopg.OperationalError as error:
        said = " ".join(str(error).split())
        raise CannotReach(f"cannot reach the database: {said}; {remedy(said)}") from error
    except psycopg.ProgrammingError as error:
        raise NotAUrl from error


def remedy(said: str) -> str:
    plain = said.lower()
    fitting = (does for words, does in REMEDIES if any(each in plain for each in words))
    return next(fitting, ANY_REMEDY)


@contextmanager
def run_lock(
    url: str, *, wait_seconds: float, on_wait: Callable[[str], None]
) -> Iterator[Connection]:
    """Hold the lock for the length of the block; `on_wait` is told once who holds it.  Raises LockBusy."""
    with connect(url, _who()) as connection:
        _prove_direct(connection)
        _take(connection, wait_seconds, on_wait)
        try:
            yield connection
        finally:
            # A lost connection has released the lock already.
            if not connection.broken and not connection.closed:
                _give_back(connection)


def _prove_direct(connection: Connection) -> None:
    """A pooler greets its clients with a process number of its own making, whatever its mode; which mode it is in
    cannot be proven from here."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        raise PoolerBetween(
            "a pooler stands in front of the database: locks and settings would belong to"
            " somebody else; give the URL of PostgreSQL itself"
        )


def _who() -> str:
    """For whoever finds the lock taken: the machine (a pod's name) and the process there."""
    here = socket.gethostname().encode("ascii", "replace").decode()
    ending = f" process {os.getpid()}"
    return f"{APPLICATION} on {here}"[: NAME_LENGTH - len(ending)] + ending


def _take(connection: Connection, wait_seconds: float, on_wait: Callable[[str], None]) -> None:
    give_up_at = time.monotonic() + wait_seconds
    told = False
    while not _one(connection, "SELECT pg_try_advisory_lock(%s)"):
        holder = _one(connection, HOLDER) or "a process that has just ended"
        if time.monotonic() >= give_up_at:
            raise LockBusy(f"another migration job runs: {holder}; try again when it has ended")
        if not told:
            on_wait(f"waiting for another migration job: {holder}")
            told = True
        time.sleep(POLL_SECONDS)


def _give_back(connection: Connection) -> None:
    if not _one(connection, "SELECT pg_advisory_unlock(%s)"):
        raise CannotReach(
            "the run lock was not ours to give back: connect to PostgreSQL itself,"
            " not to a pooler in transaction mode"
        )


def _one(connection: Connection, query: str) -> object:
    row = connection.execute(query, (LOCK_KEY,)).fetchone()
    return row[0] if row else None
