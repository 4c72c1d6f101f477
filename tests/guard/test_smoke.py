"""The smoke test after a migration: it sees a flow that is broken, and leaves nothing."""

import psycopg

from migrations.guard.smoke import smoke
from migrations.run_lock import connect
from tests.conftest import Database

ROWS = """
SELECT (SELECT count(*) FROM public.users) + (SELECT count(*) FROM public.subscriptions)
    + (SELECT count(*) FROM pricing.outbox) + (SELECT count(*) FROM loyalty.inbox)
"""


def test_a_sound_schema_passes_and_nothing_stays(database: Database) -> None:
    with connect(database.url) as connection:
        said = list(smoke(connection))
        assert [each for each in said if each.startswith("WARNING")] == []
        assert len(said) == 5
        assert connection.execute(ROWS).fetchone() == (0,)


def test_a_broken_flow_is_named(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute("DROP TRIGGER farebox_stage_insert ON public.subscriptions")
        owner.execute("REVOKE INSERT ON loyalty.inbox FROM loyalty_app")
    with connect(database.url) as connection:
        said = [each for each in smoke(connection) if each.startswith("WARNING")]
    assert said == [
        "WARNING: smoke test: not so: a new subscription is staged as a fact",
        "WARNING: smoke test: loyalty works as its own role: permission denied for table inbox",
    ]
