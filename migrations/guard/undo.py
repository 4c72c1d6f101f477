"""Take back what a run created, if it holds nobody's data; else keep everything and say what is in the way.

What would be lost is read from the very SQL of the downgrade: tables, columns, and nothing that cannot be judged.
From the look on tripwires tell of every write, and the lock of the DROP is taken before they are read: a write
is seen and kept, or finds the table gone.  None is refused, however the undo ends.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import Connection, sql

from migrations.guard.apply import Applier, StepFailed
from migrations.guard.ledger import OtherSql
from migrations.guard.loss import Column, Table, losses, parsed, roles_dropped
from migrations.guard.stakes import Stake, at_stake, reasons_to_keep
from migrations.guard.statements import CannotRender, Chain, PlannedStep
from migrations.guard.tripwires import TRIPPED, can_watch, going_in, put_up, take_down, tripwires

REVISIONS = "SELECT version_num FROM public.alembic_version"
# Of our own: not to be mistaken for what a downgrade runs into.
WRITTEN_MEANWHILE = "FBX01"
# Nobody's transaction is open on the table once the lock is held: what was written is seen.
RECHECK = """
DO $farebox_check$ BEGIN
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    IF {asked} THEN
        IF EXISTS (SELECT FROM {table} WHERE {lost}) THEN
            RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = {message};
        END IF;
    END IF;
END $farebox_check$
"""


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
    wires = list(tripwires(steps, stakes))
    try:
        put_up(applier, wires)
        # Whoever wrote before the tripwires stood has ended: this look sees all.
        if reasons := tuple(reasons_to_keep(connection, stakes)):
            return _kept(applier, (f"somebody wrote meanwhile ({'; '.join(reasons)})",))
        trail.record("undo_watched", tables=len(wires))
        return _back(applier, [_guarded(step, stakes, roles_before) for step in steps])
    finally:
        take_down(applier, wires)


def _back(applier: Applier, steps: Sequence[PlannedStep]) -> Undone:
    start = _revisions(applier.connection)
    try:
        applier.apply([each for each in steps if each.statements])
    except OtherSql as fault:
        return _kept(applier, (str(fault),))
    except StepFailed as fault:
        if not _written_meanwhile(fault):
            raise
        reason = f"somebody wrote meanwhile ({fault.__cause__})"
        if _revisions(applier.connection) != start:
            reason += f"; what came after {fault.step} was taken back"
        return _kept(applier, (reason,))
    applier.trail.record("undo_done", steps=len(steps))
    return Undone(len(steps))


def _revisions(connection: Connection) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in connection.execute(REVISIONS))


def _kept(applier: Applier, reasons: tuple[str, ...]) -> Undone:
    applier.trail.record("undo_refused", reasons=reasons)
    return Undone(0, reasons)


def _written_meanwhile(fault: StepFailed) -> bool:
    return getattr(fault.__cause__, "sqlstate", None) == WRITTEN_MEANWHILE


@dataclass(frozen=True)
class Guarded(PlannedStep):
    """`meant`: the step without its checks, which differ once a part of the way is gone."""

    meant: tuple[str, ...] = ()

    @property
    def checksum(self) -> str:
        return hashlib.sha256("\0".join(self.meant).encode()).hexdigest()


def _guarded(step: PlannedStep, stakes: Sequence[Stake], roles_before: set[str]) -> PlannedStep:
    """The same under a name of its own in the ledger, what it takes looked at once more under the lock it is
    dropped with; roles that were there before stay."""
    checks = dict(_checks(step, stakes))
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
    # A statement by itself that drops something does so with its check.
    transactional = step.transactional or checked or len(statements) > 1
    revision = f"{step.revision} (undo)"
    return Guarded(
        revision, step.title, step.number, tuple(statements), transactional, step.statements
    )


def _tables(statement: str) -> Iterator[Table]:
    for each in losses(statement):
        if isinstance(each, Table | Column):
            yield each if isinstance(each, Table) else each.table


def _checks(step: PlannedStep, stakes: Sequence[Stake]) -> Iterator[tuple[Table, str]]:
    """One for each table: it is read once, and only if somebody wrote where that can be told."""
    going = going_in(step)
    mine = [each for each in stakes if each.loss in going]
    for table in dict.fromkeys(each.table for each in mine):
        of_table = [each for each in mine if each.table == table]
        yield (
            table,
            RECHECK.format(
                table=table.quoted,
                asked=TRIPPED if all(map(can_watch, of_table)) else "true",
                lost=" OR ".join(f"({each.lost})" for each in of_table),
                code=WRITTEN_MEANWHILE,
                message=sql.Literal(f"somebody wrote into {table}").as_string(),
            ),
        )
