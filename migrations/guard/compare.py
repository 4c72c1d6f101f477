"""Before against after: what broke, what was broken already, what merely changed.

On a copy that nobody else writes to, every row and every cent must be where it was.  On the live database the
application writes all the while: there a difference counts as a fault only where this run's own transactions
wrote rows and nobody else's did, and the exact proof is the rehearsal.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from psycopg import Connection, sql

from migrations.guard import catalog
from migrations.guard.reach import Reach
from migrations.guard.snapshot import Snapshot, Table, letting_go

# xmin has 32 bits, a snapshot's ids have 64: the same number, at most one epoch back.  Below 3 nothing is a transaction.
WRITTEN = """
SELECT count(*) FILTER (WHERE x = ANY (%s)), count(*) FILTER (WHERE x <> ALL (%s))
FROM (SELECT xmin::text::bigint x FROM ONLY {}) rows,
    (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint top) now
WHERE x >= 3 AND NOT pg_visible_in_snapshot(
    (CASE WHEN x <= top %% 4294967296 THEN top - top %% 4294967296 + x
        ELSE greatest(top - top %% 4294967296 - 4294967296, 0) + x END)::text::xid8, %s::pg_snapshot)
"""
# Casts, parentheses, blanks.
SPELLING = re.compile(
    r"::(character varying|double precision|(?:timestamp|time) with(?:out)? time zone|[\w.\"]+)(\(\d+\))?(\[\])?"
    r"|[()\s]"
)
BY_OTHERS = "; changed by others meanwhile: nothing in this run's SQL can have done it"


class Severity(StrEnum):
    NEW = "new fault"
    OLD = "old fault"
    CHANGE = "change"
    NOTE = "note"


@dataclass(frozen=True)
class Difference:
    severity: Severity
    kind: str
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.kind} {self.name}: {self.message}"


@dataclass(frozen=True)
class Written:
    """Rows there now that were written since: by this run's transactions, by others'; `deleted`: by this run."""

    ours: int
    others: int
    deleted: int = 0


@dataclass(frozen=True)
class Expected:
    """What this comparison may find.  `copy`: it must be the same database over again (a restore test).

    `dropped`: tables, and columns as `schema.table.column`, that are meant to go.  `moved`: columns of money
    that are meant to change.  `revoked`: rights (table, role, letter of an ACL) that the plan's own SQL takes
    away by their names.  `written`: who wrote, table by table, on a database that others write to; None
    where nobody else does.  `reach`: what this run can have done to the structure; None is anything.
    """

    copy: bool = False
    revision: tuple[str, ...] | None = None
    dropped: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()
    grants_may_go: bool = False
    revoked: frozenset[tuple[str, str, str]] = frozenset()
    written: Mapping[str, Written] | None = None
    reach: Reach | None = None
    new_rows_in: frozenset[str] = field(default=frozenset())


EXACT = Expected(copy=True)


def compare(before: Snapshot, after: Snapshot, expected: Expected = EXACT) -> list[Difference]:
    """In the order of severity."""
    found = [
        *_revisions(before, after, expected),
        *_structure(before, after, expected),
        *_data(before, after, expected),
        *_constraints(before, after, expected),
        *_indexes(before, after, expected),
        *_grants(before, after, expected),
    ]
    return sorted(found, key=lambda each: list(Severity).index(each.severity))


def faults(found: list[Difference]) -> list[Difference]:
    return [each for each in found if each.severity == Severity.NEW]


def written_since(
    connection: Connection, before: Snapshot, own_transactions: set[int]
) -> dict[str, Written]:
    """Who wrote what is there now.  `own_transactions`: their ids and those of their savepoints, as this run noted
    them; deleted rows leave no trace."""
    own = [each % 2**32 for each in own_transactions]
    found: dict[str, Written] = {}
    for table in catalog.tables(connection):
        query = sql.SQL(WRITTEN).format(table.identifier)
        with letting_go(connection):
            row = connection.execute(query, (own, own, before.instant)).fetchone()
        if row is not None:
            found[table.name] = Written(row[0], row[1])
    return found


def _revisions(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    wanted = before.revision if expected.copy else expected.revision
    if wanted is not None and after.revision != wanted:
        said = f"{_words(after.revision)} instead of {_words(wanted)}"
        yield Difference(Severity.NEW, "revision", "public.alembic_version", said)


def _structure(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    differs = Severity.NEW if expected.copy else Severity.CHANGE
    for name, table in before.tables.items():
        there = after.tables.get(name)
        if there is None:
            yield _gone("table", name, f"{table.rows:,} rows", expected)
            continue
        for column in table.columns.keys() - there.columns.keys():
            yield _gone("column", f"{name}.{column}", table.columns[column], expected)
        for column, now in there.columns.items():
            was = table.columns.get(column, "not there")
            if not _same(was, now):
                yield Difference(differs, "column", f"{name}.{column}", f"was {was}, is {now}")
    for name in after.tables.keys() - before.tables.keys():
        yield Difference(differs, "table", name, "is new")
    for name in sorted(before.objects.keys() | after.objects.keys()):
        was, now = (each.objects.get(name, "not there") for each in (before, after))
        if not _same(was, now):
            kind, _, rest = name.partition(" ")
            yield Difference(differs, kind, rest, f"was {was}, is {now}")


def _gone(kind: str, name: str, what: str, expected: Expected) -> Difference:
    meant = name in expected.dropped or name.rpartition(".")[0] in expected.dropped
    if meant and not expected.copy:
        return Difference(Severity.CHANGE, kind, name, f"is gone ({what})")
    reach = _others_reach(expected)
    return _doing(reach is None or reach.has(name), kind, name, f"is gone ({what})")


def _others_reach(expected: Expected) -> Reach | None:
    """None where nobody else is at work: then all is this run's doing."""
    return expected.reach if expected.written is not None else None


def _doing(ours: bool, kind: str, name: str, said: str) -> Difference:
    """A fault that this run brought, else a note."""
    severity = Severity.NEW if ours else Severity.NOTE
    return Difference(severity, kind, name, said if ours else said + BY_OTHERS)


def _data(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    for name, was in before.tables.items():
        now = after.tables.get(name)
        if now is None or (name == "public.alembic_version" and not expected.copy):
            continue
        for kind, place, said in _moved(name, was, now, expected):
            severity, why = _whose(name, expected)
            yield Difference(severity, kind, place, said + why)


def _moved(name: str, was: Table, now: Table, expected: Expected) -> Iterator[tuple[str, str, str]]:
    if was.rows != now.rows and name not in expected.new_rows_in:
        yield "table", name, f"had {was.rows:,} rows, has {now.rows:,}"
    for column, money in was.money.items():
        place = f"{name}.{column}"
        there = now.money.get(column)
        if there is None or there == money or place in expected.moved:
            continue
        if there.total != money.total:
            yield "money", place, f"added up to {money.total or 0}, adds up to {there.total or 0}"
        else:
            yield "money", place, f"still adds up to {money.total}, but in other rows"
    same_columns = was.columns.keys() == now.columns.keys()
    if same_columns and was.contents and now.contents and was.contents != now.contents:
        yield "table", name, "its rows differ"


def _whose(name: str, expected: Expected) -> tuple[Severity, str]:
    if expected.written is None:
        return Severity.NEW, ""
    written = expected.written.get(name, Written(0, 0))
    if written.deleted:
        return (
            Severity.NEW,
            f"; this run deleted rows ({written.deleted:,}) and nothing says it may",
        )
    if written.ours and not written.others:
        return Severity.NEW, f"; only this run wrote ({written.ours:,} rows)"
    if written.ours:
        counts = f"{written.others:,} of the application's rows and {written.ours:,} of this run's"
        return Severity.NOTE, f"; {counts} cannot be told apart here: see the rehearsal"
    return Severity.NOTE, f"; the application wrote {written.others:,} rows, this run none"


def _constraints(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    for name, now in after.constraints.items():
        was = before.constraints.get(name)
        old = was.violations if was is not None else None
        if now.violations:
            new = now.violations > (old or 0)
            said = f"{now.violations:,} rows break {now.definition}"
            said += f" ({old:,} before)" if old else ""
            yield Difference(Severity.NEW if new else Severity.OLD, "constraint", name, said)
        if was is not None and was.validated and not now.validated:
            reach = _others_reach(expected)
            ours = reach is None or reach.has(name)
            yield _doing(ours, "constraint", name, "is no longer validated")
        elif not now.validated and not expected.copy:
            severity = Severity.OLD if was is not None else Severity.NOTE
            yield Difference(severity, "constraint", name, "is not validated")
        if expected.copy and (was is None or not _same(was.definition, now.definition)):
            yield Difference(Severity.NEW, "constraint", name, "is not what it was")
    for name in sorted(before.constraints.keys() - after.constraints.keys()):
        was = before.constraints[name]
        if expected.copy and was.violations:
            said = f"cannot be restored: {was.violations:,} rows break {was.definition}"
            yield Difference(Severity.OLD, "constraint", name, said)
        else:
            severity = Severity.NEW if expected.copy else Severity.CHANGE
            yield Difference(severity, "constraint", name, "is gone")


def _indexes(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    for name, now in after.indexes.items():
        was = before.indexes.get(name)
        if not now.valid:
            said, reach = "is INVALID: drop it and build it again", _others_reach(expected)
            if was is not None and not was.valid:
                yield Difference(Severity.OLD, "index", name, said)
            else:
                # Perhaps one that somebody is building at this moment.
                ours = reach is None or reach.has_index(name, now.table)
                yield _doing(ours, "index", name, said)
        if expected.copy and (was is None or not _same(was.definition, now.definition)):
            yield Difference(Severity.NEW, "index", name, "is not what it was")
    for name in sorted(before.indexes.keys() - after.indexes.keys()):
        if not before.indexes[name].valid:
            # pg_dump leaves INVALID ones out, and so does whoever cleans up.
            continue
        severity = (
            Severity.NEW if expected.copy and not _of_fault(name, before) else Severity.CHANGE
        )
        yield Difference(severity, "index", name, "is gone")


def _of_fault(index: str, snapshot: Snapshot) -> bool:
    """The index of a unique constraint that rows break cannot be built again."""
    table, name = snapshot.indexes[index].table, index.rpartition(".")[2]
    constraint = snapshot.constraints.get(f"{table}.{name}")
    return constraint is not None and bool(constraint.violations)


def _grants(before: Snapshot, after: Snapshot, expected: Expected) -> Iterator[Difference]:
    for name, was in before.grants.items():
        now = after.grants.get(name)
        if now is None and not expected.copy:
            continue
        lost = sorted(set(was) - set(now or ()))
        won = sorted(set(now or ()) - set(was))
        if lost:
            fault = expected.copy or not expected.grants_may_go
            said = f"was {_words(lost)}, is {_words(won)}"
            if not fault or _widened(lost, won) or _meant(name, lost, won, expected.revoked):
                yield Difference(Severity.CHANGE, "grant", name, said)
            else:
                reach = _others_reach(expected)
                yield _doing(reach is None or reach.takes_rights(), "grant", name, said)
        elif won:
            severity = Severity.NEW if expected.copy else Severity.CHANGE
            yield Difference(severity, "grant", name, f"now also {_words(won)}")


def _widened(lost: list[str], won: list[str]) -> bool:
    """Each entry that is gone stands again, with the same letters and more."""
    return all(
        any(role == r and giver == g and letters <= more for r, more, g in map(_parts, won))
        for role, letters, giver in map(_parts, lost)
    )


def _meant(
    name: str, lost: list[str], won: list[str], revoked: frozenset[tuple[str, str, str]]
) -> bool:
    """Each letter that an entry has no more was taken by a REVOKE of the plan that names it."""
    left = {(role, giver): letters for role, letters, giver in map(_parts, won)}
    return all(
        (name, role.strip('"'), letter) in revoked
        for role, letters, giver in map(_parts, lost)
        for letter in letters - left.get((role, giver), frozenset())
    )


def _parts(entry: str) -> tuple[str, frozenset[str], str]:
    """Role, letters and who gave them, of an ACL's entry such as `app=arw/owner`."""
    role, _, rest = entry.rpartition("=")
    letters, _, giver = rest.partition("/")
    return role, frozenset(letters.replace("*", "")), giver


def _same(was: str, now: str) -> bool:
    """A check that went through a dump comes back with its casts and parentheses in other places."""
    return was == now or SPELLING.sub("", was) == SPELLING.sub("", now)


def _words(values: tuple[str, ...] | list[str]) -> str:
    return ", ".join(values) or "nothing"
