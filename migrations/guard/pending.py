"""A run from its first change until it is found good or taken back, kept in the database that it changes.

Whoever runs next, on whichever machine, validates against what was before the first change, and goes on with an
undo that was cut short.
"""

from dataclasses import dataclass, replace
from typing import Literal

from psycopg import Connection

from migrations.guard import ledger
from migrations.guard.snapshot import Snapshot
from migrations.guard.statements import CannotRender, Chain

# `kept`: found wrong, and nothing was taken back because somebody's data is in it.
State = Literal["changing", "undoing", "kept"]
End = Literal["good", "undone", "gone"]

CREATE = """
CREATE SCHEMA IF NOT EXISTS farebox_migration;
CREATE TABLE IF NOT EXISTS farebox_migration.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    start text[] NOT NULL,
    roles text[] NOT NULL,
    before text,
    state text NOT NULL,
    reason text NOT NULL DEFAULT '',
    ended_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS uq_runs_open ON farebox_migration.runs ((true)) WHERE ended_at IS NULL;
"""
EXISTS = "SELECT to_regclass('farebox_migration.runs') IS NOT NULL"
OPEN = "SELECT run, start, roles, before, state, reason FROM farebox_migration.runs WHERE ended_at IS NULL"
BEGIN = """
INSERT INTO farebox_migration.runs (run, start, roles, before, state) VALUES (%s, %s, %s, %s, 'changing')
"""
MARK = (
    "UPDATE farebox_migration.runs SET state = %s, reason = %s WHERE run = %s AND ended_at IS NULL"
)
END = """
UPDATE farebox_migration.runs SET state = %s, before = NULL, ended_at = clock_timestamp()
WHERE run = %s AND ended_at IS NULL
"""


@dataclass(frozen=True)
class Pending:
    """`start`: the revisions before it; `roles`: those of the server then; `reason`: what was found wrong."""

    run: str
    start: tuple[str, ...]
    roles: frozenset[str]
    before: Snapshot
    state: State = "changing"
    reason: str = ""


def find(connection: Connection) -> Pending | None:
    """The one that nobody ended."""
    row = connection.execute(EXISTS).fetchone()
    found = connection.execute(OPEN).fetchone() if row is not None and row[0] else None
    if found is None:
        return None
    run, start, roles, before, state, reason = found
    snapshot = Snapshot.model_validate_json(before)
    return Pending(run, tuple(start), frozenset(roles), snapshot, state, reason)


def begin(connection: Connection, pending: Pending) -> None:
    """Before the first change."""
    ledger.create(connection)
    with connection.transaction():
        connection.execute(CREATE)
        ledger.forget_transactions(connection)
        before = pending.before.model_dump_json()
        values = (pending.run, list(pending.start), sorted(pending.roles), before)
        connection.execute(BEGIN, values)


def mark(connection: Connection, pending: Pending, state: State, reason: str) -> Pending:
    connection.execute(MARK, (state, reason, pending.run))
    return replace(pending, state=state, reason=reason)


def end(connection: Connection, pending: Pending, how: End) -> None:
    with connection.transaction():
        ledger.forget_transactions(connection)
        connection.execute(END, (how, pending.run))


def stands(
    connection: Connection, pending: Pending, current: tuple[str, ...], chain: Chain
) -> bool:
    """Whether anything is there that it did: a downgrade by hand may have taken it all back."""
    if current == pending.start:
        return bool(ledger.open_entries(connection))
    try:
        since = {step.revision for step in chain.upgrade(pending.start)}
        left = {step.revision for step in chain.upgrade(current)}
    except CannotRender:
        return False
    return left < since
