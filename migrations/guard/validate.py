"""Is the database whole?  By itself, or measured against what it was before.

Foreign keys, checks and unique constraints are counted row by row, also those PostgreSQL was told not to check;
every B-tree is compared with its table where amcheck can be had.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import psycopg
from psycopg import Connection, sql

from migrations.guard import catalog
from migrations.guard.compare import Difference, Expected, Severity, compare
from migrations.guard.progress import Say, silent
from migrations.guard.snapshot import Snapshot, one, one_instant, take

EXAMPLES = 3
# Against nothing, every fault is one that nobody knew of.
NOTHING = Snapshot(
    instant="", revision=(), tables={}, constraints={}, indexes={}, grants={}, objects={}
)
# amcheck's own test of uniqueness came with it.
UNIQUENESS_SINCE = 170_000
AMCHECK_SCHEMA = """
SELECT n.nspname FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname = 'amcheck'
"""
AMCHECK_AVAILABLE = "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"
BTREES = f"""
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relpages
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't'
    AND i.indisvalid AND i.indisready AND {catalog.NOT_OURS}
ORDER BY 2
"""
IS_THERE = "SELECT 1 FROM pg_class WHERE oid = %s"
# A planner that believes in a tenth or in ten times the rows plans for another table.
STALE = f"""
SELECT format('%I.%I', n.nspname, c.relname), c.reltuples::bigint FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {catalog.NOT_OURS}
"""
CORRUPT = (
    psycopg.errors.DataCorrupted,
    psycopg.errors.IndexCorrupted,
    psycopg.errors.InternalError_,
)
STALE_FACTOR, STALE_FROM_ROWS = 10, 1_000
# At most so many indexes, and no more than 80 MB of them, in one statement.
BATCH, BATCH_PAGES = 50, 10_000

# Oid, name, pages as of the last VACUUM or ANALYZE.
BTree = tuple[int, str, int]


@dataclass(frozen=True)
class Report:
    """`findings` in the order of severity; `indexes` is what amcheck looked at, None if it could not."""

    revision: tuple[str, ...]
    tables: int
    rows: int
    constraints: int
    indexes: int | None
    findings: tuple[Difference, ...]

    @property
    def faults(self) -> tuple[Difference, ...]:
        """New ones; those that were there before fail nothing."""
        return tuple(each for each in self.findings if each.severity == Severity.NEW)

    @property
    def whole(self) -> bool:
        return not self.faults

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "whole": self.whole}

    def lines(self) -> Iterator[str]:
        at = ", ".join(self.revision) or "no revision"
        checked = "not checked" if self.indexes is None else f"{self.indexes} checked with amcheck"
        yield f"revision {at}: {self.tables} tables, {self.rows:,} rows, {self.constraints} constraints"
        yield f"indexes: {checked}"
        yield from map(str, self.findings)
        new, old = (self._count(each) for each in (Severity.NEW, Severity.OLD))
        yield f"{'whole' if self.whole else 'NOT whole'}: {new} new faults, {old} old ones"

    def _count(self, severity: Severity) -> int:
        return len([each for each in self.findings if each.severity == severity])


def validate(
    connection: Connection, before: Snapshot | None = None, expected: Expected | None = None
) -> Report:
    """`connection` is in autocommit.  Changes nothing.  Raises psycopg.Error."""
    with one_instant(connection):
        after = take(connection)
        found = compare(before or NOTHING, after, expected or Expected())
        if before is None:
            found = [each for each in found if each.severity != Severity.CHANGE]
        told = [_with_examples(each, connection) for each in found]
        stale = list(_stale(connection, after))
    indexes, damaged = check_indexes(connection)
    findings = sorted(
        [*told, *damaged, *stale], key=lambda each: list(Severity).index(each.severity)
    )
    return Report(
        revision=after.revision,
        tables=len(after.tables),
        rows=sum(each.rows for each in after.tables.values()),
        constraints=len(after.constraints),
        indexes=indexes,
        findings=tuple(findings),
    )


def check_indexes(
    connection: Connection, known: Collection[str] = (), progress: Say = silent
) -> tuple[int | None, list[Difference]]:
    """How many B-trees amcheck looked at, and those that are damaged; all but `known` are compared with their tables.

    Where the extension is not installed, it is created in a transaction that is rolled back.
    """
    schema = one(connection, AMCHECK_SCHEMA)
    if schema is None and one(connection, AMCHECK_AVAILABLE) != 1:
        return None, [_not_checked("this server has no amcheck")]
    try:
        return _each_index(_Amcheck(connection, schema), known, progress)
    except psycopg.errors.InsufficientPrivilege:
        return None, [
            _not_checked("CREATE EXTENSION amcheck, as a superuser, lets this be checked")
        ]


class _Amcheck:
    """Each call is a transaction of its own: nobody waits behind a long list, and no old row is kept for it."""

    def __init__(self, connection: Connection, schema: object) -> None:
        self.connection = connection
        self._installed = schema is not None
        unique = ", true" if connection.info.server_version >= UNIQUENESS_SINCE else ""
        self._query = sql.SQL(
            "SELECT count({}(i::regclass, h" + unique + ")::text)"
            " FROM unnest(%s::oid[], %s::bool[]) u(i, h)"
        ).format(sql.Identifier(str(schema or "public"), "bt_index_check"))

    def damage(self, checks: Sequence[tuple[int, bool]]) -> str | None:
        """What is wrong with one of them.  (Index, whether it is compared with its table.)"""
        try:
            with self.connection.transaction(force_rollback=True):
                if not self._installed:
                    self.connection.execute("CREATE EXTENSION amcheck SCHEMA public")
                self.connection.execute("SET LOCAL statement_timeout = 0")
                self.connection.execute(self._query, tuple(map(list, zip(*checks, strict=True))))
        except CORRUPT as error:
            return " ".join(str(error.diag.message_primary or error).split())
        return None


def _each_index(
    amcheck: _Amcheck, known: Collection[str], progress: Say
) -> tuple[int, list[Difference]]:
    connection = amcheck.connection
    indexes = connection.execute(BTREES.encode()).fetchall()
    done, expected = 0, sum(pages for _, _, pages in indexes)
    damaged: list[Difference] = []
    for batch in _batches(indexes):
        progress(f"amcheck of {connection.info.dbname}", done, expected)
        done += sum(pages for _, _, pages in batch)
        checks = [(oid, name not in known) for oid, name, _ in batch]
        if not amcheck.damage(checks):
            continue
        for check, (oid, name, _) in zip(checks, batch, strict=True):
            said = amcheck.damage([check])
            # Somebody may have dropped it meanwhile.
            if said and connection.execute(IS_THERE, (oid,)).fetchone():
                damaged.append(
                    Difference(Severity.NEW, "index", name, f"is damaged: {said}; REINDEX it")
                )
    progress(f"amcheck of {connection.info.dbname}", expected, expected)
    return len(indexes), damaged


def _batches(indexes: Sequence[BTree]) -> Iterator[list[BTree]]:
    """Small ones together, a round trip for each would be most of the time; a large one by itself."""
    batch, pages = list[BTree](), 0
    for each in indexes:
        if batch and (len(batch) == BATCH or pages + each[2] > BATCH_PAGES):
            yield batch
            batch, pages = [], 0
        batch.append(each)
        pages += each[2]
    if batch:
        yield batch


def _not_checked(why: str) -> Difference:
    return Difference(Severity.NOTE, "index", "all", f"not compared with their tables: {why}")


def _with_examples(found: Difference, connection: Connection) -> Difference:
    if found.kind != "constraint" or found.severity not in (Severity.NEW, Severity.OLD):
        return found
    by_name = {f"{each.table}.{each.name}": each for each in catalog.constraints(connection)}
    constraint = by_name.get(found.name)
    query = constraint.examples(EXAMPLES) if constraint is not None else None
    if query is None:
        return found
    values = [str(row[0]) for row in connection.execute(query).fetchall()]
    return replace(found, message=f"{found.message}, such as {_list(values)}") if values else found


def _list(values: Sequence[str]) -> str:
    return ", ".join(values)


def _stale(connection: Connection, now: Snapshot) -> Iterator[Difference]:
    for name, believed in connection.execute(STALE.encode()).fetchall():
        table = now.tables.get(name)
        if table is None or max(table.rows, believed) < STALE_FROM_ROWS:
            continue
        if not table.rows / STALE_FACTOR <= believed <= table.rows * STALE_FACTOR:
            thinks = "nothing" if believed < 0 else f"{believed:,} rows"
            said = f"has {table.rows:,} rows, the planner knows of {thinks}: ANALYZE it"
            yield Difference(Severity.NOTE, "statistics", name, said)
