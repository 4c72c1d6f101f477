"""The guarded run, in its order: lock, preflight, lint, backup, rehearsal, apply, validate, undo, aftermath.

Up to the end of the rehearsal nothing of the live database is changed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg import Connection

from migrations.faults import CannotReach, MigrationFault
from migrations.guard import compare, ledger, restore, snapshot
from migrations.guard.apply import Applier, StepFailed, TableBusy
from migrations.guard.backup import backup, default_folder, list_backups, pin, unpin
from migrations.guard.declared import expected
from migrations.guard.exits import ExitCode
from migrations.guard.gates import Plan, make_plan, pass_lint, pass_preflight, pass_rehearsal
from migrations.guard.lint import Override
from migrations.guard.manifest import Backup
from migrations.guard.policy import Policy
from migrations.guard.preflight import Problem, Subject
from migrations.guard.progress import Say as Progress
from migrations.guard.progress import silent
from migrations.guard.rehearse import Rehearsal, drop_new_roles, roles
from migrations.guard.snapshot import Snapshot
from migrations.guard.statements import Chain, PlannedStep
from migrations.guard.tools import ToolFault, find_tools, server_major
from migrations.guard.trail import Trail
from migrations.guard.undo import undo
from migrations.guard.validate import check_indexes
from migrations.guard.watch import Watcher
from migrations.run_lock import connect, run_lock

PINNED_FOR = "until the migration it was made for has passed its validation"
LOCK_WAIT_SECONDS = 60.0


class FailedAndUndone(MigrationFault):
    """The database is as it was before the run."""

    exit_code = ExitCode.FAILED_UNDONE


class ConnectionLost(MigrationFault):
    """What was committed stands, what was not is undone; the ledger knows which."""

    exit_code = ExitCode.FAILED_RESUMABLE


class ValidationFailed(MigrationFault):
    exit_code = ExitCode.VALIDATION_FAILED

    def __init__(self, faults: Sequence[compare.Difference], end: str) -> None:
        super().__init__(f"after the migration: {'; '.join(map(str, faults[:5]))}; {end}")
        self.faults = tuple(faults)


def _nothing(connection: Connection) -> None:
    """No aftermath."""


@dataclass(frozen=True)
class Options:
    """`after` runs under the lock when the schema is at head: default data, passwords, topics."""

    dry_run: bool = False
    lock_wait_seconds: float = LOCK_WAIT_SECONDS
    backup_folder: Path = field(default_factory=default_folder)
    backup_name: str = "pre_migration"
    allowed: tuple[Override, ...] = ()
    policy: Policy = field(default_factory=Policy)
    more_versions: Path | None = None
    after: Callable[[Connection], None] = _nothing


@dataclass(frozen=True)
class Show:
    """Where a run speaks: a line at a time, and how far it is."""

    say: Callable[[str], None]
    progress: Progress = silent
    working: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Prepared:
    """All that had to be there before the first change."""

    warnings: tuple[Problem, ...]
    roles: set[str]
    backup: Backup | None = None
    rehearsal: Rehearsal | None = None


@dataclass(frozen=True)
class Result:
    """`seconds` by stage; `differences` of the validation that are not faults."""

    code: ExitCode
    steps: tuple[PlannedStep, ...] = ()
    prepared: Prepared | None = None
    differences: tuple[compare.Difference, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


class Run:
    """One run against the database of `url`."""

    def __init__(self, url: str, options: Options, trail: Trail, show: Show) -> None:
        self._url = url
        self._options = options
        self._trail = trail
        self._show = show
        self._seconds: dict[str, float] = {}
        self._applying = False

    def go(self) -> Result:
        """Raises MigrationFault; whatever ends the run is in the trail."""
        self._trail.record("run_started", url=self._url, dry_run=self._options.dry_run)
        try:
            with self._locked() as connection:
                result = self._guarded(connection)
        except psycopg.OperationalError as error:
            lost = self._lost(" ".join(str(error).split()))
            self._trail.record("run_ended", exit=lost.exit_code, reason=str(lost))
            raise lost from error
        except MigrationFault as fault:
            self._trail.record("run_ended", exit=fault.exit_code, reason=str(fault))
            raise
        except KeyboardInterrupt:
            self._trail.record("run_ended", exit=int(ExitCode.INTERRUPTED), reason="interrupted")
            raise
        self._trail.record("run_ended", exit=int(result.code), seconds=self._seconds)
        return result

    def _lost(self, reason: str) -> MigrationFault:
        if self._applying:
            return ConnectionLost(f"the database went away: {reason}; run again when it answers")
        return CannotReach(f"the database went away: {reason}; nothing was changed")

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        def waiting(text: str) -> None:
            self._trail.record("lock_wait", reason=text)
            self._show.say(text)

        wait = self._options.lock_wait_seconds
        with run_lock(self._url, wait_seconds=wait, on_wait=waiting) as connection:
            self._trail.record("run_lock", backend=connection.info.backend_pid)
            yield connection

    def _guarded(self, connection: Connection) -> Result:
        with self._stage("plan"):
            plan = make_plan(connection, Chain(self._options.more_versions), self._trail)
        if not plan.steps:
            self._show.say("nothing to do: the schema is this release's already")
            if not self._options.dry_run:
                self._options.after(connection)
            return Result(ExitCode.NOTHING_TO_DO, seconds=self._seconds)
        prepared = self._prepare(connection, plan)
        if self._options.dry_run:
            return Result(ExitCode.DONE, plan.steps, prepared, seconds=self._seconds)
        differences = self._change(connection, plan, prepared.roles)
        with self._stage("after"):
            connection.execute("RESET ALL")
            self._options.after(connection)
        for each in list_backups(self._options.backup_folder):
            if each.pinned == PINNED_FOR and each.manifest.database == connection.info.dbname:
                unpin(each)
        return Result(ExitCode.DONE, plan.steps, prepared, tuple(differences), self._seconds)

    def _prepare(self, connection: Connection, plan: Plan) -> Prepared:
        """Nothing of the live database is changed in here."""
        options, trail, say = self._options, self._trail, self._show.say
        with self._stage("preflight"):
            folder = options.backup_folder
            subject = Subject(connection, plan.chain, plan.current, plan.steps, folder, plan.bare)
            warnings = pass_preflight(subject, trail, say)
        with self._stage("lint"):
            pass_lint(connection, plan.steps, options.allowed, options.policy, trail)
        before = roles(connection)
        if plan.bare and not _has_tools(connection):
            trail.record("no_backup", reason="there is no table yet, so nothing that could be lost")
            say("the database has no table yet: nothing to back up, nothing to rehearse on")
            return Prepared(warnings, before)
        with self._stage("backup"):
            progress = self._show.progress
            made = backup(self._url, folder, options.backup_name, trail=trail, progress=progress)
            pin(made, PINNED_FOR)
            say(f"backup {made.path} ({made.size:,} bytes)")
        passed = False
        try:
            rehearsal = self._rehearse(plan, made)
            passed = not options.dry_run
        finally:
            if not passed:
                # The live database was not touched: nothing depends on this backup.
                unpin(made)
                if not connection.closed:
                    drop_new_roles(connection, before, trail)
        return Prepared(warnings, before, made, rehearsal)

    def _rehearse(self, plan: Plan, made: Backup) -> Rehearsal:
        trail, show, started = self._trail, self._show, time.monotonic()
        trail.record("stage_started", stage="restore test")
        with restore.proven(made, self._url, trail=trail, progress=show.progress) as copy:
            self._ended("restore test", started)
            with self._stage("rehearsal"):
                return pass_rehearsal(
                    copy.url, copy.snapshot, plan, self._options.policy, (trail, show.say)
                )

    def _change(
        self, connection: Connection, plan: Plan, roles_before: set[str]
    ) -> list[compare.Difference]:
        with self._stage("snapshot"):
            before, _ = self._look()
        watcher = Watcher(self._url, self._show.working)
        try:
            policy, say = self._options.policy, self._show.say
            applier = Applier(connection, watcher, self._trail, policy, say)
            with self._stage("apply"):
                self._apply(applier, plan)
            with self._stage("validate"):
                differences = self._differences(before, applier, expected(plan.steps, plan.heads))
            if faults := compare.faults(differences):
                with self._stage("undo"):
                    end = self._undo(applier, plan, before, roles_before)
                raise ValidationFailed(faults, end)
        finally:
            watcher.close()
        return differences

    def _apply(self, applier: Applier, plan: Plan) -> None:
        self._applying = True
        try:
            applier.apply(plan.steps)
        except (StepFailed, TableBusy) as fault:
            connection = applier.connection
            if connection.closed:
                raise ConnectionLost(f"{fault}; run again when the database answers") from fault
            stands = snapshot.revision(connection) != plan.current or plan.resumed
            if stands or ledger.open_entries(connection):
                self._show.say("what was done stands, the old code runs on it: run again to go on")
                raise
            if isinstance(fault, TableBusy):
                raise
            raise FailedAndUndone(f"{fault}; the database is as it was before") from fault

    def _look(
        self, since: Snapshot | None = None, transactions: set[int] | None = None
    ) -> tuple[Snapshot, dict[str, compare.Written]]:
        """The live database at one instant, and who wrote what is there since `since`."""
        with connect(self._url) as reader, snapshot.one_instant(reader):
            found = snapshot.take(reader)
            written = compare.written_since(reader, since, transactions or set()) if since else {}
        return found, written

    def _differences(
        self, before: Snapshot, applier: Applier, meant: compare.Expected
    ) -> list[compare.Difference]:
        after, written = self._look(before, applier.transactions)
        found = compare.compare(before, after, replace(meant, written=written))
        found += _damaged_indexes(applier.connection, before)
        for each in found:
            self._trail.record("validation", severity=each.severity, what=str(each))
            if each.severity == compare.Severity.OLD:
                self._show.say(str(each))
        return found

    def _undo(self, applier: Applier, plan: Plan, before: Snapshot, roles_before: set[str]) -> str:
        undone = undo(applier, plan.chain, plan.current, roles_before)
        if undone.kept:
            return f"nothing was taken back, because {'; '.join(undone.kept)}"
        meant = replace(expected((), plan.current), grants_may_go=True)
        left = compare.faults(self._differences(before, applier, meant))
        said = "what this run created was taken back, and nothing that anybody wrote"
        return said + (f"; this is still so: {'; '.join(map(str, left[:5]))}" if left else "")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self._trail.record("stage_started", stage=name)
        yield
        self._ended(name, started)

    def _ended(self, name: str, started: float) -> None:
        self._seconds[name] = round(time.monotonic() - started, 3)
        self._trail.record("stage_done", stage=name, seconds=self._seconds[name])


def _damaged_indexes(connection: Connection, before: Snapshot) -> list[compare.Difference]:
    """By amcheck, where it can be had; one that was there before was damaged before."""
    _, damaged = check_indexes(connection)
    old = compare.Severity.OLD
    return [replace(d, severity=old) if d.name in before.indexes else d for d in damaged]


def _has_tools(connection: Connection) -> bool:
    try:
        find_tools(server_major(connection))
    except ToolFault:
        return False
    return True
