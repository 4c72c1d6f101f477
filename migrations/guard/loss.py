"""What SQL takes away that somebody may have written, read with PostgreSQL's own grammar.

Each statement is judged whole: one of which a part is not known to be harmless cannot be judged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pg

from migrations.guard.lint.blocks import body_of
from migrations.guard.lint.source import Source, Statement, SyntaxFault, walk

# Without CASCADE each refuses to go while something uses it, and none holds rows.
DROPPED_FREELY = {
    pg.OBJECT_SCHEMA,
    pg.OBJECT_INDEX,
    pg.OBJECT_TRIGGER,
    pg.OBJECT_FUNCTION,
    pg.OBJECT_PROCEDURE,
    pg.OBJECT_SEQUENCE,
    pg.OBJECT_TYPE,
    pg.OBJECT_DOMAIN,
    pg.OBJECT_VIEW,
    pg.OBJECT_MATVIEW,
    pg.OBJECT_POLICY,
}
# What becomes of a table by these takes no value away.
ALTERED_FREELY = {
    pg.AT_AddColumn,
    pg.AT_AddConstraint,
    pg.AT_ColumnDefault,
    pg.AT_DropConstraint,
    pg.AT_DropNotNull,
    pg.AT_ResetRelOptions,
    pg.AT_SetNotNull,
    pg.AT_SetRelOptions,
    pg.AT_SetStatistics,
    pg.AT_ValidateConstraint,
}
# Another name for a table would hide what is dropped under it.
RENAMED_FREELY = {pg.OBJECT_INDEX, pg.OBJECT_TABCONSTRAINT, pg.OBJECT_TRIGGER, pg.OBJECT_SEQUENCE}
HARMLESS = {
    "comment_stmt",
    "create_function_stmt",
    "create_stmt",
    "create_trig_stmt",
    "drop_role_stmt",
    "grant_role_stmt",
    "grant_stmt",
    "index_stmt",
    "view_stmt",
}
WRITES_VERSION = {"insert_stmt", "update_stmt", "delete_stmt"}
VERSION_TABLE = ("public", "alembic_version")
# PL/pgSQL that drops roles and lets others keep them.
DROPS_ROLES = re.compile(
    r'\s*BEGIN(\s+DROP\s+ROLE\s+(IF\s+EXISTS\s+)?[\w$", ]+;)+'
    r"(\s*EXCEPTION(\s+WHEN\s+[\w ]+?\s+THEN(\s+NULL\s*;)?)+)?\s*END\s*;?\s*",
    re.IGNORECASE,
)
DROPPED_ROLES = re.compile(r"\bDROP\s+ROLE\s+(?:IF\s+EXISTS\s+)?([^;]+)", re.IGNORECASE)
REMARK = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """As in the catalog: no quotes; no schema where none was named."""

    schema: str
    name: str

    @property
    def quoted(self) -> str:
        parts = (each for each in (self.schema, self.name) if each)
        return ".".join(f'"{each.replace(chr(34), chr(34) * 2)}"' for each in parts)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True)
class Column:
    table: Table
    name: str

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True)
class Unjudged:
    sql: str

    def __str__(self) -> str:
        return f"what this would lose cannot be judged: {' '.join(self.sql.split())[:200]}"


Loss = Table | Column | Unjudged


def losses(sql: str) -> Iterator[Loss]:
    """Of all statements in `sql`."""
    try:
        found = parsed(sql)
    except SyntaxFault:
        yield Unjudged(sql)
        return
    for each in found:
        yield from _of(each)


def parsed(sql: str) -> list[Statement]:
    """What will be sent, not what a file of psql's would mean.  Raises SyntaxFault."""
    return Source(sql.encode()).statements()


def table_of(relation: pg.RangeVar) -> Table:
    return Table(relation.schemaname, relation.relname)


def _of(statement: Statement) -> Iterator[Loss]:
    node, kind = statement.node, statement.kind
    known = kind in HARMLESS
    if kind == "drop_stmt":
        gone = list(_dropped(node.drop_stmt))
        yield from gone
        known = bool(gone) or (
            _restricted(node.drop_stmt) and node.drop_stmt.remove_type in DROPPED_FREELY
        )
    elif kind == "alter_table_stmt":
        columns, known = _altered(node.alter_table_stmt)
        yield from columns
    elif kind == "rename_stmt":
        known = node.rename_stmt.rename_type in RENAMED_FREELY
    elif kind == "do_stmt":
        language, body = body_of(node.do_stmt)
        known = language == "plpgsql" and bool(DROPS_ROLES.fullmatch(REMARK.sub(" ", body)))
    elif kind in WRITES_VERSION:
        known = _writes_version_alone(node)
    if not known:
        yield Unjudged(statement.text)


def _restricted(drop: pg.DropStmt) -> bool:
    return bool(drop.behavior != pg.DROP_CASCADE)


def _dropped(drop: pg.DropStmt) -> Iterator[Loss]:
    if drop.remove_type != pg.OBJECT_TABLE or not _restricted(drop):
        return
    for each in drop.objects:
        names = [part.string.sval for part in each.list.items]
        yield Table(names[-2] if len(names) > 1 else "", names[-1])


def _altered(alter: pg.AlterTableStmt) -> tuple[Sequence[Loss], bool]:
    table = table_of(alter.relation)
    gone: list[Loss] = []
    for each in alter.cmds:
        command = each.alter_table_cmd
        if command.behavior == pg.DROP_CASCADE:
            return (), False
        if command.subtype == pg.AT_DropColumn:
            gone.append(Column(table, command.name))
        elif command.subtype not in ALTERED_FREELY:
            return (), False
    return gone, True


def roles_dropped(sql: str) -> set[str]:
    """Raises SyntaxFault."""
    found: set[str] = set()
    for each in parsed(sql):
        if each.kind == "drop_role_stmt":
            found |= {role.role_spec.rolename for role in each.node.drop_role_stmt.roles}
        elif each.kind == "do_stmt":
            body = REMARK.sub(" ", body_of(each.node.do_stmt)[1])
            names = ",".join(DROPPED_ROLES.findall(body)).split(",")
            found |= {name.strip().strip('"') for name in names}
    return found - {""}


def _writes_version_alone(node: pg.Node) -> bool:
    """Nothing hides in it: no other relation, no function."""
    return all(
        (each.schemaname, each.relname) == VERSION_TABLE
        for each in walk(node)
        if isinstance(each, pg.RangeVar)
    ) and not any(_calls(each) for each in walk(node))


def _calls(message: Message) -> bool:
    return isinstance(message, pg.FuncCall)
