"""Take back what a run created, if it holds nobody's data; else keep everything and say what is in the way.

What would be lost is read from the very SQL of the downgrade: tables, columns, and nothing that cannot be judged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from psycopg import Connection, sql

from migrations.guard.apply import Applier
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
    guarded = [_guarded(step, roles_before) for step in steps]
    applier.apply(guarded)
    trail.record("undo_done", steps=len(guarded))
    return Undone(len(guarded))


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
    row = connection.execute(DEFAULT, (table, column)).fetchone()
    if row is None:
        return  # not there, or computed from others
    default = str(row[0]) if row[0] is not None and CONSTANT.match(str(row[0])) else "NULL"
    changed = f'"{column}" IS DISTINCT FROM {default}'
    if rows := _count(connection, table, changed):
        yield f"{table}.{column} holds {rows} values"


def _count(connection: Connection, table: str, where: str) -> int:
    name = sql.Identifier(*table.split(".", 1))
    exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if exists is None or not exists[0]:
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
