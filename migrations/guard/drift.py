"""Where a database differs from the models, in alembic's own words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import make_url

from migrations.models import target_metadata
from shared.db import SERVICES

OWN_SCHEMAS = {"public", *SERVICES}


@dataclass(frozen=True)
class Drift:
    """`extra`: the database has what no model names; somebody else's table, most often."""

    what: str
    extra: bool

    def __str__(self) -> str:
        return self.what


def drift(url: str) -> list[Drift]:
    """Of a database at head."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), poolclass=pool.NullPool
    )
    with engine.connect() as connection:
        # Every schema, public too, is then written out: the models name them all.
        connection.execute(text("SET search_path = pg_catalog"))
        connection.dialect.default_schema_name = "pg_catalog"
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: kind != "schema" or name in OWN_SCHEMAS,
                "version_table_schema": "public",
            },
        )
        return [_told(each) for each in _flat(compare_metadata(context, target_metadata()))]


def _flat(found: Iterable[object]) -> Iterator[tuple[object, ...]]:
    for each in found:
        if isinstance(each, list):
            yield from _flat(each)
        elif isinstance(each, tuple):
            yield each


def _told(difference: tuple[object, ...]) -> Drift:
    action = str(difference[0])
    names = ", ".join(
        str(getattr(each, "name", each)) for each in difference[1:4] if each is not None
    )
    return Drift(f"{action.replace('_', ' ')} {names}", extra=action.startswith("remove_"))
