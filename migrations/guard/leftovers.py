"""INVALID indexes that a concurrent build or rebuild left when it was cut short: found by what it was to build.

Each write pays for them, and nobody uses them.  Those of somebody else stay, and those that are being built.
"""

import re
from collections.abc import Iterator

from postgast import pg_query_pb2 as pg
from psycopg import Connection

from migrations.guard.lint.source import SyntaxFault
from migrations.guard.loss import parsed, table_of
from migrations.guard.statements import PlannedStep

# Whoever builds or rebuilds holds this lock on the table to the end: then it may be his.  (So does VACUUM.)
INVALID = """
SELECT n.nspname, c.relname, pn.nspname, p.relname, (SELECT array_agg(a.attname::text ORDER BY k.nr)
    FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(att, nr)
        LEFT JOIN pg_attribute a ON (a.attrelid, a.attnum) = (i.indrelid, k.att) WHERE k.nr <= i.indnkeyatts),
    EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
        WHERE d.datname = current_database() AND l.relation = p.oid AND l.granted
        AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_backend_pid())
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class p ON t.oid = CASE t.relkind WHEN 't' THEN p.reltoastrelid ELSE p.oid END
    JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i'
ORDER BY 1, 2
"""
# What REINDEX CONCURRENTLY calls the new one until it takes the place of the old.
REBUILT = re.compile(r"(.*)_cc(?:new|old)\d*")
# As PostgreSQL names an index that nobody named, shortened where it must.
CHOSEN = re.compile(r".*_(?:idx|key)\d*")

Name = tuple[str, str]


def left_by(connection: Connection, step: PlannedStep) -> list[Name]:
    """(schema, index)"""
    build = None if step.transactional else _build(step.statements[0])
    if build is None:
        return []
    invalid = connection.execute(INVALID).fetchall()
    if isinstance(build, pg.IndexStmt):
        return list(_of_build(build, invalid))
    return list(_of_rebuild(build, invalid))


def _build(statement: str) -> pg.IndexStmt | pg.ReindexStmt | None:
    try:
        [found] = parsed(statement)
    except (SyntaxFault, ValueError):
        # Two statements at once are a transaction, in which nothing is built concurrently.
        return None
    if found.kind == "index_stmt" and found.node.index_stmt.concurrent:
        return found.node.index_stmt
    if found.kind == "reindex_stmt":
        return found.node.reindex_stmt
    return None


# Schema, name; schema and name of the table whose rows it serves; columns; whether somebody builds on that table.
Invalid = list[tuple[str, str, str, str, list[str | None], bool]]


def _of_build(build: pg.IndexStmt, invalid: Invalid) -> Iterator[Name]:
    table = table_of(build.relation)
    columns = [each.index_elem.name or None for each in build.index_params]
    for schema, name, _, on, keys, busy in invalid:
        if build.idxname:
            meant = name == build.idxname
        else:
            meant = not busy and on == table.name and keys == columns and _chosen(name)
        if meant and schema == (table.schema or "public"):
            yield schema, name


def _chosen(name: str) -> bool:
    return CHOSEN.fullmatch(name) is not None


def _of_rebuild(rebuild: pg.ReindexStmt, invalid: Invalid) -> Iterator[Name]:
    what = table_of(rebuild.relation)
    for schema, name, home, on, _, busy in invalid:
        of = REBUILT.fullmatch(name)
        if of is None or busy:
            continue
        match rebuild.kind:
            case pg.REINDEX_OBJECT_INDEX:
                # Long names are cut to make room for the ending.
                meant = schema == (what.schema or "public") and what.name.startswith(of[1])
            case pg.REINDEX_OBJECT_TABLE:
                meant = (home, on) == (what.schema or "public", what.name)
            case pg.REINDEX_OBJECT_SCHEMA:
                meant = home == rebuild.name
            case _:
                meant = True
        if meant:
            yield schema, name
