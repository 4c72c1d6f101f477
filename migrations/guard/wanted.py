"""Names that a plan wants to create and that somebody has taken, unless the plan itself frees them first."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from postgast import pg_query_pb2 as pg
from psycopg import Connection

from migrations.guard.lint.source import Statement, SyntaxFault
from migrations.guard.loss import parsed
from migrations.guard.statements import PlannedStep

# A table has a type of its own name, and so has a view.
RELATION = """
SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""
TYPE = """
SELECT 1 FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace
WHERE n.nspname = %s AND y.typname = %s AND y.typcategory <> 'A'
"""
SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = %s AND %s = ''"
TAKEN = {"schema": (SCHEMA,), "sequence": (RELATION,), "type": (TYPE,)}
RENAMES = {
    pg.OBJECT_TABLE,
    pg.OBJECT_VIEW,
    pg.OBJECT_MATVIEW,
    pg.OBJECT_SEQUENCE,
    pg.OBJECT_INDEX,
    pg.OBJECT_TYPE,
}

Name = tuple[str, str]


@dataclass(frozen=True)
class Wanted:
    """`name` is schema and name, of a schema its own and nothing."""

    kind: str
    name: Name
    revision: str

    def __str__(self) -> str:
        return ".".join(filter(None, self.name))


def in_the_way(
    connection: Connection, steps: Sequence[PlannedStep], done: Collection[tuple[str, int]]
) -> Iterator[Wanted]:
    """What is there already.  `done`: steps that an earlier run has taken."""
    freed = _Freed()
    for step in steps:
        if (step.revision, step.number) in done:
            continue
        for statement in _statements(step):
            for kind, name in _created(statement):
                taken = TAKEN.get(kind, (RELATION, TYPE))
                if not freed.has(name) and any(
                    connection.execute(each.encode(), name).fetchone() for each in taken
                ):
                    yield Wanted(kind, name, step.revision)
            freed.note(statement)


def _statements(step: PlannedStep) -> Iterator[Statement]:
    for each in step.statements:
        try:
            yield from parsed(each)
        except SyntaxFault:
            # The linter says what and where.
            continue


def _created(statement: Statement) -> Iterator[tuple[str, Name]]:
    """Kind and name of what must not be there yet."""
    node = statement.node
    match statement.kind:
        case "create_stmt" if not node.create_stmt.if_not_exists:
            yield from _relation("table", node.create_stmt.relation)
        case "create_table_as_stmt" if not node.create_table_as_stmt.if_not_exists:
            made = node.create_table_as_stmt
            kind = "materialized view" if made.objtype == pg.OBJECT_MATVIEW else "table"
            yield from _relation(kind, made.into.rel)
        case "view_stmt" if not node.view_stmt.replace:
            yield from _relation("view", node.view_stmt.view)
        case "create_seq_stmt" if not node.create_seq_stmt.if_not_exists:
            yield from _relation("sequence", node.create_seq_stmt.sequence)
        case "composite_type_stmt":
            yield from _relation("type", node.composite_type_stmt.typevar)
        case "create_enum_stmt":
            yield from _type(node.create_enum_stmt.type_name)
        case "create_range_stmt":
            yield from _type(node.create_range_stmt.type_name)
        case "create_domain_stmt":
            yield from _type(node.create_domain_stmt.domainname)
        case "create_schema_stmt" if not node.create_schema_stmt.if_not_exists:
            yield "schema", (node.create_schema_stmt.schemaname, "")


def _relation(kind: str, relation: pg.RangeVar) -> Iterator[tuple[str, Name]]:
    # One without a schema is refused elsewhere, a temporary one is nobody else's.
    if relation.schemaname and relation.relpersistence != "t":
        yield kind, (relation.schemaname, relation.relname)


def _type(name: Sequence[pg.Node]) -> Iterator[tuple[str, Name]]:
    parts = [each.string.sval for each in name]
    if len(parts) == 2:
        yield "type", (parts[0], parts[1])


class _Freed:
    """Names that the plan drops or renames before it wants them."""

    def __init__(self) -> None:
        self._names: set[Name] = set()
        self._blocks: list[str] = []

    def has(self, name: Name) -> bool:
        """A block of code that speaks of it may do so too."""
        last = name[1] or name[0]
        gone = name in self._names or (name[0], "") in self._names
        return gone or any(last in each for each in self._blocks)

    def note(self, statement: Statement) -> None:
        node = statement.node
        match statement.kind:
            case "drop_stmt":
                self._names |= {name for each in node.drop_stmt.objects for name in _named(each)}
            case "rename_stmt":
                renamed = node.rename_stmt
                if renamed.rename_type == pg.OBJECT_SCHEMA:
                    self._names.add((renamed.subname, ""))
                elif renamed.rename_type in RENAMES:
                    self._names |= {_of(renamed.relation), *_named(renamed.object)}
            case "alter_object_schema_stmt":
                moved = node.alter_object_schema_stmt
                self._names |= {_of(moved.relation), *_named(moved.object)}
            case "do_stmt" | "select_stmt" | "call_stmt":
                self._blocks.append(str(node))


def _of(relation: pg.RangeVar) -> Name:
    return relation.schemaname, relation.relname


def _named(item: pg.Node) -> Iterator[Name]:
    if item.HasField("string"):
        yield item.string.sval, ""
        return
    parts = item.type_name.names if item.HasField("type_name") else item.list.items
    words = [each.string.sval for each in parts]
    if len(words) == 2:
        yield words[0], words[1]
