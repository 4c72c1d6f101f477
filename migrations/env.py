"""Alembic's environment: one synchronous connection, short lock waits, one transaction per revision.

`python -m alembic …` takes the migration job's lock too; what stops it is one line and the job's exit code.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from alembic import context
from sqlalchemy import create_engine, event, pool, text
from sqlalchemy.engine import Connection, ExecutionContext, make_url
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError

from migrations.faults import MigrationFault, NotAUrl
from migrations.guard.statements import REPEAT_MARK
from migrations.models import target_metadata
from migrations.offline import refuse_parameters
from migrations.run_lock import run_lock
from shared.db import SERVICES, plain_url

# Nobody may queue behind our DDL for longer; the job retries.
LOCK_TIMEOUT = "5s"
OWN_SCHEMAS = {"public", *SERVICES}


def database_url() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit(
            "alembic: set DATABASE_URL (postgresql://user:password@host:port/database)"
        )
    try:
        rendered = make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as error:
        # Its text may repeat what was given, password and all.
        raise NotAUrl from error
    return rendered.render_as_string(hide_password=False)


def include_name(name: str | None, kind: str, parents: object) -> bool:
    return kind != "schema" or name in OWN_SCHEMAS


def repeat(
    connection: Connection,
    cursor: DBAPICursor,
    statement: str,
    parameters: Sequence[object] | Mapping[str, object] | None,
    *more: ExecutionContext | bool | None,
) -> None:
    """A marked backfill goes on until it finds no row, as in the guarded job; only the pauses are missing."""
    marked = statement.lstrip().startswith(REPEAT_MARK)
    while marked and cursor.rowcount > 0:
        cursor.execute(statement, parameters)


def run(connection: Connection) -> None:
    event.listen(connection, "after_cursor_execute", repeat)
    # Every schema, public too, is then written out: the models name them all.
    connection.execute(text("SET search_path = pg_catalog"))
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    connection.dialect.default_schema_name = "pg_catalog"
    context.configure(
        connection=connection,
        target_metadata=target_metadata(),
        include_schemas=True,
        include_name=include_name,
        version_table_schema="public",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    if context.is_offline_mode():
        context.configure(
            url=database_url(),
            target_metadata=target_metadata(),
            literal_binds=True,
            # Else every % of the SQL comes out doubled, as the driver would want it.
            dialect_opts={"paramstyle": "named"},
            version_table_schema="public",
            transaction_per_migration=True,
        )
        refuse_parameters(context.get_context())
        with context.begin_transaction():
            context.run_migrations()
        return
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    try:
        _alone()
    except MigrationFault as fault:
        _end(str(fault), fault.exit_code)
    except DBAPIError as error:
        _end(str(error.orig), MigrationFault.exit_code)


def _alone() -> None:
    url = database_url()
    with run_lock(plain_url(url), wait_seconds=0, on_wait=print):
        engine = create_engine(url, poolclass=pool.NullPool)
        with engine.connect() as connection:
            run(connection)


def _end(reason: str, code: int) -> NoReturn:
    print(f"alembic: {' '.join(reason.split())}", file=sys.stderr)
    raise SystemExit(code)


main()
