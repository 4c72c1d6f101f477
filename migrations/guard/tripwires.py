"""Who writes into what is about to be dropped is noticed, and never hindered.

A check that every row passes: one with something of somebody's in it moves a sequence, at once and whatever
becomes of its transaction.  Under the lock of the DROP one look at the sequence tells whether the table must be
read again.  What a killed run leaves of this lets every write through; the next run takes it down.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import psycopg

from migrations.faults import MigrationFault
from migrations.guard.apply import Applier
from migrations.guard.loss import Loss, Table, losses
from migrations.guard.stakes import Stake
from migrations.guard.statements import PlannedStep

# Anybody's write moves it, so anybody must be allowed to.
CREATE = """
CREATE SEQUENCE IF NOT EXISTS farebox_migration.undo_writes;
GRANT USAGE ON SEQUENCE farebox_migration.undo_writes TO PUBLIC
"""
# Before the checks stand: each of them waits for the writers that an earlier one has seen.
RESET = "SELECT setval('farebox_migration.undo_writes', 1, false)"
TRIPPED = "(SELECT is_called FROM farebox_migration.undo_writes)"
# NOT VALID: it counts for whoever writes from now on, and is there in a moment.
DROP = "ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS farebox_undo_{revision}"
ADD = (
    "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS farebox_undo_{revision}, ADD CONSTRAINT farebox_undo_{revision}"
    " CHECK ({passes} OR nextval('farebox_migration.undo_writes'::regclass) > 0) NOT VALID"
)


@dataclass(frozen=True)
class Tripwire:
    """`passes`: what a row of `table` is like that takes nothing of anybody's along."""

    table: Table
    revision: str
    number: int
    passes: str

    def step(self, statement: str) -> PlannedStep:
        told = statement.format(
            table=self.table.quoted, revision=self.revision, passes=f"({self.passes})"
        )
        name = f"{self.revision} (tripwire {self.number})"
        return PlannedStep(name, f"of {self.table}", 1, (told,), True)


def can_watch(stake: Stake) -> bool:
    """A check reads no other table."""
    return "SELECT" not in stake.foreign


def tripwires(steps: Sequence[PlannedStep], stakes: Sequence[Stake]) -> Iterator[Tripwire]:
    for step in steps:
        passes: dict[Table, list[str]] = {}
        going = going_in(step)
        for each in stakes:
            if each.loss in going and can_watch(each):
                passes.setdefault(each.table, []).append(f"NOT ({each.foreign})")
        for number, (table, rules) in enumerate(passes.items(), 1):
            yield Tripwire(table, step.revision, number, " AND ".join(rules))


def going_in(step: PlannedStep) -> Collection[Loss]:
    return {loss for each in step.statements for loss in losses(each)}


def put_up(applier: Applier, wires: Sequence[Tripwire]) -> None:
    """Raises TableBusy, StepFailed."""
    applier.connection.execute(CREATE)
    applier.connection.execute(RESET)
    applier.aside([each.step(ADD) for each in wires])


def take_down(applier: Applier, wires: Sequence[Tripwire]) -> None:
    """Once, without patience: one that stays hinders nobody."""
    hasty = replace(applier, policy=replace(applier.policy, attempts=1))
    try:
        hasty.aside([each.step(DROP) for each in wires])
    except (MigrationFault, psycopg.Error) as fault:
        applier.trail.record("tripwires_left", reason=str(fault))
