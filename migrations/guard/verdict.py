"""After the change: what differs from before that should not, and taking back what brought it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from migrations.faults import MigrationFault
from migrations.guard import compare, ledger, pending, snapshot
from migrations.guard.apply import Applier, LimitsNotInForce, StepFailed, TableBusy
from migrations.guard.compare import Difference, Expected, Severity
from migrations.guard.declared import expected
from migrations.guard.drift import drift
from migrations.guard.exits import ExitCode
from migrations.guard.gates import Plan
from migrations.guard.lint import Override
from migrations.guard.pending import Pending
from migrations.guard.progress import Say as Progress
from migrations.guard.progress import silent
from migrations.guard.snapshot import Known
from migrations.guard.undo import undo
from migrations.guard.validate import check_indexes
from migrations.run_lock import connect

# `--allow validation=REASON` accepts what the validation found.
RULE = "validation"
SHOWN = 5
# The next run goes on with an undo that one of these ended.
CUT_SHORT = (TableBusy, StepFailed, LimitsNotInForce)


class ValidationFailed(MigrationFault):
    exit_code = ExitCode.VALIDATION_FAILED

    def __init__(self, reason: str, end: str) -> None:
        super().__init__(f"after the migration: {reason}; {end}")


@dataclass(frozen=True)
class Judged:
    """What is judged: the database of `url`, against what was before `pending`."""

    url: str
    applier: Applier
    plan: Plan
    pending: Pending
    progress: Progress = silent


def validate(case: Judged) -> list[Difference]:
    """What differs, all of it in the trail.  The whole way since the run's start is expected."""
    plan, start = case.plan, case.pending.start
    steps = plan.steps if plan.current == start else plan.chain.upgrade(start)
    found = _differences(case, expected(steps, plan.heads))
    found += _told(case, list(_drifted(case.url)))
    return found


def reason_of(found: Sequence[Difference]) -> str:
    """The first few of the faults; empty where there is none."""
    told = [str(each) for each in compare.faults(list(found))]
    more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return "; ".join(told[:SHOWN] + more)


def of_what_stands(case: Judged) -> list[Difference]:
    """The same, of the part of the way that an earlier run went, before this release's further steps."""
    to_come = {step.revision for step in case.plan.steps}
    whole = case.plan.chain.upgrade(case.pending.start)
    gone = [step for step in whole if step.revision not in to_come]
    return _differences(case, expected(gone, case.plan.current))


def accepted(case: Judged, found: Sequence[Difference], allowed: Sequence[Override]) -> bool:
    """Whether somebody said that just this may be: REASON names the run it is of, or each thing that was found."""
    wrong = compare.faults(list(found))
    for each in allowed:
        if each.rule != RULE:
            continue
        named = all(one.name in each.reason for one in wrong)
        if named or case.pending.run in each.reason:
            reason = reason_of(found)
            case.applier.trail.record("validation_allowed", reason=each.reason, what=reason)
            case.applier.say(f"accepted ({each.reason}): {reason}")
            return True
        case.applier.say(f"--allow {RULE}={each.reason} names neither the run nor what was found")
    return False


def names_run(case: Judged, allowed: Sequence[Override]) -> bool:
    return any(each.rule == RULE and case.pending.run in each.reason for each in allowed)


def take_back(case: Judged, reason: str) -> str:
    """How it ended.  Raises TableBusy or StepFailed: then the next run goes on with it."""
    applier, before = case.applier, case.pending
    connection = applier.connection
    marked = pending.mark(connection, before, "undoing", reason)
    undone = undo(applier, case.plan.chain, before.start, set(before.roles))
    if undone.kept:
        end = f"nothing was taken back, because {'; '.join(undone.kept)}"
        end += f"; to accept it, --allow {RULE}='{before.run}: WHY'"
        pending.mark(connection, marked, "kept", reason)
        return end
    meant = replace(expected((), before.start), grants_may_go=True)
    left = reason_of(_differences(case, meant))
    pending.end(connection, marked, "undone")
    said = "what this run created was taken back, and nothing that anybody wrote"
    if left:
        # Told once: what was found is in front of this.
        said += "; what was found is still so" if left == reason else f"; this is still so: {left}"
    return said


def _differences(case: Judged, meant: Expected) -> list[Difference]:
    before, connection = case.pending.before, case.applier.connection
    ledger.create(connection)
    own = ledger.transactions(connection)
    with connect(case.url) as reader, snapshot.one_instant(reader):
        written = compare.written_since(reader, before, own)
        for name, rows in ledger.deleted(connection).items():
            if name in written and name not in meant.new_rows_in:
                written[name] = replace(written[name], deleted=rows)
        # Where this run wrote nothing, nothing that moved was moved by it.
        moved = frozenset(name for name, each in written.items() if each.ours or each.deleted)
        after = snapshot.take(reader, known=Known(before, moved))
    found = compare.compare(before, after, replace(meant, written=written))
    return _told(case, found + _damaged_indexes(case))


def _told(case: Judged, found: list[Difference]) -> list[Difference]:
    for each in found:
        # There may be thousands; the stage's end brings them to the disk.
        case.applier.trail.note("validation", severity=each.severity, what=str(each))
    old = [str(each) for each in found if each.severity == Severity.OLD]
    more = len(old) - SHOWN
    for line in old[:SHOWN] + (
        [f"… and {more:,} more old faults: see the trail"] if more > 0 else []
    ):
        case.applier.say(line)
    return found


def _damaged_indexes(case: Judged) -> list[Difference]:
    """By amcheck, where it can be had; one that was there before was damaged before: its own pages will do."""
    known, old = case.pending.before.indexes.keys(), Severity.OLD
    _, damaged = check_indexes(case.applier.connection, known, case.progress)
    return [replace(d, severity=old) if d.name in known else d for d in damaged]


def _drifted(url: str) -> Iterator[Difference]:
    """What no model names may be somebody else's; what a model names must be there."""
    for each in drift(url):
        severity = Severity.NOTE if each.extra else Severity.NEW
        yield Difference(severity, "model", each.what, "the schema and the models differ")
