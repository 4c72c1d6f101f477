"""The engine of a service: the URL's own parameters reach the driver."""

import pytest
from sqlalchemy import text

from shared.db import create_engine
from tests.conftest import Database


async def test_a_url_may_carry_libpq_parameters(database: Database) -> None:
    engine = create_engine(f"{database.url_for('pricing')}?sslmode=disable", "pricing")
    try:
        async with engine.connect() as connection:
            found = await connection.execute(
                text("SELECT current_user, current_setting('search_path')")
            )
            assert found.one() == ("pricing_app", "pricing")
    finally:
        await engine.dispose()


async def test_encryption_that_is_asked_for_is_not_done_without(database: Database) -> None:
    engine = create_engine(f"{database.url_for('pricing')}?sslmode=require", "pricing")
    try:
        with pytest.raises(ConnectionError, match="SSL"):
            async with engine.connect():
                pass
    finally:
        await engine.dispose()
