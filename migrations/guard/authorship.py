"""Whether a row that this run's transactions wrote last holds nothing but what this run put there.

A row's writer is known by its xmin, but an UPDATE of ours may have carried a value of somebody else's along, and
what was copied before its original was overwritten is the only one there is.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message
from postgast import pg_query_pb2 as pg
from psycopg import Connection

from migrations.guard.lint import blocks
from migrations.guard.lint.source import Statement, SyntaxFault, walk
from migrations.guard.loss import VERSION_TABLE, Column, Loss, Table, losses, parsed, table_of

# Under search_path = pg_catalog a function of anybody's is called with its schema.
CALLED = re.compile(r'[\w"]\s*\.\s*[\w"]+\s*\(')
OPAQUE = (
    pg.CallStmt,
    pg.ExecuteStmt,
    pg.MergeStmt,
    pg.DeleteStmt,
    pg.CopyStmt,
    pg.CreateTableAsStmt,
)
TRIGGERS = """
SELECT l.lanname, p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
WHERE NOT t.tgisinternal AND t.tgrelid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) name)
"""
# Whatever may write, wherever it stands; what is said in a literal or a remark does nothing.
WRITES = re.compile(
    r"\b(insert|update|delete|merge|truncate|copy|call|do|execute|perform|create|alter|drop|grant|revoke)\b",
    re.IGNORECASE,
)
SAID = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass
class Authorship:
    """Read from a plan's SQL.  `opaque`: it may write what cannot be read here."""

    opaque: bool = False
    written: set[Table] = field(default_factory=set)
    updated: dict[Table, list[set[str]]] = field(default_factory=dict)
    overwritten: set[Column] = field(default_factory=set)

    def alone(self, table: Table, column: str | None) -> bool:
        """Whether a row (or this column of it) is ours where its last writer is."""
        if self.opaque:
            return False
        updates = self.updated.get(table, [])
        return all(column is not None and column in set_ for set_ in updates)


def read(statements: Iterable[str], connection: Connection, going: Collection[Loss]) -> Authorship:
    """`going` is what the way back drops.  A table with a trigger may write elsewhere, unless all it does is refuse."""
    found = Authorship()
    for each in statements:
        # What is gone may live on in what we wrote.
        found.opaque |= any(isinstance(loss, Table | Column) for loss in losses(each))
        try:
            for statement in parsed(each):
                _note(statement, found)
        except SyntaxFault:
            found.opaque = True
    found.opaque |= any(not {each, each.table} & set(going) for each in found.overwritten)
    names = [each.quoted for each in found.written]
    triggers = connection.execute(TRIGGERS, (names,)).fetchall()
    found.opaque |= not all(_writes_nothing(str(name), str(body)) for name, body in triggers)
    return found


def _writes_nothing(language: str, body: str) -> bool:
    done = SAID.sub(" ", body)
    # A quote behind a backslash may end a literal or not.
    readable = language == "plpgsql" and "\\" not in body
    return readable and WRITES.search(done) is None and CALLED.search(done) is None


def _note(statement: Statement, found: Authorship) -> None:
    if statement.kind == "do_stmt":
        _note_block(statement.node.do_stmt, found)
        return
    if statement.kind in ("create_function_stmt", "create_trig_stmt"):
        return
    for each in walk(statement.node):
        if isinstance(each, OPAQUE):
            found.opaque |= not _of_version(each)
        elif isinstance(each, pg.FuncCall):
            found.opaque |= len(each.funcname) > 1 and each.funcname[0].string.sval != "pg_catalog"
        elif _of_version(each):
            continue
        elif isinstance(each, pg.InsertStmt):
            found.written.add(table_of(each.relation))
            if each.on_conflict_clause.target_list:
                _updates(found, table_of(each.relation), each.on_conflict_clause.target_list)
        elif isinstance(each, pg.UpdateStmt):
            found.written.add(table_of(each.relation))
            _updates(found, table_of(each.relation), each.target_list)


def _note_block(block: pg.DoStmt, found: Authorship) -> None:
    language, body = blocks.body_of(block)
    if language != "plpgsql" or CALLED.search(body):
        found.opaque = True
        return
    for _, text, inner in blocks.statements(blocks.plpgsql_tree(body), 1):
        found.opaque |= text is None
        for each in inner:
            _note(each, found)


def _of_version(message: Message) -> bool:
    relation = getattr(message, "relation", None)
    return (
        isinstance(relation, pg.RangeVar)
        and (relation.schemaname, relation.relname) == VERSION_TABLE
    )


def _updates(found: Authorship, table: Table, targets: Iterable[pg.Node]) -> None:
    """Columns that were given a value that has nothing of the old one."""
    values = {each.res_target.name: set(_columns_in(each.res_target.val)) for each in targets}
    found.overwritten |= {Column(table, name) for name in values}
    anew = {name for name, read_from in values.items() if not read_from & values.keys()}
    found.updated.setdefault(table, []).append(anew)


def _columns_in(value: Message) -> Iterator[str]:
    for each in walk(value):
        if isinstance(each, pg.ColumnRef):
            yield each.fields[-1].string.sval
