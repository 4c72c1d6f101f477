"""A service's tables, opened with the service's own role for the length of one command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from shared.db import Sessions, create_engine, create_sessions
from shared.settings import Settings


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
