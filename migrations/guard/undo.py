"""Take back what a run created, if it holds nobody's data; else keep everything and say what is in the way.

What would be lost is read from the very SQL of the downgrade: tables, columns, and nothing that cannot be judged.
Between the look and the DROP a fence stands: a check that lets nobody's data in, so that a write is either seen
and kept, or refused to whoever wrote, and never lost.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import Connection, sql

from migrations.guard import ledger
from migrations.guard.apply import Applier, StepFailed
from migrations.guard.declared import DROP_COLUMN, DROP_TABLE
from migrations.guard.statements import Chain, PlannedStep, without_comments

DROP_ROLE = re.compile(r"\bDROP ROLE (?:IF EXISTS )?([\w$]+)", re.IGNORECASE)
# They take away no row: a schema or type that is in use refuses to go.
HARMLESS = re.compile(
    r"(DROP (SCHEMA|INDEX|TRIGGER|FUNCTION|SEQUENCE|TYPE|VIEW|OWNED)"
    r"|ALTER TABLE \S+ (DROP CONSTRAINT|ALTER COLUMN \S+ (DROP|SET) (DEFAULT|NOT NULL))"
    r"|ALTER INDEX|GRANT|REVOKE|COMMENT|DO \$\$ BEGIN DROP ROLE|CREATE (UNIQUE )?INDEX"
    r"|(INSERT INTO|UPDATE|DELETE FROM) public\.alembic_version)\b",
    re.IGNORECASE,
)
DESTROYS = re.compile(r"\b(CASCADE|TRUNCATE)\b", re.IGNORECASE)
# Rows that our trigger wrote by the storefront's own statements: a copy of what the storefront keeps.  Once one
# of them was published, somebody has heard of it.
DERIVED = {
    "pricing.outbox": "published_at IS NOT NULL",
    "pricing.subscription_revisions": "EXISTS (SELECT FROM pricing.outbox WHERE published_at IS NOT NULL)",
}
DEFAULT = """
SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND a.attgenerated = ''
"""
CONSTANT = re.compile(r"^('(?:[^']|'')*'|-?\d+(\.\d+)?|true|false)(::[\w \"\[\]]+)?$")
REVISIONS = "SELECT version_num FROM public.alembic_version"
RECHECK = """
DO $check$ BEGIN
    LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM {table} WHERE {foreign}) THEN
        RAISE EXCEPTION 'somebody wrote into {table} meanwhile';
    END IF;
END $check$
"""
# NOT VALID: it counts for whoever writes from now on, and is there in a moment.
DROP_FENCE = "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS farebox_undo_{revision}"
ADD_FENCE = DROP_FENCE + ", ADD CONSTRAINT farebox_undo_{revision} CHECK ({holds}) NOT VALID"
CHECK_FENCE = "ALTER TABLE {table} VALIDATE CONSTRAINT farebox_undo_{revision}"


@dataclass(frozen=True)
class Undone:
    """`kept` is why nothing was taken back; empty: everything is as it was before the run."""

    steps: int
    kept: tuple[str, ...] = ()


def undo(applier: Applier, chain: Chain, before: Sequence[str], roles_before: set[str]) -> Undone:
    """Back to the revisions `before`.  Raises TableBusy or StepFailed; each revision goes as a whole or not at all."""
    connection, trail = applier.connection, applier.trail
    current = tuple(str(row[0]) for row in connection.execute(REVISIONS))
    if len(before) > 1:
        return Undone(0, (f"there is no single way back to {', '.join(before)}",))
    if current == tuple(before):
        return Undone(0)
    steps = chain.downgrade(current, before[0] if before else "base")
    reasons = tuple(reasons_to_keep(connection, steps))
    if reasons:
        trail.record("undo_refused", reasons=reasons)
        return Undone(0, reasons)
    trail.record("undo_started", back_to=before, steps=len(steps))
    fences = list(_fences(connection, steps))
    try:
        _put_up(applier, fences)
    except StepFailed as fault:
        if not isinstance(fault.__cause__, psycopg.errors.CheckViolation):
            raise
        _take_down(applier, fences)
        trail.record("undo_refused", reasons=[str(fault)])
        return Undone(0, (f"somebody wrote meanwhile ({fault})",))
    trail.record("undo_fenced", tables=len(fences))
    guarded = [_guarded(step, roles_before) for step in steps]
    applier.apply(guarded)
    trail.record("undo_done", steps=len(guarded))
    return Undone(len(guarded))


@dataclass(frozen=True)
class Fence:
    """`holds`: what every row of `table` must be like, so that nothing of anybody's is lost with it."""

    table: str
    revision: str
    number: int
    holds: str

    def step(self, number: int, statement: str, *, transactional: bool = True) -> PlannedStep:
        told = statement.format(table=self.table, revision=self.revision, holds=self.holds)
        name = f"{self.revision} (fence {self.number})"
        return PlannedStep(name, f"of {self.table}", number, (told,), transactional)


def _fences(connection: Connection, steps: Sequence[PlannedStep]) -> Iterator[Fence]:
    for step in steps:
        holds: dict[str, list[str]] = {}
        for statement in step.statements:
            flat = " ".join(without_comments(statement).split())
            if found := DROP_TABLE.match(flat):
                foreign = DERIVED.get(found[1].replace('"', ""), "true")
                if "SELECT" not in foreign:
                    holds.setdefault(found[1], []).append(f"NOT ({foreign})")
            elif found := DROP_COLUMN.match(flat):
                table, column = found[1], found[2].replace('"', "")
                if default := _default(connection, table.replace('"', ""), column):
                    rule = f'"{column}" IS NOT DISTINCT FROM {default}'
                    holds.setdefault(table, []).append(rule)
        for number, (table, rules) in enumerate(holds.items(), 1):
            if _is_there(connection, table):
                yield Fence(table, step.revision, number, " AND ".join(rules))


def _put_up(applier: Applier, fences: Sequence[Fence]) -> None:
    """First all of them, then each looks at what was there before it: that locks no writer out."""
    adding = [each.step(1, ADD_FENCE) for each in fences]
    applier.apply(adding + [each.step(2, CHECK_FENCE, transactional=False) for each in fences])


def _take_down(applier: Applier, fences: Sequence[Fence]) -> None:
    down = [each.step(3, DROP_FENCE) for each in fences]
    applier.apply(down)
    ledger.close(applier.connection, [each.revision for each in down])


def reasons_to_keep(connection: Connection, steps: Sequence[PlannedStep]) -> Iterator[str]:
    """What the downgrade would lose, and what of it cannot be judged."""
    gone: set[str] = set()
    for statement in (without_comments(each) for step in steps for each in step.statements):
        flat = " ".join(statement.split())
        if DESTROYS.search(flat):
            yield _unjudged(flat)
        elif found := DROP_TABLE.match(flat):
            table = found[1].replace('"', "")
            gone.add(table)
            if rows := _count(connection, table, DERIVED.get(table, "true")):
                yield f"{table} holds {rows} rows"
        elif found := DROP_COLUMN.match(flat):
            yield from _column(connection, found[1].replace('"', ""), found[2].replace('"', ""))
        elif not HARMLESS.match(flat):
            yield _unjudged(flat)


def _unjudged(statement: str) -> str:
    return f"what this would lose cannot be judged: {statement[:200]}"


def _column(connection: Connection, table: str, column: str) -> Iterator[str]:
    default = _default(connection, table, column)
    if default is None:
        return  # not there, or computed from others
    changed = f'"{column}" IS DISTINCT FROM {default}'
    if rows := _count(connection, table, changed):
        yield f"{table}.{column} holds {rows} values"


def _default(connection: Connection, table: str, column: str) -> str | None:
    """What a row has in it that nobody filled."""
    row = connection.execute(DEFAULT, (table, column)).fetchone()
    if row is None:
        return None
    return str(row[0]) if row[0] is not None and CONSTANT.match(str(row[0])) else "NULL"


def _is_there(connection: Connection, table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    return row is not None and bool(row[0])


def _count(connection: Connection, table: str, where: str) -> int:
    name = sql.Identifier(*table.split(".", 1))
    if not _is_there(connection, table):
        return 0
    query = sql.SQL("SELECT count(*) FROM {} WHERE ").format(name)
    row = connection.execute(query.as_string(connection).encode() + where.encode()).fetchone()
    return int(row[0]) if row else 0


def _guarded(step: PlannedStep, roles_before: set[str]) -> PlannedStep:
    """The same under a name of its own in the ledger, each table looked at once more under the lock it is dropped
    with; roles that were there before stay."""
    statements: list[str] = []
    for each in step.statements:
        if found := DROP_TABLE.match(" ".join(without_comments(each).split())):
            table = found[1]
            foreign = DERIVED.get(table.replace('"', ""), "true")
            statements.append(RECHECK.format(table=table, foreign=foreign))
        role = DROP_ROLE.search(each)
        if role is None or role[1] not in roles_before:
            statements.append(each)
    return replace(step, revision=f"{step.revision} (undo)", statements=tuple(statements))
