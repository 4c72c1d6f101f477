"""A service says whether it can run on the schema it finds, and which revision it wants."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from shared.db import Sessions, create_engine, create_sessions
from shared.schema import WANTED_REVISION, schema_problem
from tests.conftest import Database


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("SELECT 1", None),
        ("UPDATE public.alembic_version SET version_num = 'of_a_newer_release'", None),
        (
            "UPDATE public.alembic_version SET version_num = '008'",
            f"the schema stands at 008, this release wants {WANTED_REVISION}; run the job",
        ),
        (
            "DELETE FROM public.alembic_version",
            f"the schema stands at nothing, this release wants {WANTED_REVISION}; run the job",
        ),
        (
            "INSERT INTO public.alembic_version VALUES ('007')",
            f"the schema stands at 007, {WANTED_REVISION}, this release wants {WANTED_REVISION}; run the job",
        ),
        (
            "DROP TABLE public.alembic_version",
            f"the database has no farebox schema; run the migration job ({WANTED_REVISION})",
        ),
        (
            "REVOKE SELECT ON public.alembic_version FROM loyalty_app",
            f"this role may not read public.alembic_version; run the migration job ({WANTED_REVISION})",
        ),
    ],
    ids=["as wanted", "newer", "older", "none", "between two", "no table", "no right"],
)
async def test_what_a_service_says_of_the_schema(
    database: Database, sessions: Sessions, change: str, said: str | None
) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute(change.encode())
    async with sessions() as session:
        assert await schema_problem(session) == said
