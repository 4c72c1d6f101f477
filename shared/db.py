"""One engine per service, logged in as that service's role, seeing its own schema first.

Tables of `shared` (outbox, inbox, parked events, leases, …) name no schema: each service has its own copy,
and `search_path` decides which one a connection means.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

SERVICES = ("pricing", "payments", "loyalty", "analytics")

# Two for requests or batches, the rest for readiness checks and commands: a service needs few.
POOL_SIZE = 5
# A statement that waits longer than this has lost; the caller retries or answers 503.
STATEMENT_TIMEOUT_MS = 30_000

Sessions = async_sessionmaker[AsyncSession]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


def create_engine(url: str, schema: str, *, pool_size: int = POOL_SIZE) -> AsyncEngine:
    """Engine on `url` (`postgresql://…`) whose unqualified names mean the tables of `schema`."""
    return create_async_engine(
        "postgresql+asyncpg://",
        # Not SQLAlchemy's own: it hands sslmode and other parameters of the URL on as names asyncpg has not.
        async_creator=partial(raw_connect, url, schema),
        pool_size=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,  # they are people's data; errors end up in logs
    )


def create_sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def raw_pool(
    url: str, schema: str, *, size: int, ready: int = 1
) -> AsyncIterator[asyncpg.Pool]:
    """Bare asyncpg connections for the hot paths; with none `ready` it opens while the database is away."""
    async with asyncpg.create_pool(
        plain_url(url), min_size=ready, max_size=size, server_settings=_server_settings(schema)
    ) as pool:
        yield pool


async def raw_connect(url: str, schema: str) -> asyncpg.Connection:
    return await asyncpg.connect(plain_url(url), server_settings=_server_settings(schema))


def plain_url(url: str) -> str:
    """`url` without SQLAlchemy's driver suffix, as libpq and asyncpg want it."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    # SQLAlchemy writes a blank as it is, libpq will have none.
    return plain.replace(" ", "%20")


def _server_settings(schema: str) -> dict[str, str]:
    return {
        "search_path": schema,
        "application_name": f"farebox-{schema}",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "timezone": "UTC",
    }
