"""What may stop a run before anything of the live database is changed: plan, preflight, lint, rehearsal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import Connection

from migrations.guard import compare, ledger, snapshot
from migrations.guard.declared import expected
from migrations.guard.drift import drift
from migrations.guard.lint import LiveFacts, Override, lint
from migrations.guard.lint.report import LintRefused, as_text, unneeded
from migrations.guard.lint.squawk import SquawkMissing
from migrations.guard.loss import Unjudged, losses
from migrations.guard.plan import as_sql
from migrations.guard.policy import Policy
from migrations.guard.preflight import known, models, preflight
from migrations.guard.progress import Say as Progress
from migrations.guard.rehearse import Rehearsal, RehearsalRefused, rehearse
from migrations.guard.rights import may_not
from migrations.guard.snapshot import Snapshot
from migrations.guard.statements import CannotRender, Chain, Kind, PlannedStep
from migrations.guard.subject import PreflightRefused, Problem, Subject, folded
from migrations.guard.trail import Trail
from migrations.guard.validate import check_indexes
from migrations.run_lock import connect

TABLES = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
"""

Say = Callable[[str], None]
Told = tuple[Trail, Say, Progress]


@dataclass(frozen=True)
class Plan:
    """From `current` to head.  `resumed`: an earlier run left a revision unfinished.  `bare`: there is no table
    yet, so nothing that could be lost."""

    chain: Chain
    current: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    resumed: bool
    bare: bool

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(sorted(self.chain.heads()))


def make_plan(connection: Connection, chain: Chain, trail: Trail) -> Plan:
    """The SQL goes beside the trail.  Raises PreflightRefused, CannotRender."""
    try:
        current = snapshot.revision(connection)
        resumed = bool(ledger.open_entries(connection))
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightRefused([may_not(error)]) from error
    if problems := [*models(), *known(chain, current)]:
        raise PreflightRefused(problems)
    steps = chain.upgrade(current)
    row = connection.execute(TABLES).fetchone()
    path = _plan_file(trail)
    if steps:
        path.write_text(as_sql(steps))
    names = [str(step) for step in steps]
    trail.record("plan", current=current, steps=names, sql=path, resumed=resumed)
    return Plan(chain, current, steps, resumed, bare=not (row and row[0]))


def tell_way_back(plan: Plan, trail: Trail, say: Say) -> None:
    """Before anything is changed, what would keep this run from being taken back."""
    try:
        back = plan.chain.downgrade(plan.heads, plan.current[0] if plan.current else "base")
    except CannotRender as fault:
        reasons = [str(fault)]
    else:
        going = [loss for step in back for each in step.statements for loss in losses(each)]
        reasons = [str(each) for each in going if isinstance(each, Unjudged)]
    for reason in dict.fromkeys(reasons):
        trail.record("no_way_back", reason=reason)
        say(f"warning: should it be found bad, this run could not be taken back: {reason}")


def _plan_file(trail: Trail) -> Path:
    """The SQL that the linter's lines count in."""
    return trail.folder / f"plan-{trail.run}.sql"


def pass_preflight(subject: Subject, trail: Trail, say: Say) -> tuple[Problem, ...]:
    """Warnings.  Raises PreflightRefused with every refusal."""
    problems = preflight(subject)
    for each in problems:
        # There may be thousands; the stage's end brings them to the disk.
        trail.note(
            "preflight",
            check=each.check,
            severity=each.severity,
            cause=each.cause,
            remedy=each.remedy,
        )
    if refusals := [each for each in problems if each.severity == "refusal"]:
        raise PreflightRefused(refusals)
    for line in folded(problems):
        say(f"warning: {line}")
    return tuple(problems)


def pass_lint(
    connection: Connection,
    steps: Sequence[PlannedStep],
    allowed: Sequence[Override],
    policy: Policy,
    trail: Trail,
) -> None:
    """With the timeouts that the steps will have, in effect on the connection that will lock.  Raises LintRefused."""
    limits = policy.limits(Kind.TRANSACTION)
    connection.execute(
        "SELECT set_config('lock_timeout', %s, false)", (str(limits.lock_timeout_ms),)
    )
    connection.execute(
        "SELECT set_config('statement_timeout', %s, false)", (str(limits.statement_timeout_ms),)
    )
    facts = LiveFacts.read(connection)
    connection.execute("RESET lock_timeout")
    connection.execute("RESET statement_timeout")
    try:
        report = lint(as_sql(steps), file=str(_plan_file(trail)), facts=facts, overrides=allowed)
    except SquawkMissing as missing:
        raise LintRefused(f"the SQL could not be judged: {missing}") from missing
    for each in report.findings:
        trail.record(
            "lint",
            rule=each.rule,
            line=each.line,
            message=each.message,
            overridden=each.overridden,
        )
    for override in allowed:
        needed = override not in unneeded([report], allowed)
        trail.record("lint_allowed", rule=override.rule, reason=override.reason, needed=needed)
    if report.verdict == "dangerous":
        raise LintRefused(as_text([report]))


def pass_rehearsal(
    url: str, sides: tuple[Snapshot, Snapshot], plan: Plan, policy: Policy, told: Told
) -> Rehearsal:
    """On the copy at `url`, which nobody else writes to: not a cent may move.  `sides`: the live database as it
    was backed up, and the copy.  Raises RehearsalRefused."""
    (live, before), (trail, say, progress) = sides, told
    rehearsal = rehearse(url, plan.steps, policy=policy, trail=trail, say=say)
    problems = rehearsal.problems(policy)
    with connect(url) as connection, snapshot.one_instant(connection):
        after = snapshot.take(connection, progress=progress)
    with connect(url) as connection:
        # All were built a moment ago: what is damaged here, the migration damages.
        _, damaged = check_indexes(connection, progress=progress)
    found = compare.compare(before, after, expected(plan.steps, plan.heads)) + damaged
    problems += [str(each) for each in compare.faults(found)]
    for each in drift(url):
        trail.record("drift", what=each.what, extra=each.extra)
        if each.subject in _not_restored(live, before):
            say(f"warning: not on the copy, for an old fault: {each}")
        elif each.extra:
            say(f"warning: no model names what is there: {each}")
        else:
            problems.append(f"the schema would not be what the models say: {each}")
    if problems:
        trail.record("rehearsal_refused", problems=problems)
        raise RehearsalRefused("on the copy: " + "; ".join(problems))
    return rehearsal


def _not_restored(live: Snapshot, copy: Snapshot) -> set[str]:
    """Constraints that rows break and INVALID indexes: they are there, and cannot be made again."""
    gone = (live.constraints.keys() - copy.constraints.keys()) | (
        live.indexes.keys() - copy.indexes.keys()
    )
    return {name.rpartition(".")[2].strip('"') for name in gone}
