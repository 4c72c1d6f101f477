"""What would be lost if a backup took the place of a database: rows, compared one by one.

Counters and positions of the write-ahead log say that something was written; only the rows say what.  Tables
are compared in buckets of their keys' hashes, and only buckets that differ are read.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter

from psycopg import Connection, sql

from migrations.guard import catalog
from migrations.guard.snapshot import columns_of, one, one_instant

BUCKETS = 4096
# What is shown of each table; all are counted.
SHOWN_ROWS = 20
# The chain's own table says where the schema is, not what anybody wrote.
NOT_WRITES = "public.alembic_version"

OLDEST = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
# Those too that an ended transaction wrote just before: then the table is compared once more than it had to be.
WRITTEN_SINCE = """
SELECT count(*), count(*) FILTER (WHERE age(xmin) <= age(%s::text::xid)) FROM ONLY {}
"""
BUCKET_SUMS = """
SELECT hashtextextended(ROW({key})::text, 0) & {mask}, sum(hashtextextended(ROW({row})::text, 0)::numeric)
FROM ONLY {table} GROUP BY 1
"""
# In the order of buckets, so that one bucket at a time is held, however many rows differ.
ROWS = """
SELECT hashtextextended(ROW({key})::text, 0) & {mask}, ROW({key})::text,
    hashtextextended(ROW({row})::text, 0), ROW({row})::text
FROM ONLY {table} WHERE (hashtextextended(ROW({key})::text, 0) & {mask}) = ANY (%s) ORDER BY 1
"""
FETCHED_ROWS = 5_000

# By key, and number among those of the same key: hash and text.
Rows = dict[tuple[str, int], tuple[int, str]]


@dataclass(frozen=True)
class Lost:
    """Rows of one table that the database has and the backup has not, or not so."""

    table: str
    rows: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rows} {'row' if self.rows == 1 else 'rows'} in {self.table}"


def phrase(lost: list[Lost]) -> str:
    """What has to be typed to give them up."""
    return ", ".join(map(str, lost))


@dataclass(frozen=True)
class Look:
    """What would be lost, table by table, and what has to stay as it is for that to be true a little later.

    `oldest` is the first transaction that was under way, or still to come, when the live database was read.
    """

    oldest: int
    tables: Mapping[str, catalog.Table]
    rows: Mapping[str, int]
    found: Mapping[str, Lost]

    @property
    def lost(self) -> list[Lost]:
        return [each for each in self.found.values() if each.rows]


def lost_writes(live: Connection, copy: Connection) -> list[Lost]:
    """Both sides are read each at one instant; neither is written to."""
    return look(live, copy).lost


def look(live: Connection, copy: Connection, since: Look | None = None) -> Look:
    """`since`: an earlier look at the same two; tables that nobody wrote to after it are not compared again."""
    with one_instant(live), one_instant(copy):
        oldest = int(str(one(live, OLDEST)))
        copied = {each.name: each for each in catalog.tables(copy)}
        tables = {each.name: each for each in catalog.tables(live) if each.name != NOT_WRITES}
        rows, found = dict[str, int](), dict[str, Lost]()
        for name, table in tables.items():
            if since is not None and _untouched(live, table, since):
                rows[name], found[name] = since.rows[name], since.found[name]
                continue
            rows[name] = _count(live, table)
            found[name] = _compare(live, copy, table, copied.get(name))
    return Look(oldest, tables, rows, found)


def _untouched(live: Connection, table: catalog.Table, since: Look) -> bool:
    """Certain by PostgreSQL's own marks: a row written since has a younger writer, one deleted is missing."""
    if since.tables.get(table.name) != table:
        return False
    query = sql.SQL(WRITTEN_SINCE).format(table.identifier)
    row = live.execute(query, (str(since.oldest % 2**32),)).fetchone()
    return row == (since.rows[table.name], 0)


def _count(live: Connection, table: catalog.Table) -> int:
    return int(str(one(live, sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier))))


def _compare(
    live: Connection, copy: Connection, table: catalog.Table, copied: catalog.Table | None
) -> Lost:
    if copied is None:
        return _all_of(live, table)
    common = {n: t for n, t in table.columns.items() if n in copied.columns}
    sides = [_Side(connection, table, common) for connection in (live, copy)]
    with ThreadPoolExecutor(len(sides)) as beside:
        here, there = beside.map(_Side.buckets, sides)
    differing = sorted(b for b in here.keys() | there.keys() if here.get(b) != there.get(b))
    count, examples = 0, list[str]()
    for ours, theirs in zip(*(each.rows(differing) for each in sides), strict=True):
        keys = dict.fromkeys(key for (key, _), _ in sorted(ours.items() ^ theirs.items()))
        count += len(keys)
        examples += [_told(key, ours, theirs) for key in islice(keys, SHOWN_ROWS - len(examples))]
    added, filled = _new_columns(live, table, copied)
    examples += filled[: SHOWN_ROWS - len(examples)]
    return Lost(table.name, count + added, tuple(examples))


class _Side:
    """One database's view of a table, by the columns that both have."""

    def __init__(
        self, connection: Connection, table: catalog.Table, common: dict[str, str]
    ) -> None:
        self._connection = connection
        keyed = table.key and set(table.key) <= common.keys()
        whole = columns_of(common)
        self._parts = {
            "table": table.identifier,
            "row": whole,
            # Without a key a row is told from others by all that it holds.
            "key": sql.SQL(", ").join(map(sql.Identifier, table.key)) if keyed else whole,
            "mask": sql.Literal(BUCKETS - 1),
        }

    def buckets(self) -> dict[int, object]:
        query = sql.SQL(BUCKET_SUMS).format(**self._parts)
        return dict(self._connection.execute(query).fetchall())

    def rows(self, buckets: list[int]) -> Iterator[Rows]:
        """The rows of each of these buckets, in their order."""
        if not buckets:
            return
        query = sql.SQL(ROWS).format(**self._parts)
        with self._connection.cursor(name="lost_writes") as cursor:
            cursor.itersize = FETCHED_ROWS
            groups = groupby(cursor.execute(query, (buckets,)), key=itemgetter(0))
            bucket, group = next(groups, (None, iter(())))
            for wanted in buckets:
                if bucket != wanted:
                    yield {}
                    continue
                yield _numbered(group)
                bucket, group = next(groups, (None, iter(())))


def _numbered(rows: Iterable[tuple[int, str, int, str]]) -> Rows:
    found: Rows = {}
    seen: dict[str, int] = {}
    for _, key, digest, text in rows:
        seen[key] = seen.get(key, 0) + 1
        found[key, seen[key]] = (digest, text)
    return found


def _told(key: str, ours: Rows, theirs: Rows) -> str:
    here = [text for (k, _), (_, text) in ours.items() if k == key]
    there = [text for (k, _), (_, text) in theirs.items() if k == key]
    if not there:
        return f"added: {here[0]}"
    if not here:
        return f"deleted: {there[0]}"
    return f"changed: {there[0]} to {here[0]}"


def _all_of(live: Connection, table: catalog.Table) -> Lost:
    count = sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier)
    row = live.execute(count).fetchone()
    query = sql.SQL("SELECT t::text FROM ONLY {} t LIMIT {}")
    some = live.execute(query.format(table.identifier, sql.Literal(SHOWN_ROWS)))
    examples = tuple(f"in a table that the backup has not: {text}" for (text,) in some)
    return Lost(table.name, row[0] if row else 0, examples)


def _new_columns(
    live: Connection, table: catalog.Table, copied: catalog.Table
) -> tuple[int, list[str]]:
    """Rows in which a column that the backup has not holds more than its default."""
    tests = list(_filled(table, copied))
    if not tests:
        return 0, []
    where = sql.SQL(" OR ").join(tests)
    count = live.execute(
        sql.SQL("SELECT count(*) FROM ONLY {} WHERE {}").format(table.identifier, where)
    ).fetchone()
    query = sql.SQL("SELECT t::text FROM ONLY {} t WHERE {} LIMIT {}")
    some = live.execute(query.format(table.identifier, where, sql.Literal(SHOWN_ROWS)))
    told = [f"with columns that the backup has not: {text}" for (text,) in islice(some, SHOWN_ROWS)]
    return (count[0] if count else 0), told


def _filled(table: catalog.Table, copied: catalog.Table) -> Iterator[sql.Composable]:
    for name in sorted(table.columns.keys() - copied.columns.keys()):
        definition = table.columns[name]
        if " GENERATED AS " in definition:
            continue
        default = definition.rpartition(" DEFAULT ")[2]
        yield sql.SQL("{}::text IS DISTINCT FROM ({})::text").format(
            sql.Identifier(name), sql.SQL(default)
        )
