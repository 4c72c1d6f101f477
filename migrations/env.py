"""Alembic's environment: one synchronous connection, short lock waits, one transaction per revision."""

import os

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import Connection, make_url

from migrations.models import target_metadata
from shared.db import SERVICES

# Nobody may queue behind our DDL for longer; the job retries.
LOCK_TIMEOUT = "5s"
OWN_SCHEMAS = {"public", *SERVICES}


def database_url() -> str:
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise SystemExit(
            "alembic: set DATABASE_URL (postgresql://user:password@host:port/database)"
        )
    rendered = make_url(url).set(drivername="postgresql+psycopg")
    return rendered.render_as_string(hide_password=False)


def include_name(name: str | None, kind: str, parents: object) -> bool:
    return kind != "schema" or name in OWN_SCHEMAS


def run(connection: Connection) -> None:
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
        with context.begin_transaction():
            context.run_migrations()
        return
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    engine = create_engine(database_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        run(connection)


main()
