"""Where a database differs from the models, in alembic's own words."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from sqlalchemy import create_engine, pool, text
from sqlalchemy.dialects.postgresql.base import PGDialect, PGInspector

from migrations.guard.statements import PlannedStep
from migrations.models import target_metadata
from shared.db import SERVICES, plain_url

OWN_SCHEMAS = {"public", *SERVICES}
WORD = re.compile(r"\w+")
# Behind somebody's schema change it would wait for ever.
LOCK_TIMEOUT = "10s"
OTHERS = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = ANY (:schemas) AND n.nspname || '.' || c.relname <> ALL (:known)
ORDER BY 1
"""
SHOWN_TABLES = 5
# What alembic asks of a table, and under which names it keeps what it has read of several.
ASKED = (
    *("columns", "pk_constraint", "foreign_keys", "indexes", "unique_constraints"),
    *("check_constraints", "table_comment", "table_options"),
)


@dataclass(frozen=True)
class Drift:
    """`extra`: the database has what no model names; somebody else's table, most often.

    `subject` is what differs, by its own name: of a column the column's, of an index the index's.
    """

    what: str
    extra: bool
    subject: str = ""

    def __str__(self) -> str:
        return self.what


class ReadTogether(PGInspector):
    """Alembic reads a schema's tables together, but only the first schema's; the others' one by one, in hundreds of queries."""

    _has_read = False

    def get_table_names(self, schema: str | None = None, **kw: object) -> list[str]:
        """The first thing it asks; from then on it finds what it needs."""
        if not self._has_read:
            self._has_read = True
            self._read()
        return super().get_table_names(schema, **kw)

    def _read(self) -> None:
        ours: dict[str | None, list[str]] = {each: [] for each in self.get_schema_names()}
        for table in target_metadata().tables.values():
            ours.get(table.schema, []).append(table.name)
        for what in ASKED:
            read = getattr(self, f"get_multi_{what}")
            self.info_cache[f"alembic_{what}"] = {
                table: told
                for schema, names in ours.items()
                if names
                for table, told in read(schema, filter_names=names).items()
            }


def drift(url: str) -> list[Drift]:
    """Of a database at head."""
    return _compared(lambda: psycopg.connect(plain_url(url), client_encoding="utf8"))


def unplanned(beside: Connection, steps: Sequence[PlannedStep]) -> list[Drift]:
    """What is missing or other than the models say, and is named in no step that is still to come."""
    coming = {word for step in steps for each in step.statements for word in WORD.findall(each)}
    conninfo = make_conninfo(beside.info.dsn, password=beside.info.password)
    found = _compared(lambda: psycopg.connect(conninfo, client_encoding="utf8"))
    return [each for each in found if not each.extra and each.subject not in coming]


def _compared(connect: Callable[[], Connection]) -> list[Drift]:
    """Of tables that no model names, only the names are read: there may be thousands."""
    models = target_metadata()
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    assert isinstance(engine.dialect, PGDialect)
    engine.dialect.inspector = ReadTogether

    def ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        match kind:
            case "schema":
                return name in OWN_SCHEMAS
            case "table":
                return parents["schema_qualified_table_name"] in models.tables
            case _:
                return True

    with engine.connect() as connection:
        # Every schema, public too, is then written out: the models name them all.
        connection.execute(text("SET search_path = pg_catalog"))
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.dialect.default_schema_name = "pg_catalog"
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": ours,
                "version_table_schema": "public",
            },
        )
        with warnings.catch_warnings():
            # SQLAlchemy's own reading of a check that is NOT VALID warns of itself.
            warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'")
            found = [_told(each) for each in _flat(compare_metadata(context, models))]
        known = [*models.tables, "public.alembic_version"]
        values = {"schemas": sorted(OWN_SCHEMAS), "known": known}
        others = [str(name) for name in connection.scalars(text(OTHERS), values)]
        return [*found, *_unnamed(others)]


def _unnamed(tables: Sequence[str]) -> Iterator[Drift]:
    """One line for all but the first few."""
    for name in tables[:SHOWN_TABLES]:
        yield Drift(f"remove table {name}", extra=True, subject=name)
    more = len(tables) - SHOWN_TABLES
    if more > 0:
        yield Drift(f"… and {more:,} more tables", extra=True)


def _flat(found: Iterable[object]) -> Iterator[tuple[object, ...]]:
    for each in found:
        if isinstance(each, list):
            yield from _flat(each)
        elif isinstance(each, tuple):
            yield each


def _told(difference: tuple[object, ...]) -> Drift:
    action = str(difference[0])
    parts = [str(getattr(each, "name", each)) for each in difference[1:4] if each is not None]
    return Drift(
        f"{action.replace('_', ' ')} {', '.join(parts)}",
        extra=action.startswith("remove_"),
        subject=parts[-1] if parts else "",
    )
