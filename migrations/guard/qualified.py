"""Names without a schema: the job works with search_path = pg_catalog, where they mean nothing.

Whose tables a plan changes must not hang on the settings of a role or a session.
"""

from collections.abc import Iterable, Iterator

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.source import Statement, SyntaxFault, walk
from migrations.guard.loss import parsed

HAVE_SCHEMAS = {
    pg.OBJECT_TABLE,
    pg.OBJECT_INDEX,
    pg.OBJECT_VIEW,
    pg.OBJECT_MATVIEW,
    pg.OBJECT_SEQUENCE,
}


def bare_names(statements: Iterable[str]) -> list[str]:
    """Tables, views, indexes that are named without one, in their order; none where the SQL sets a path itself."""
    found: dict[str, None] = {}
    own: set[str] = set()
    for each in statements:
        if "search_path" in each:
            return []
        try:
            listed = parsed(each)
        except SyntaxFault:
            # The linter says what and where.
            continue
        for statement in listed:
            own |= set(_of_itself(statement))
            found |= dict.fromkeys(_bare(statement))
    return [each for each in found if each not in own]


def _of_itself(statement: Statement) -> Iterator[str]:
    """WITH queries, and temporary tables: their schema is searched first."""
    for each in walk(statement.node):
        if isinstance(each, pg.CommonTableExpr):
            yield each.ctename
        elif isinstance(each, pg.RangeVar) and each.relpersistence == "t":
            yield each.relname


def _bare(statement: Statement) -> Iterator[str]:
    for each in walk(statement.node):
        if isinstance(each, pg.RangeVar):
            # PostgreSQL's own are found.
            if not each.schemaname and not each.relname.startswith("pg_"):
                yield each.relname
        elif isinstance(each, pg.DropStmt) and each.remove_type in HAVE_SCHEMAS:
            yield from (
                one.list.items[0].string.sval for one in each.objects if len(one.list.items) == 1
            )
