"""One migration job per database at a time: a session lock on a connection of its own.

The connection is in autocommit, so that it never holds a snapshot which a concurrent index build waits for.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection

from migrations.faults import CannotReach, LockBusy, PoolerBetween

# Any number will do, as long as every release of the job takes the same one.
LOCK_KEY = 7_274_003
POLL_SECONDS = 0.5
CONNECT_TIMEOUT_SECONDS = 10

HOLDER = """
SELECT format('process %%s of %%s (%%s) since %%s', a.pid, a.usename,
    coalesce(nullif(a.application_name, ''), 'no name'), date_trunc('second', a.backend_start))
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32) | l.objid::bigint = %s
"""


def connect(url: str) -> Connection:
    """An autocommit connection.  Raises CannotReach with libpq's own words on one line."""
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            application_name="farebox-migrate",
        )
    except psycopg.OperationalError as error:
        raise CannotReach("cannot reach the database: " + " ".join(str(error).split())) from error


@contextmanager
def run_lock(
    url: str, *, wait_seconds: float, on_wait: Callable[[str], None]
) -> Iterator[Connection]:
    """Hold the lock for the length of the block; `on_wait` is told once who holds it.  Raises LockBusy."""
    with connect(url) as connection:
        _prove_direct(connection)
        _take(connection, wait_seconds, on_wait)
        try:
            yield connection
        finally:
            # A lost connection has released the lock already.
            if not connection.broken and not connection.closed:
                _give_back(connection)


def _prove_direct(connection: Connection) -> None:
    """A pooler greets its clients with a process number of its own making."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        raise PoolerBetween(
            "a pooler stands in front of the database: locks and settings would belong to"
            " somebody else; give the URL of PostgreSQL itself"
        )


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
