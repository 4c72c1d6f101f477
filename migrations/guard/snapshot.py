"""What a database is at one instant: structure, rows, money, faults.  Two of them can be compared.

Everything is read in one transaction, so that a repeatable read gives one instant.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import Connection, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from pydantic import BaseModel, ConfigDict

from migrations.guard import catalog
from migrations.guard.progress import Say, silent

# Any order of rows gives the same sum; 64 bits of hash over key and value see a cent that changed its row.
CHECKSUM = "sum(hashtextextended(ROW({})::text, 0)::numeric)::text"
# PostgreSQL's own limit is 1,664 columns of a result.
LONGEST_LIST = 1_000
TABLE_BYTES = """
SELECT oid, coalesce(pg_relation_size(oid), 0) FROM pg_class WHERE relkind = 'r' AND relpersistence <> 't'
"""
SETTINGS = {
    # Names then come out qualified, values as the same text in every session.
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # A role's own limits are for its requests.
    "statement_timeout": "0",
    # Behind somebody's schema change it would wait for ever.
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "0",
    # Keys of five million rows are then told apart in memory, in seconds; by the default's 4 MB in minutes, on disk.
    "work_mem": "256MB",
}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Money(Frozen):
    """`total` is None for a column that cannot be added up (jsonb)."""

    total: str | None
    checksum: str | None


class Table(Frozen):
    """`contents` is a checksum of every row, if asked for."""

    rows: int
    columns: dict[str, str]
    money: dict[str, Money]
    contents: str | None


class Constraint(Frozen):
    """`violations` is None where they were not, or cannot be, counted."""

    table: str
    definition: str
    validated: bool
    violations: int | None


class Index(Frozen):
    table: str
    definition: str
    valid: bool


class Snapshot(Frozen):
    """`instant` is PostgreSQL's own name of it: pg_current_snapshot()."""

    instant: str
    revision: tuple[str, ...]
    tables: dict[str, Table]
    constraints: dict[str, Constraint]
    indexes: dict[str, Index]
    grants: dict[str, tuple[str, ...]]
    objects: dict[str, str]


@dataclass(frozen=True)
class Known:
    """What need not be read again: rows, money and duplicates of all tables of `before` but those in `moved`."""

    before: Snapshot
    moved: frozenset[str] = frozenset()

    def table(self, name: str, columns: dict[str, str]) -> Table | None:
        was = self.before.tables.get(name)
        if was is None or name in self.moved or not was.columns.items() <= columns.items():
            return None
        return Table(rows=was.rows, columns=columns, money=was.money, contents=None)

    def duplicates(self, name: str, constraint: catalog.Constraint) -> int | None:
        was = self.before.constraints.get(name)
        if was is None or constraint.kind not in "up" or was.table in self.moved:
            return None
        return was.violations if was.definition == constraint.definition else None


NOTHING_KNOWN = Known(
    Snapshot(instant="", revision=(), tables={}, constraints={}, indexes={}, grants={}, objects={})
)


def take(
    connection: Connection,
    *,
    contents: bool = False,
    violations: bool = True,
    progress: Say = silent,
    known: Known = NOTHING_KNOWN,
) -> Snapshot:
    """`contents`: checksum every row too.  `violations`: count what breaks each constraint.  With something `known`
    the snapshot keeps that one's instant, so that who wrote since is asked from there.

    In the caller's transaction, else in one of its own that reads one instant.
    """
    if connection.info.transaction_status == TransactionStatus.IDLE:
        with one_instant(connection):
            return take(
                connection,
                contents=contents,
                violations=violations,
                progress=progress,
                known=known,
            )
    prepare(connection)
    # What defines them first: of a table that was dropped meanwhile PostgreSQL can write out nothing.
    with letting_go(connection):
        tables, constraints = catalog.tables(connection), catalog.constraints(connection)
        indexes = connection.execute(catalog.INDEXES).fetchall()
        grants = connection.execute(catalog.GRANTS).fetchall()
        objects = connection.execute(catalog.OBJECTS).fetchall()
    now = str(one(connection, "SELECT pg_current_snapshot()::text"))
    return Snapshot(
        instant=known.before.instant or now,
        revision=revision(connection),
        tables=dict(_tables(connection, tables, contents, (progress, known))),
        constraints=dict(_constraints(connection, constraints, known if violations else None)),
        indexes={
            name: Index(table=table, definition=definition, valid=valid)
            for name, table, definition, valid in indexes
        },
        grants={name: tuple(each) for name, each in grants},
        objects=dict(objects),
    )


@contextmanager
def one_instant(connection: Connection) -> Iterator[None]:
    """A transaction that sees nothing of what is written meanwhile; it leaves the session as it was."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        prepare(connection)
        yield
    finally:
        connection.rollback()


@contextmanager
def letting_go(connection: Connection) -> Iterator[None]:
    """What is locked in here is free again afterwards: thousands of tables fill the server's table of locks, and
    somebody's schema change waits for one of them only as long as it is read.  The instant stays."""
    with connection.transaction(force_rollback=True):
        yield


def prepare(connection: Connection) -> None:
    """Until the transaction ends."""
    for name, value in SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))


def revision(connection: Connection) -> tuple[str, ...]:
    if one(connection, "SELECT to_regclass('public.alembic_version')") is None:
        return ()
    query = "SELECT version_num FROM public.alembic_version ORDER BY 1"
    return tuple(str(row[0]) for row in connection.execute(query).fetchall())


def one(connection: Connection, query: str | sql.Composed) -> object:
    row = connection.execute(query.encode() if isinstance(query, str) else query).fetchone()
    return row[0] if row else None


def _tables(
    connection: Connection,
    tables: Sequence[catalog.Table],
    contents: bool,
    how: tuple[Say, Known],
) -> Iterator[tuple[str, Table]]:
    """The bar moves with the bytes of the tables that are read."""
    progress, known = how
    sizes = dict[int, int]()
    if progress is not silent:
        # Never on a live database: it waits behind somebody's schema change.
        sizes |= connection.execute(TABLE_BYTES).fetchall()
    what, read = f"reading of {connection.info.dbname}", 0
    expected = sum(sizes.get(each.oid, 0) for each in tables)
    for table in tables:
        progress(what, read, expected)
        found = known.table(table.name, table.columns) or _table(connection, table, contents)
        if found is not None:
            yield table.name, found
        read += sizes.get(table.oid, 0)
    progress(what, expected, expected)


def _table(connection: Connection, table: catalog.Table, contents: bool) -> Table | None:
    """None if somebody dropped it meanwhile."""
    wanted: list[sql.Composable] = [sql.SQL("count(*)")]
    for column in table.money:
        name = sql.Identifier(column)
        summed = sql.SQL("sum({})::text" if column in table.numbers else "NULL::text")
        key = sql.SQL(", ").join([*map(sql.Identifier, table.key), name])
        wanted += [summed.format(name), sql.SQL(CHECKSUM).format(key)]
    if contents:
        wanted.append(sql.SQL(CHECKSUM).format(columns_of(table.columns)))
    row = _values(connection, wanted, sql.SQL("ONLY {}").format(table.identifier))
    if row is None:
        return None
    sums = iter(row[1 : 1 + 2 * len(table.money)])
    return Table(
        rows=row[0],
        columns=table.columns,
        money={c: Money(total=next(sums), checksum=next(sums)) for c in table.money},
        contents=row[-1] if contents else None,
    )


def _values(
    connection: Connection, wanted: Sequence[sql.Composable], place: sql.Composable
) -> TupleRow | None:
    """One aggregate for each that is wanted; None if the table is gone."""
    found: TupleRow = ()
    for start in range(0, len(wanted), LONGEST_LIST):
        listed = sql.SQL(", ").join(wanted[start : start + LONGEST_LIST])
        try:
            with letting_go(connection):
                row = connection.execute(
                    sql.SQL("SELECT {} FROM {}").format(listed, place)
                ).fetchone()
        except psycopg.errors.UndefinedTable:
            return None
        found += row or ()
    return found


def columns_of(names: dict[str, str]) -> sql.Composed:
    """In the order of their names: a dump may bring columns back in another order than a table grew."""
    return sql.SQL(", ").join(map(sql.Identifier, sorted(names)))


def _constraints(
    connection: Connection, found: Sequence[catalog.Constraint], known: Known | None
) -> Iterator[tuple[str, Constraint]]:
    counted = _counts(connection, found, known) if known is not None else {}
    for each in found:
        name = f"{each.table}.{each.name}"
        yield (
            name,
            Constraint(
                table=each.table,
                definition=each.definition,
                validated=each.validated,
                violations=counted.get(name),
            ),
        )


def _counts(
    connection: Connection, found: Sequence[catalog.Constraint], known: Known
) -> dict[str, int]:
    """Violations by name; all that can be told of a row by itself is told in one pass over its table."""
    counted: dict[str, int] = {}
    by_row: dict[str, list[tuple[catalog.Constraint, sql.Composed]]] = {}
    for each in found:
        name = f"{each.table}.{each.name}"
        before = known.duplicates(name, each)
        if before is not None:
            counted[name] = before
        elif condition := each.broken_by_row():
            by_row.setdefault(each.table, []).append((each, condition))
        elif query := each.violations():
            row = _values(connection, [sql.SQL("n")], sql.SQL("({}) v(n)").format(query))
            counted |= {name: row[0]} if row else {}
    for table, pairs in by_row.items():
        counts = [sql.SQL("count(*) FILTER (WHERE {})").format(broken) for _, broken in pairs]
        row = _values(connection, counts, sql.SQL("{} c").format(pairs[0][0].place))
        if row is not None:
            counted |= {f"{table}.{c.name}": n for (c, _), n in zip(pairs, row, strict=True)}
    return counted
