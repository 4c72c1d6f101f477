"""Steps onto the database: short waits, bounded attempts, nothing twice.

A transactional step is undone by PostgreSQL when it fails.  Another step's leftovers are taken away and its
row in the ledger stays open: a second run goes on there.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import psycopg
from psycopg import Connection, errors, sql

from migrations.faults import MigrationFault
from migrations.guard import ledger
from migrations.guard.ledger import Entry
from migrations.guard.leftovers import left_by
from migrations.guard.policy import Limits, Policy
from migrations.guard.progress import Count, uncounted
from migrations.guard.statements import Kind, PlannedStep, is_version_change, without_comments
from migrations.guard.trail import Trail
from migrations.guard.watch import Seen, Watcher
from migrations.guard.working import rows_of

# Nothing was changed and the next attempt may do: lock_timeout, deadlock, serialization.
BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure)
# What a statement says whose first run was cut short after its work and before its row in the ledger.
DONE_BEFORE = (
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateColumn,
    errors.UndefinedObject,
    errors.UndefinedTable,
    errors.UndefinedColumn,
)
# Tables and indexes; what this transaction wrote into the catalogue are new ones and changed ones.
RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'i', 'm', 'v')
"""
TOUCHED = RELATIONS + " AND c.xmin = pg_current_xact_id()::xid"
SET_LIMITS = """
SELECT pg_catalog.set_config('lock_timeout', %s, %s), pg_catalog.set_config('statement_timeout', %s, %s)
"""
SHOW_LIMITS = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
# Entered for each execution of a statement: what a rehearsal measures with.
Around = Callable[[PlannedStep, str], AbstractContextManager[None]]
UNITS_MS = {"": 1, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
SHOWN = 300


class TableBusy(MigrationFault):
    """No attempt had its lock in time; the step changed nothing."""

    exit_code = 4

    def __init__(self, step: PlannedStep, attempts: int, seen: Seen) -> None:
        who = "; ".join(map(str, seen.blockers))
        tried = f"{attempts} attempts"
        if not seen.stalled_seconds:
            said = f"no lock in {tried}; in the way: {who or 'nobody that is still there'}"
        elif who:
            said = f"cancelled in {tried}, as {_behind(seen)}; in the way: {who}"
        else:
            said = f"cancelled in {tried}, as {_behind(seen)}: split it, or choose a quieter time"
        super().__init__(f"{step}: {said}")
        self.blockers = seen.blockers


class StepFailed(MigrationFault):
    """`step` changed nothing that remains, or, outside a transaction, nothing that the old code minds."""

    exit_code = 41

    def __init__(self, step: PlannedStep, reason: str) -> None:
        super().__init__(f"{step} failed: {reason}")
        self.step = step


class LimitsNotInForce(MigrationFault):
    """A SET did not reach the connection that locks: a pooler is in between, or the SQL changed it."""

    exit_code = 20


@dataclass
class Applier:
    """One run's way of executing; `connection` is in autocommit and holds the run lock."""

    connection: Connection
    watcher: Watcher
    trail: Trail
    policy: Policy
    say: Callable[[str], None]
    around: Around = lambda step, statement: nullcontext()
    chance: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], None] = time.sleep
    progress: Count = uncounted

    def apply(self, steps: Sequence[PlannedStep]) -> None:
        """All that is not done yet.  Raises TableBusy, StepFailed, OtherSql."""
        ledger.create(self.connection)
        self.connection.execute("SET search_path = pg_catalog")
        believed, stale = ledger.done_already(ledger.open_entries(self.connection), steps)
        if stale:
            self.trail.record("ledger_stale", revisions=sorted(stale))
            ledger.close(self.connection, stale)
        for step in steps:
            entry = believed.get((step.revision, step.number))
            if entry is not None and entry.state == "done":
                self.say(f"{step}: done by an earlier run")
                self.trail.record("step_skipped", step=str(step), reason="done by an earlier run")
                continue
            self._step(step, entry)

    def aside(self, steps: Sequence[PlannedStep]) -> None:
        """Steps that no later run asks for, whatever else is under way.  Raises TableBusy, StepFailed."""
        ledger.create(self.connection)
        self.connection.execute("SET search_path = pg_catalog")
        for step in steps:
            self._step(step, None)
            ledger.close(self.connection, [step.revision])

    def _step(self, step: PlannedStep, entry: Entry | None) -> None:
        started = time.monotonic()
        self.trail.record("step_started", step=str(step), what=step.kind, checksum=step.checksum)
        for attempt in range(1, self.policy.attempts + 1):
            seen = Seen()
            try:
                self._attempt(step, entry, seen)
            except (*BUSY, errors.QueryCanceled) as error:
                self._busy(step, attempt, error, seen)
            else:
                took_ms = round((time.monotonic() - started) * 1000, 1)
                self.trail.record("step_done", step=str(step), ms=took_ms, attempts=attempt)
                self.say(f"{step} ({took_ms:.0f} ms)")
                return

    def _attempt(self, step: PlannedStep, entry: Entry | None, seen: Seen) -> None:
        try:
            if step.transactional:
                self._transaction(step, seen)
            else:
                self._alone(step, entry, seen)
        except psycopg.Error as error:
            relieved = bool(seen.stalled_seconds) and isinstance(error, errors.QueryCanceled)
            if isinstance(error, BUSY) or relieved:
                self._clean(step)
                raise
            reason = " ".join(str(error).split())
            self.trail.record("step_failed", step=str(step), sqlstate=error.sqlstate, reason=reason)
            self._take_leftovers(step)
            raise StepFailed(step, reason) from error

    def _take_leftovers(self, step: PlannedStep) -> None:
        try:
            self._clean(step)
            if not step.transactional:
                ledger.forget(self.connection, step)
        except psycopg.Error as error:
            # Most of all a connection that is gone; the next run cleans first.
            self.trail.record("cleaning_failed", step=str(step), reason=str(error))

    def _busy(self, step: PlannedStep, attempt: int, error: psycopg.Error, seen: Seen) -> None:
        reason = " ".join(str(error.diag.message_primary or error).split())
        if seen.stalled_seconds:
            reason = f"cancelled: {_behind(seen)}"
        who = "; ".join(map(str, seen.blockers))
        last = attempt == self.policy.attempts
        pause = 0.0 if last else self.policy.pause_seconds(attempt, self.chance)
        self.trail.record(
            "lock_busy", step=str(step), attempt=attempt, reason=reason, blockers=who, pause_s=pause
        )
        if last:
            self._take_leftovers(step)
            raise TableBusy(step, attempt, seen) from error
        self.say(
            f"{step}: {reason}; attempt {attempt} of {self.policy.attempts}"
            + (f"; in the way: {who}" if who else "")
            + f"; trying again in {pause:.1f} s"
        )
        self.sleep(pause)

    def _transaction(self, step: PlannedStep, seen: Seen) -> None:
        before = _names(self.connection, RELATIONS)
        with self._watched(step, seen), self.connection.transaction():
            limits = self.policy.limits(step.kind)
            for statement in step.statements:
                self._set(limits, local=True)
                self._execute(step, statement, seen)
            ledger.note_transaction(self.connection)
            created = _names(self.connection, TOUCHED) - before
            ledger.finish(self.connection, self.trail.run, step, sorted(created))
            self.trail.note("commit", step=str(step))

    def _alone(self, step: PlannedStep, entry: Entry | None, seen: Seen) -> None:
        self._set(self.policy.limits(step.kind), local=False)
        resumed = entry is not None
        ledger.begin(self.connection, self.trail.run, step)
        self._clean(step)
        if step.writes:
            # With its row in the ledger, else a run that is killed in between would write twice.
            with self._watched(step, seen), self.connection.transaction():
                self._execute(step, step.statements[0], seen)
                ledger.note_transaction(self.connection)
                ledger.finish(self.connection, self.trail.run, step)
            return
        if step.kind is Kind.BACKFILL:
            self._batches(step, entry, seen)
        else:
            try:
                with self._watched(step, seen):
                    self._execute(step, step.statements[0], seen)
            except DONE_BEFORE as error:
                if not resumed:
                    raise
                self.trail.record("done_before", step=str(step), reason=str(error))
        ledger.finish(self.connection, self.trail.run, step)

    def _batches(self, step: PlannedStep, entry: Entry | None, seen: Seen) -> None:
        """Each batch commits with its count; a batch that finds no row is the last."""
        total = entry.rows_changed if entry is not None else 0
        estimated = rows_of(self.connection, without_comments(step.statements[0]))
        while True:
            started = time.monotonic()
            with self._watched(step, seen), self.connection.transaction():
                rows = self._execute(step, step.statements[0], seen)
                ledger.count(self.connection, step, rows)
                ledger.note_transaction(self.connection)
            if rows == 0:
                self.progress(f"backfill {step.revision}", "all rows", total, total)
                self.say(f"{step}: {total:,} rows")
                return
            total += rows
            # An estimate may be too low; of the table, it is often too high.
            self.progress(f"backfill {step.revision}", "rows", total, max(total, estimated))
            self.sleep((time.monotonic() - started) * self.policy.batch_pause_share)

    def _watched(self, step: PlannedStep, seen: Seen) -> AbstractContextManager[None]:
        """To the end of the transaction: what waits behind it, waits until then."""
        pid, limits = self.connection.info.backend_pid, self.policy.limits(step.kind)
        return self.watcher.during(pid, seen, limits.stall_ms)

    def _execute(self, step: PlannedStep, statement: str, seen: Seen) -> int:
        shown = " ".join(without_comments(statement).split())[:SHOWN]
        self.trail.note("statement", sql=shown)
        started, waited = time.monotonic(), seen.waited_seconds
        with self.around(step, statement):
            rows = self.connection.execute(statement.encode()).rowcount
        took_ms = round((time.monotonic() - started) * 1000, 1)
        waited = round(seen.waited_seconds - waited, 2)
        self.trail.note("statement_done", ms=took_ms, rows=rows, waited_s=waited)
        if is_version_change(statement) and rows != 1:
            raise errors.DataError(f"another revision stands in the database: {shown}")
        return max(rows, 0)

    def _set(self, limits: Limits, *, local: bool) -> None:
        """Raises LimitsNotInForce when what SHOW says is something else."""
        wanted = (limits.lock_timeout_ms, limits.statement_timeout_ms)
        self.connection.execute(SET_LIMITS, (str(wanted[0]), local, str(wanted[1]), local))
        row = self.connection.execute(SHOW_LIMITS).fetchone()
        shown = tuple(map(str, row or ()))
        if tuple(map(_milliseconds, shown)) != wanted:
            raise LimitsNotInForce(
                f"lock_timeout and statement_timeout are {shown} after {wanted} ms were set"
            )

    def _clean(self, step: PlannedStep) -> None:
        """An INVALID index that an attempt left behind goes, so that nobody pays for it and nobody trusts it."""
        if self.connection.broken:
            return
        for name in left_by(self.connection, step):
            self.trail.record("cleaning", index=".".join(name), reason="an attempt left it INVALID")
            self._set(self.policy.limits(Kind.INDEX), local=False)
            drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
            self.connection.execute(drop.format(sql.Identifier(*name)))


def _behind(seen: Seen) -> str:
    return f"others had waited {seen.stalled_seconds:.1f} s behind it"


def _names(connection: Connection, query: str) -> set[str]:
    return {str(row[0]) for row in connection.execute(query.encode())}


def _milliseconds(shown: str) -> int:
    number = shown.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(number) * UNITS_MS[shown[len(number) :]] if number else -1
