"""The guarded run, in its order: lock, preflight, lint, backup, rehearsal, apply, validate, undo, aftermath.

Up to the end of the rehearsal nothing of the live database is changed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from psycopg import Connection

from migrations.faults import MigrationFault
from migrations.guard import compare, endings, pending, restore, snapshot, verdict
from migrations.guard.apply import Applier, StepFailed, TableBusy
from migrations.guard.backup import backup, default_folder, list_backups, pin, server_of, unpin
from migrations.guard.endings import ConnectionLost, Phase, Where
from migrations.guard.exits import ExitCode
from migrations.guard.gates import (
    Plan,
    make_plan,
    pass_lint,
    pass_preflight,
    pass_rehearsal,
    tell_way_back,
)
from migrations.guard.lint import Override
from migrations.guard.made_roles import drop_left_roles, drop_new_roles, roles
from migrations.guard.manifest import Backup, BackupFault
from migrations.guard.pending import Pending
from migrations.guard.policy import Policy
from migrations.guard.progress import Count, silent, uncounted
from migrations.guard.progress import Say as Progress
from migrations.guard.rehearse import Rehearsal
from migrations.guard.scratch import copy_maker
from migrations.guard.snapshot import NOTHING_KNOWN, Known
from migrations.guard.statements import Chain, PlannedStep
from migrations.guard.subject import Problem, Subject
from migrations.guard.tools import ToolFault, find_tools, server_major
from migrations.guard.trail import Trail
from migrations.guard.verdict import Judged, ValidationFailed
from migrations.guard.watch import Watcher
from migrations.guard.working import Told
from migrations.run_lock import connect, run_lock

PINNED_FOR = "until the migration it was made for has passed its validation"
LOCK_WAIT_SECONDS = 60.0
WITHOUT_DRY_RUN: dict[pending.State, str] = {
    "changing": "a run without --dry-run goes on and validates it",
    "undoing": "it was found bad, a run without --dry-run goes on with its undo",
    "kept": "it was found bad and kept, a run without --dry-run says so again",
}


class FailedAndUndone(MigrationFault):
    """The database is as it was before the run."""

    exit_code = ExitCode.FAILED_UNDONE


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
    count: Count = uncounted


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
        self._phase: Phase = "before"
        self._stage_now = "lock"

    def go(self) -> Result:
        """Raises MigrationFault; whatever ends the run is in the trail."""
        self._trail.record("run_started", url=self._url, dry_run=self._options.dry_run)
        try:
            with self._locked() as connection:
                result = self._guarded(connection)
        except endings.FORESEEN as error:
            fault = endings.fault_of(error, Where(self._url, self._stage_now, self._phase))
            self._tell_end(fault.exit_code, str(fault))
            if fault is error:
                raise
            raise fault from error
        except KeyboardInterrupt:
            self._tell_end(ExitCode.INTERRUPTED, "interrupted")
            raise
        self._trail.record("run_ended", exit=int(result.code), seconds=self._seconds)
        return result

    def _tell_end(self, code: int, reason: str) -> None:
        try:
            self._trail.record("run_ended", exit=int(code), reason=reason)
        except OSError as error:
            self._show.say(f"the audit trail does not tell of this end: {error}")

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
        dry_run = self._options.dry_run
        with self._stage("plan"):
            plan = make_plan(connection, Chain(self._options.more_versions), self._trail)
            earlier = self._unfinished(connection, plan)
        if earlier is not None and not dry_run:
            earlier = self._settled(connection, plan, earlier)
        if not plan.steps and earlier is not None and dry_run:
            # Said already: there is something to do, and no step to rehearse.
            return Result(ExitCode.DONE, seconds=self._seconds)
        if not plan.steps and earlier is None:
            self._show.say("nothing to do: the schema is this release's already")
            if not dry_run:
                self._finish(connection)
            return Result(ExitCode.NOTHING_TO_DO, seconds=self._seconds)
        # Where all is applied already, only the judgement is missing.
        prepared = self._prepare(connection, plan) if plan.steps else None
        if dry_run:
            return Result(ExitCode.DONE, plan.steps, prepared, seconds=self._seconds)
        begun = earlier or self._begin(connection, plan, prepared)
        differences = self._change(connection, plan, begun)
        self._finish(connection)
        return Result(ExitCode.DONE, plan.steps, prepared, tuple(differences), self._seconds)

    def _unfinished(self, connection: Connection, plan: Plan) -> Pending | None:
        """An earlier run that changed something and was neither found good nor taken back."""
        earlier = pending.find(connection)
        if earlier is None:
            return None
        undoing = earlier.state == "undoing"
        if not undoing and not pending.stands(connection, earlier, plan.current, plan.chain):
            self._trail.record(
                "earlier_run_gone", run_of=earlier.run, reason="nothing of it stands"
            )
            if not self._options.dry_run:
                pending.end(connection, earlier, "gone")
            return None
        self._trail.record("earlier_run", run_of=earlier.run, state=earlier.state)
        goes_on = "this one goes on and compares with what was before it"
        if self._options.dry_run:
            goes_on = WITHOUT_DRY_RUN[earlier.state]
        self._show.say(f"run {earlier.run} was not finished: {goes_on}")
        return earlier

    def _begin(self, connection: Connection, plan: Plan, prepared: Prepared | None) -> Pending:
        """The last moment before the first change."""
        with self._stage("snapshot"):
            made = prepared.backup if prepared is not None else None
            # Rows and money as of the backup: who wrote since then is asked in the end.
            known = Known(made.manifest.snapshot) if made is not None else NOTHING_KNOWN
            with connect(self._url) as reader:
                before = snapshot.take(reader, known=known)
            before_roles = frozenset(prepared.roles if prepared is not None else ())
            begun = Pending(self._trail.run, plan.current, before_roles, before)
            pending.begin(connection, begun)
        return begun

    def _finish(self, connection: Connection) -> None:
        """What follows a schema that was found good; it may be done again."""
        self._phase = "after"
        with self._stage("after"):
            connection.execute("RESET ALL")
            self._options.after(connection)
        own = server_of(self._url), connection.info.dbname
        for each in list_backups(self._options.backup_folder):
            if each.pinned == PINNED_FOR and (each.manifest.server, each.manifest.database) == own:
                unpin(each)

    def _prepare(self, connection: Connection, plan: Plan) -> Prepared:
        """Nothing of the live database is changed in here."""
        options, trail, say = self._options, self._trail, self._show.say
        with self._stage("preflight"):
            folder = options.backup_folder
            subject = Subject(connection, plan.chain, plan.current, plan.steps, folder, plan.bare)
            subject = replace(subject, scratch_url=copy_maker(self._url))
            warnings = pass_preflight(subject, trail, say)
            if not plan.bare:
                tell_way_back(plan, trail, say)
        with self._stage("lint"):
            pass_lint(connection, plan.steps, options.allowed, options.policy, trail)
        drop_left_roles(connection, copy_maker(self._url) or self._url, trail)
        before = roles(connection)
        if plan.bare and not _has_tools(connection):
            trail.record("no_backup", reason="there is no table yet, so nothing that could be lost")
            say("the database has no table yet: nothing to back up, nothing to rehearse on")
            return Prepared(warnings, before)
        with self._stage("backup"):
            progress = self._show.progress
            try:
                made = backup(
                    self._url, folder, options.backup_name, trail=trail, progress=progress
                )
            except BackupFault:
                # When it is the server that went away, this says so, and the run may be tried again.
                connection.execute("SELECT 1")
                raise
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
                # Also when the run goes on: its own CREATE ROLE would find them in its way.
                drop_new_roles(connection, before, trail)
        return Prepared(warnings, before, made, rehearsal)

    def _rehearse(self, plan: Plan, made: Backup) -> Rehearsal:
        trail, show, started = self._trail, self._show, time.monotonic()
        self._stage_now = "restore test"
        trail.record("stage_started", stage="restore test")
        maker = copy_maker(self._url) or self._url
        with restore.proven(made, maker, trail=trail, progress=show.progress) as copy:
            self._ended("restore test", started)
            with self._stage("rehearsal"):
                return pass_rehearsal(
                    copy.url,
                    (made.manifest.snapshot, copy.snapshot),
                    plan,
                    self._options.policy,
                    (trail, show.say, show.progress),
                )

    def _change(
        self, connection: Connection, plan: Plan, begun: Pending
    ) -> list[compare.Difference]:
        with self._judging(connection, plan, begun) as case:
            if plan.steps:
                with self._stage("apply"):
                    self._apply(case)
            with self._stage("validate"):
                differences = verdict.validate(case)
            reason = verdict.reason_of(differences)
            if reason and not verdict.accepted(case, differences, self._options.allowed):
                self._take_back(case, reason)
            pending.end(connection, begun, "good")
        return differences

    def _settled(self, connection: Connection, plan: Plan, earlier: Pending) -> Pending:
        """Go on with an undo that was cut short; put nothing on top of what was found wrong, unless it is accepted."""
        allowed = self._options.allowed
        if earlier.state == "changing":
            return earlier
        with self._judging(connection, plan, earlier) as case:
            if earlier.state == "undoing":
                if plan.steps or not verdict.names_run(case, allowed):
                    self._take_back(case, earlier.reason)
                earlier = pending.mark(connection, earlier, "changing", earlier.reason)
            elif plan.steps:
                with self._stage("look at what was kept"):
                    found = verdict.of_what_stands(case)
                reason = verdict.reason_of(found)
                if reason and not verdict.accepted(case, found, allowed):
                    self._take_back(case, reason)
        self._phase = "before"
        return earlier

    def _take_back(self, case: Judged, reason: str) -> NoReturn:
        accept = f"to accept it, --allow validation='{case.pending.run}: WHY'"
        if case.pending.state == "kept":
            end = "an earlier run kept everything, and so does this one"
            raise ValidationFailed(reason, f"{end}; repair it, or {accept}")
        with self._stage("undo"):
            try:
                end = verdict.take_back(case, reason)
            except verdict.CUT_SHORT as fault:
                end = f"taking it back has not come to its end: {fault}; run again to go on with it"
                raise ValidationFailed(reason, f"{end}, or {accept}") from fault
        raise ValidationFailed(reason, end)

    @contextmanager
    def _judging(self, connection: Connection, plan: Plan, begun: Pending) -> Iterator[Judged]:
        self._phase = "changing"
        told = Told(self._trail, self._show.count)
        watcher = Watcher(self._url, told)
        try:
            policy, say = self._options.policy, self._show.say
            applier = Applier(connection, watcher, self._trail, policy, say, progress=told)
            yield Judged(self._url, applier, plan, begun, self._show.progress)
        finally:
            watcher.close()

    def _apply(self, case: Judged) -> None:
        connection = case.applier.connection
        try:
            case.applier.apply(case.plan.steps)
        except (StepFailed, TableBusy) as fault:
            if connection.closed:
                raise ConnectionLost(f"{fault}; run again when the database answers") from fault
            current = snapshot.revision(connection)
            if pending.stands(connection, case.pending, current, case.plan.chain):
                self._show.say("what was done stands, the old code runs on it: run again to go on")
                raise
            pending.end(connection, case.pending, "undone")
            if isinstance(fault, TableBusy):
                raise
            raise FailedAndUndone(f"{fault}; the database is as it was before") from fault

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self._stage_now = name
        self._trail.record("stage_started", stage=name)
        yield
        self._ended(name, started)

    def _ended(self, name: str, started: float) -> None:
        self._seconds[name] = round(time.monotonic() - started, 3)
        self._trail.record("stage_done", stage=name, seconds=self._seconds[name])


def _has_tools(connection: Connection) -> bool:
    try:
        find_tools(server_major(connection))
    except ToolFault:
        return False
    return True
