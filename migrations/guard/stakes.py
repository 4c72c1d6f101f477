"""What a way back would take from somebody: rows and values that this run did not write itself."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import Connection, sql

from migrations.guard import authorship, ledger
from migrations.guard.loss import Column, Loss, Table, Unjudged, losses
from migrations.guard.statements import PlannedStep

PUBLISHED = "EXISTS (SELECT FROM pricing.outbox WHERE published_at IS NOT NULL)"
# Rows that our trigger wrote by the storefront's own statements: a copy of what the storefront keeps.  Once one
# of them was published, somebody has heard of it.
DERIVED = {
    Table("pricing", "outbox"): "published_at IS NOT NULL",
    Table("pricing", "subscription_revisions"): PUBLISHED,
    Table("pricing", "catalogue_prices"): PUBLISHED,
}
DEFAULT = """
SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(%s) AND a.attname = %s AND a.attgenerated = ''
"""
CONSTANT = re.compile(r"^('(?:[^']|'')*'|-?\d+(\.\d+)?|true|false)(::[\w \"\[\]]+)?$")
EXISTS = "SELECT to_regclass(%s) IS NOT NULL"
XMIN_VALUES = 2**32


@dataclass(frozen=True)
class Stake:
    """`foreign`: which of the table's rows are lost with it; `ours`: and which of them this run wrote alone."""

    loss: Table | Column
    foreign: str
    ours: str = "false"

    @property
    def table(self) -> Table:
        return self.loss if isinstance(self.loss, Table) else self.loss.table

    @property
    def lost(self) -> str:
        return f"({self.foreign}) AND NOT ({self.ours})"

    def __str__(self) -> str:
        return str(self.loss)


def at_stake(
    connection: Connection, back: Sequence[PlannedStep], there: Sequence[PlannedStep]
) -> tuple[list[Stake], list[Unjudged]]:
    """Of the way `back`, after this run went `there`: what it takes that is there now, and what cannot be judged."""
    going = [loss for step in back for each in step.statements for loss in losses(each)]
    own = _Own(connection, there, going)
    stakes = [stake for loss in dict.fromkeys(going) for stake in _stake(connection, loss, own)]
    return stakes, [each for each in going if isinstance(each, Unjudged)]


def reasons_to_keep(connection: Connection, stakes: Sequence[Stake]) -> Iterator[str]:
    for each in stakes:
        if rows := count(connection, each.table, each.lost):
            what = "rows" if isinstance(each.loss, Table) else "values"
            yield f"{each} holds {rows} {what}"


def count(connection: Connection, table: Table, where: str) -> int:
    query = f"SELECT count(*) FROM {table.quoted} WHERE {where}"
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


class _Own:
    """Which rows have one of this run's transactions for their last writer."""

    def __init__(
        self, connection: Connection, there: Sequence[PlannedStep], going: Sequence[Loss]
    ) -> None:
        ids = sorted(each % XMIN_VALUES for each in ledger.transactions(connection))
        listed = ",".join(map(str, ids))
        self._condition = f"xmin::text::bigint = ANY ('{{{listed}}}')" if ids else "false"
        statements = [each for step in there for each in step.statements]
        self._plan = authorship.read(statements, connection, going)

    def rows(self, table: Table, column: str | None = None) -> str:
        return self._condition if self._plan.alone(table, column) else "false"


def _stake(connection: Connection, loss: Loss, own: _Own) -> Iterator[Stake]:
    if isinstance(loss, Table) and _is_there(connection, loss):
        yield Stake(loss, DERIVED.get(loss, "true"), own.rows(loss))
    elif isinstance(loss, Column):
        row = connection.execute(DEFAULT, (loss.table.quoted, loss.name)).fetchone()
        if row is None:
            return  # not there, or computed from others
        # What a row has in it that nobody filled.
        default = str(row[0]) if row[0] is not None and CONSTANT.match(str(row[0])) else "NULL"
        name = sql.Identifier(loss.name).as_string(connection)
        changed = f"{name} IS DISTINCT FROM {default}"
        yield Stake(loss, changed, own.rows(loss.table, loss.name))


def _is_there(connection: Connection, table: Table) -> bool:
    row = connection.execute(EXISTS, (table.quoted,)).fetchone()
    return row is not None and bool(row[0])
