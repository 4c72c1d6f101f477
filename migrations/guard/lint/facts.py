"""What the live database says of itself: sizes, types, constraints, and the timeouts in effect on a connection."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import TupleRow

# Below both, a scan or rewrite is over before anybody's lock_timeout would have been.
SMALL_ROWS = 10_000
SMALL_BYTES = 8 * 1024 * 1024

Name = tuple[str, str]

TABLES = """
SELECT n.nspname, c.relname, c.reltuples::bigint, pg_table_size(c.oid), c.relkind::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
COLUMNS = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
CHECKS = """
SELECT n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'c'
"""
INDEXES = """
SELECT tn.nspname, t.relname, xn.nspname, x.relname, i.indisvalid,
    CASE WHEN i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL THEN a.attname END
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0] AND i.indkey[0] > 0
WHERE tn.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
# An overloaded name stands for the one of them that may do most.
FUNCTIONS = """
SELECT DISTINCT ON (p.proname) p.proname, l.lanname, p.provolatile::text,
    CASE WHEN l.lanname IN ('sql', 'plpgsql') AND p.prosrc <> '' THEN p.prosrc END,
    CASE WHEN l.lanname = 'plpgsql' THEN pg_get_functiondef(p.oid) ELSE '' END
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.prorettype <> 'trigger'::regtype
ORDER BY p.proname, p.provolatile = 'v' DESC, l.lanname IN ('internal', 'c')
"""
DOMAINS = """
SELECT t.typname FROM pg_type t WHERE t.typtype = 'd'
  AND (t.typnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid))
"""


@dataclass(frozen=True)
class TableFacts:
    """`rows` is the planner's estimate; -1 when the table was never analyzed."""

    rows: int
    size_bytes: int

    @property
    def small(self) -> bool:
        return self.rows < SMALL_ROWS and self.size_bytes < SMALL_BYTES

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1024 / 1024:,.1f} MB"
        return f"about {self.rows:,} rows, {size}" if self.rows >= 0 else f"never analyzed, {size}"


@dataclass(frozen=True)
class FunctionFacts:
    """`volatility` as in pg_proc; no body where it is compiled or already parsed."""

    language: str
    volatility: str
    body: str | None
    definition: str


@dataclass(frozen=True)
class CheckFacts:
    table: Name
    name: str
    definition: str
    validated: bool


@dataclass(frozen=True)
class IndexFacts:
    table: Name
    valid: bool
    unique_column: str | None


@dataclass(frozen=True)
class LiveFacts:
    """Timeouts in milliseconds, 0 for none, as in effect on the connection that was asked."""

    lock_timeout_ms: int
    statement_timeout_ms: int
    server_version: int
    tables: Mapping[Name, TableFacts] = field(default_factory=dict)
    columns: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    checks: tuple[CheckFacts, ...] = ()
    indexes: Mapping[Name, IndexFacts] = field(default_factory=dict)
    functions: Mapping[str, FunctionFacts] = field(default_factory=dict)
    strict_domains: frozenset[str] = frozenset()

    def size_told(self, table: Name) -> str:
        found = self.tables.get(table)
        return str(found) if found else "not in this database, presumed large"

    @classmethod
    def read(cls, connection: psycopg.Connection[TupleRow]) -> "LiveFacts":
        """Reads the catalogs only; takes no lock that anybody waits for."""

        def setting(name: str) -> int:
            query = "SELECT setting::bigint FROM pg_settings WHERE name = %s"
            row = connection.execute(query, [name]).fetchone()
            return int(row[0]) if row else 0

        return cls(
            lock_timeout_ms=setting("lock_timeout"),
            statement_timeout_ms=setting("statement_timeout"),
            server_version=connection.info.server_version,
            # A parent has no rows of its own: how much hangs below it is not asked, so it is never small.
            tables={
                (schema, table): TableFacts(rows, SMALL_BYTES if kind == "p" else size)
                for schema, table, rows, size, kind in connection.execute(TABLES)
            },
            columns={
                (schema, table, column): shape
                for schema, table, column, shape in connection.execute(COLUMNS)
            },
            checks=tuple(
                CheckFacts((schema, table), name, definition, validated)
                for schema, table, name, definition, validated in connection.execute(CHECKS)
            ),
            indexes={
                (schema, index): IndexFacts((table_schema, table), valid, column)
                for table_schema, table, schema, index, valid, column in connection.execute(INDEXES)
            },
            functions={
                name: FunctionFacts(*found) for name, *found in connection.execute(FUNCTIONS)
            },
            strict_domains=frozenset(name for (name,) in connection.execute(DOMAINS)),
        )
