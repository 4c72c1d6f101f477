"""A second connection that looks at the first while it works: who blocks it, which locks it holds, how far it is.

And who waits behind it: for longer than the limit, and its statement is cancelled.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import Connection

from migrations.guard.progress import Count, uncounted
from migrations.guard.working import tell_build
from migrations.run_lock import connect

# Short beside a lock_timeout, long beside the query itself.
LOOK_EVERY_SECONDS = 0.05

BLOCKERS = """
SELECT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'no name'), a.state,
    round(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.query_start))::numeric, 1)::float,
    left(a.query, 200)
FROM unnest(pg_blocking_pids(%s)) AS b(pid) JOIN pg_stat_activity a ON a.pid = b.pid
"""
LOCKS = """
SELECT n.nspname || '.' || c.relname, l.mode
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = %s AND l.locktype = 'relation' AND l.granted AND c.relkind IN ('r', 'p', 'm')
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema', 'farebox_migration')
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# pg_blocking_pids() is dear: asked only for those who wait too long.
STALLED = """
WITH waiting AS MATERIALIZED (
    SELECT pid, extract(epoch FROM clock_timestamp() - waitstart)::float AS seconds FROM pg_locks
    WHERE NOT granted AND pid <> %(pid)s AND waitstart < clock_timestamp() - make_interval(secs => %(limit)s)
)
SELECT seconds, pg_cancel_backend(%(pid)s) FROM waiting WHERE %(pid)s = ANY (pg_blocking_pids(pid)) LIMIT 1
"""


@dataclass(frozen=True)
class Blocker:
    pid: int
    user: str
    application: str
    state: str
    transaction_seconds: float
    query: str

    def __str__(self) -> str:
        return (
            f"process {self.pid} of {self.user} ({self.application}), {self.state}"
            f" for {self.transaction_seconds:.1f} s: {' '.join(self.query.split())}"
        )


@dataclass
class Seen:
    """What was seen during one attempt; the last blockers, every lock.

    `stalled_seconds`: how long others had waited behind it when it was cancelled for that.
    """

    blockers: tuple[Blocker, ...] = ()
    waited_seconds: float = 0.0
    stalled_seconds: float = 0.0
    locks: set[tuple[str, str]] = field(default_factory=set)


class Watcher:
    """Looks from a thread of its own, only while `during` is open; losing its connection loses the view, not the run."""

    def __init__(self, url: str, progress: Count = uncounted) -> None:
        self._connection: Connection = connect(url)
        self._progress = progress

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def during(self, pid: int, seen: Seen, stall_ms: int | None) -> Iterator[None]:
        """Fills `seen`, and cancels what `pid` does once somebody has waited `stall_ms` behind it."""
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(pid, seen, stall_ms, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            # No cancel comes after this: the statement that follows is another one.
            stop.set()
            thread.join()

    def _look(self, pid: int, seen: Seen, stall_ms: int | None, stop: threading.Event) -> None:
        while not stop.wait(LOOK_EVERY_SECONDS):
            try:
                if stall_ms is not None:
                    self._relieve(pid, seen, stall_ms)
                self._once(pid, seen)
            except psycopg.Error:
                return

    def _relieve(self, pid: int, seen: Seen, stall_ms: int) -> None:
        given = {"pid": pid, "limit": stall_ms / 1000}
        row = self._connection.execute(STALLED, given).fetchone()
        if row is not None:
            seen.stalled_seconds = max(seen.stalled_seconds, float(row[0]))

    def _once(self, pid: int, seen: Seen) -> None:
        found = tuple(Blocker(*row) for row in self._connection.execute(BLOCKERS, (pid,)))
        if found:
            seen.blockers = found
            seen.waited_seconds += LOOK_EVERY_SECONDS
        seen.locks |= set(self._connection.execute(LOCKS, (pid,)).fetchall())
        tell_build(self._connection, pid, self._progress)
