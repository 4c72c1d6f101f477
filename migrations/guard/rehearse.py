"""The upgrade on the restored copy first: which locks each statement really took, what it rewrote, how long it took.

Roles belong to the whole server: those that the rehearsal made are taken away again.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from psycopg import Connection, sql

from migrations.faults import MigrationFault
from migrations.guard.apply import Applier, StepFailed, TableBusy
from migrations.guard.made_roles import MADE, with_oids
from migrations.guard.policy import Policy
from migrations.guard.statements import Kind, PlannedStep, without_comments
from migrations.guard.trail import Trail
from migrations.guard.watch import LOCKS, Watcher
from migrations.run_lock import connect

# They conflict with ROW EXCLUSIVE: whoever writes waits.
STOPS_WRITERS = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}
LOOK_EVERY_SECONDS = 0.01
TABLES = """
SELECT c.oid, n.nspname || '.' || c.relname, c.relfilenode
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384
    AND n.nspname NOT IN ('pg_toast', 'farebox_migration')
"""
WAITS = """
SELECT wait_event = 'virtualxid' FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'
"""
CREATES_ROLE = re.compile(r"\bCREATE\s+(ROLE|USER|GROUP)\b", re.IGNORECASE)
WORD = re.compile(r"[^\W\d][\w$]*")


class RehearsalRefused(MigrationFault):
    """It failed on the copy, or would cost more than the limits allow; the live database is untouched."""

    exit_code = 23


@dataclass(frozen=True)
class Rehearsed:
    """One statement.  `locks` are (table, mode) that it took beyond those its transaction held;
    `rewrites` are (table, rows)."""

    step: PlannedStep
    sql: str
    ms: float
    locks: tuple[tuple[str, str], ...]
    rewrites: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Rehearsal:
    statements: tuple[Rehearsed, ...]
    seconds: float
    existed: frozenset[str]

    def of(self, step: PlannedStep) -> list[Rehearsed]:
        return [each for each in self.statements if each.step == step]

    def blocks(self) -> list[tuple[PlannedStep, str, float]]:
        """(step, table, ms) for each existing table whose writers wait: from the first such lock to the end."""
        found: dict[tuple[str, int, str], tuple[PlannedStep, str, float]] = {}
        for number, first in enumerate(self.statements):
            for table, mode in first.locks:
                key = (first.step.revision, first.step.number, table)
                if mode not in STOPS_WRITERS or table not in self.existed or key in found:
                    continue
                held = sum(s.ms for s in self.statements[number:] if s.step is first.step)
                found[key] = (first.step, table, round(held, 1))
        return list(found.values())

    def problems(self, policy: Policy) -> list[str]:
        said = [
            f"{step} stops the writers of {table} for {ms:.0f} ms on the copy, longer than"
            f" {policy.block_limit_ms:.0f} ms: split it, or validate and build concurrently"
            for step, table, ms in self.blocks()
            if ms > policy.block_limit_ms
        ]
        said += [
            f"{each.step} rewrites {rows} rows of {table}, more than {policy.rewrite_limit_rows}:"
            " add a new column and fill it in batches"
            for each in self.statements
            for table, rows in each.rewrites
            if table in self.existed and rows > policy.rewrite_limit_rows
        ]
        if self.seconds > policy.rehearsal_limit_seconds:
            said.append(
                f"it took {self.seconds:.0f} s, longer than {policy.rehearsal_limit_seconds:.0f} s"
            )
        return said


def rehearse(
    url: str,
    steps: Sequence[PlannedStep],
    *,
    policy: Policy,
    trail: Trail,
    say: Callable[[str], None],
) -> Rehearsal:
    """Run `steps` on the copy at `url`.  Raises RehearsalRefused when one of them fails there."""
    started = time.monotonic()
    trail.record("rehearsal_started", steps=len(steps))
    with connect(url) as connection:
        recorder = Recorder(connection, url, trail)
        watcher = Watcher(url)
        try:
            applier = Applier(
                connection, watcher, trail, policy, lambda text: None, recorder.around
            )
            applier.apply(steps)
        except (StepFailed, TableBusy) as error:
            trail.record("rehearsal_failed", reason=str(error))
            raise RehearsalRefused(f"on the copy, {error}") from error
        finally:
            watcher.close()
    seconds = round(time.monotonic() - started, 3)
    rehearsal = Rehearsal(tuple(recorder.statements), seconds, frozenset(recorder.existed))
    for each in rehearsal.statements:
        trail.note(
            "rehearsed",
            step=str(each.step),
            sql=each.sql,
            ms=each.ms,
            locks=each.locks,
            rewrites=each.rewrites,
        )
    trail.record("rehearsal_done", seconds=seconds)
    say(f"rehearsed {len(steps)} steps on the restored copy in {seconds:.1f} s")
    return rehearsal


@dataclass
class Recorder:
    """What an Applier does, statement by statement; `url` is for a second connection to look from."""

    connection: Connection
    url: str
    trail: Trail
    statements: list[Rehearsed] = field(default_factory=list)
    existed: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._files = self._read_files()
        self.existed = {name for name, _ in self._files.values()}
        self._held: set[tuple[str, str]] = set()
        self._held_in: PlannedStep | None = None

    @contextmanager
    def around(self, step: PlannedStep, statement: str) -> Iterator[None]:
        if self._held_in is not step:
            self._held, self._held_in = set(), step
        locks: set[tuple[str, str]] = set()
        wrapped = step.kind is Kind.VALIDATION
        if wrapped:
            # Its locks can be read before they are given back only inside a transaction.
            self.connection.execute("BEGIN")
        roles_before = with_oids(self.connection) if CREATES_ROLE.search(statement) else None
        started = time.monotonic()
        try:
            with self._hold(step, locks) as held_ms:
                yield
        except BaseException:
            if wrapped:
                self.connection.execute("ROLLBACK")
            raise
        ms = (time.monotonic() - started) * 1000 - held_ms[0]
        if roles_before is not None:
            # Those that came meanwhile and that the statement does not name are somebody else's.
            named = set(WORD.findall(statement)) - roles_before.keys()
            if made := {r: o for r, o in with_oids(self.connection).items() if r in named}:
                # Before it is committed: whoever is killed now leaves word of it.
                self.trail.record(MADE, roles=made)
        if step.transactional or wrapped:
            locks |= self._locks()
        if wrapped:
            self.connection.execute("COMMIT")
        new = locks - self._held
        self._held |= locks if step.transactional else set()
        shown = " ".join(without_comments(statement).split())
        told = Rehearsed(step, shown, round(ms, 2), tuple(sorted(new)), self._rewritten())
        last = self.statements[-1] if self.statements else None
        if step.kind is Kind.BACKFILL and last is not None and last.step is step:
            # All batches are one line of the plan.
            told = replace(told, ms=round(last.ms + ms, 2), locks=last.locks)
            del self.statements[-1]
        self.statements.append(told)

    def _locks(self) -> set[tuple[str, str]]:
        pid = self.connection.info.backend_pid
        return {(str(t), str(m)) for t, m in self.connection.execute(LOCKS, (pid,)).fetchall()}

    @contextmanager
    def _hold(self, step: PlannedStep, locks: set[tuple[str, str]]) -> Iterator[list[float]]:
        """A concurrent build waits at its end for every older snapshot: hold one, and look what it holds meanwhile."""
        held_ms = [0.0]
        if step.kind is not Kind.INDEX:
            yield held_ms
            return
        with connect(self.url) as holder:
            holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT 1")
            stop = threading.Event()
            pid = self.connection.info.backend_pid

            def look() -> None:
                while not stop.wait(LOOK_EVERY_SECONDS):
                    started = time.monotonic()
                    locks.update((str(t), str(m)) for t, m in holder.execute(LOCKS, (pid,)))
                    row = holder.execute(WAITS, (pid,)).fetchone()
                    if row is not None and row[0]:
                        holder.execute("ROLLBACK")
                        held_ms[0] = (time.monotonic() - started) * 1000
                        return

            looker = threading.Thread(target=look, daemon=True)
            looker.start()
            try:
                yield held_ms
            finally:
                stop.set()
                looker.join()

    def _read_files(self) -> dict[int, tuple[str, int]]:
        return {int(o): (str(n), int(f)) for o, n, f in self.connection.execute(TABLES).fetchall()}

    def _rewritten(self) -> tuple[tuple[str, int], ...]:
        before, self._files = self._files, self._read_files()
        changed = [
            name
            for oid, (name, file) in self._files.items()
            if oid in before and before[oid][1] != file
        ]
        return tuple((name, self._count(name)) for name in changed)

    def _count(self, table: str) -> int:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table.split(".", 1)))
        row = self.connection.execute(query).fetchone()
        return int(row[0]) if row else 0
