"""Take back what a run created, if it holds nobody's data; else keep everything and say what is in the way.

What would be lost is read from the very SQL of the downgrade: tables, columns, and nothing that cannot be judged.
Between the look and the DROP a fence stands: a check that lets nobody's data in, so that a write is either seen
and kept, or refused to whoever wrote, and never lost.  Where no check can tell, the look is taken once more under
the lock of the DROP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import Connection, sql

from migrations.guard import ledger
from migrations.guard.apply import Applier, StepFailed
from migrations.guard.loss import Column, Table, losses, parsed, roles_dropped
from migrations.guard.stakes import Stake, at_stake, count, reasons_to_keep
from migrations.guard.statements import CannotRender, Chain, PlannedStep

REVISIONS = "SELECT version_num FROM public.alembic_version"
# Of our own: not to be mistaken for what a downgrade runs into.
WRITTEN_MEANWHILE = "FBX01"
RECHECK = """
DO $farebox_check$ BEGIN
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM {table} WHERE {lost}) THEN
        RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = {message};
    END IF;
END $farebox_check$
"""
# NOT VALID: it counts for whoever writes from now on, and is there in a moment.
DROP_FENCE = "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS farebox_undo_{revision}"
ADD_FENCE = DROP_FENCE + ", ADD CONSTRAINT farebox_undo_{revision} CHECK ({holds}) NOT VALID"


@dataclass(frozen=True)
class Undone:
    """`kept` is why nothing was taken back; empty: everything is as it was before the run."""

    steps: int
    kept: tuple[str, ...] = ()


def undo(applier: Applier, chain: Chain, before: Sequence[str], roles_before: set[str]) -> Undone:
    """Back to the revisions `before`.  Raises TableBusy or StepFailed; each revision goes as a whole or not at all."""
    connection, trail = applier.connection, applier.trail
    current = _revisions(connection)
    if len(before) > 1:
        return Undone(0, (f"there is no single way back to {', '.join(before)}",))
    if current == tuple(before):
        return Undone(0)
    try:
        steps = chain.downgrade(current, before[0] if before else "base")
        there = chain.upgrade(before)
    except CannotRender as fault:
        return _kept(applier, (str(fault),))
    stakes, unjudged = at_stake(connection, steps, there)
    if unjudged or any(reasons_to_keep(connection, stakes)):
        return _kept(applier, (*map(str, unjudged), *reasons_to_keep(connection, stakes)))
    trail.record("undo_started", back_to=before, steps=len(steps))
    fenced = [each for each in stakes if _can_be_fenced(connection, each)]
    fences = list(_fences(steps, fenced))
    applier.apply([each.step(1, ADD_FENCE) for each in fences])
    # Whoever wrote before the fences stood has ended: this look sees all.
    if reasons := tuple(reasons_to_keep(connection, stakes)):
        _take_down(applier, fences)
        return _kept(applier, (f"somebody wrote meanwhile ({'; '.join(reasons)})",))
    trail.record("undo_fenced", tables=len(fences))
    unfenced = [each for each in stakes if each not in fenced]
    guarded = [_guarded(step, unfenced, roles_before) for step in steps]
    try:
        applier.apply([each for each in guarded if each.statements])
    except StepFailed as fault:
        if not _written_meanwhile(fault) or _revisions(connection) != current:
            raise
        _take_down(applier, fences)
        return _kept(applier, (f"somebody wrote meanwhile ({fault.__cause__})",))
    trail.record("undo_done", steps=len(guarded))
    return Undone(len(guarded))


def _revisions(connection: Connection) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in connection.execute(REVISIONS))


def _kept(applier: Applier, reasons: tuple[str, ...]) -> Undone:
    applier.trail.record("undo_refused", reasons=reasons)
    return Undone(0, reasons)


def _written_meanwhile(fault: StepFailed) -> bool:
    return getattr(fault.__cause__, "sqlstate", None) == WRITTEN_MEANWHILE


@dataclass(frozen=True)
class Fence:
    """`holds`: what every row of `table` must be like, so that nothing of anybody's is lost with it."""

    table: Table
    revision: str
    number: int
    holds: str

    def step(self, number: int, statement: str) -> PlannedStep:
        told = statement.format(table=self.table.quoted, revision=self.revision, holds=self.holds)
        name = f"{self.revision} (fence {self.number})"
        return PlannedStep(name, f"of {self.table}", number, (told,), True)


def _fences(steps: Sequence[PlannedStep], fenced: Sequence[Stake]) -> Iterator[Fence]:
    for step in steps:
        holds: dict[Table, list[str]] = {}
        going = _going(step)
        for each in fenced:
            if each.loss in going:
                holds.setdefault(each.table, []).append(f"NOT ({each.foreign})")
        for number, (table, rules) in enumerate(holds.items(), 1):
            yield Fence(table, step.revision, number, " AND ".join(rules))


def _can_be_fenced(connection: Connection, stake: Stake) -> bool:
    """A check reads no other table, and would refuse the storefront's writes to rows that this run filled."""
    if "SELECT" in stake.foreign:
        return False
    filled = isinstance(stake.loss, Column) and stake.ours != "false"
    return not (filled and count(connection, stake.table, stake.foreign))


def _take_down(applier: Applier, fences: Sequence[Fence]) -> None:
    down = [each.step(3, DROP_FENCE) for each in fences]
    applier.apply(down)
    ledger.close(applier.connection, [each.revision for each in down])


def _going(step: PlannedStep) -> set[object]:
    return {loss for each in step.statements for loss in losses(each)}


def _guarded(step: PlannedStep, unfenced: Sequence[Stake], roles_before: set[str]) -> PlannedStep:
    """The same under a name of its own in the ledger, what no fence guards looked at once more under the lock it
    is dropped with; roles that were there before stay."""
    checks = dict(_checks(step, unfenced))
    checked = bool(checks)
    statements: list[str] = []
    for each in step.statements:
        statements += [check for table in _tables(each) if (check := checks.pop(table, None))]
        one_by_one = [part.text for part in parsed(each)]
        statements += [
            part
            for part in (one_by_one if len(one_by_one) > 1 else [each])
            if not roles_dropped(part) & roles_before
        ]
    return replace(
        step,
        revision=f"{step.revision} (undo)",
        statements=tuple(statements),
        # A statement by itself that drops something does so with its check.
        transactional=step.transactional or checked or len(statements) > 1,
    )


def _tables(statement: str) -> Iterator[Table]:
    for each in losses(statement):
        if isinstance(each, Table | Column):
            yield each if isinstance(each, Table) else each.table


def _checks(step: PlannedStep, unfenced: Sequence[Stake]) -> Iterator[tuple[Table, str]]:
    """One for each table: it is read once."""
    going = _going(step)
    lost: dict[Table, list[str]] = {}
    for each in unfenced:
        if each.loss in going:
            lost.setdefault(each.table, []).append(f"({each.lost})")
    for table, conditions in lost.items():
        message = sql.Literal(f"somebody wrote into {table}").as_string()
        yield (
            table,
            RECHECK.format(
                table=table.quoted,
                lost=" OR ".join(conditions),
                code=WRITTEN_MEANWHILE,
                message=message,
            ),
        )
