"""A service's tables, opened with the service's own role for the length of one command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Sessions, create_engine, create_sessions
from shared.settings import Settings

# Whole tables are read; a service's own limit is for requests.
STATEMENT_TIMEOUT = "600s"


@asynccontextmanager
async def sessions_of(settings: Settings, service: str) -> AsyncIterator[Sessions]:
    engine = create_engine(settings.url_of(service), service, pool_size=1)
    try:
        yield create_sessions(engine)
    finally:
        await engine.dispose()


@asynccontextmanager
async def transaction_of(settings: Settings, service: str) -> AsyncIterator[AsyncSession]:
    """One transaction; committed when the block ends well."""
    async with sessions_of(settings, service) as sessions, sessions.begin() as session:
        yield session


@asynccontextmanager
async def snapshot_of(settings: Settings, service: str) -> AsyncIterator[AsyncSession]:
    """A reading transaction: everything as it stands at its first statement, whatever is written meanwhile."""
    async with sessions_of(settings, service) as sessions, sessions() as session:
        await session.connection(
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        await session.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
        yield session
