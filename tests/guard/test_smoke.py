"""The smoke test after a migration: it sees a flow that is broken, and leaves nothing."""

from pathlib import Path

import psycopg
import pytest

from migrations.guard.exits import ExitCode
from migrations.guard.smoke import smoke
from migrations.guard.trail import entries
from migrations.job import main
from migrations.run_lock import connect
from tests.conftest import Database

ROWS = """
SELECT (SELECT count(*) FROM public.users) + (SELECT count(*) FROM public.subscriptions)
    + (SELECT count(*) FROM pricing.outbox) + (SELECT count(*) FROM loyalty.inbox)
"""


def test_a_sound_schema_passes_and_nothing_stays(database: Database) -> None:
    with connect(database.url) as connection:
        assert [each.outcome for each in smoke(connection)] == ["works"] * 5
        assert connection.execute(ROWS).fetchone() == (0,)


def test_a_broken_flow_is_named(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute("DROP TRIGGER farebox_stage_insert ON public.subscriptions")
        owner.execute("REVOKE INSERT ON loyalty.inbox FROM loyalty_app")
        owner.execute("REVOKE UPDATE (total_minor) ON public.subscriptions FROM pricing_app")
    with connect(database.url) as connection:
        said = [str(each) for each in smoke(connection) if each.outcome != "works"]
    assert said == [
        "smoke test fails: a new subscription is staged as a fact: it is not so",
        "smoke test fails: pricing works as its own role: permission denied for table subscriptions",
        "smoke test fails: loyalty works as its own role: permission denied for table inbox",
    ]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("ALTER TABLE public.users ADD COLUMN shoe_size int NOT NULL", "not tried"),
        ("ALTER TABLE public.subscriptions ALTER variants DROP DEFAULT", "fails"),
    ],
    ids=["of the storefront's", "of ours"],
)
def test_a_column_that_a_new_subscription_must_fill(
    database: Database, change: str, outcome: str
) -> None:
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute(change.encode())
    with connect(database.url) as connection:
        first, *_ = smoke(connection)
    assert first.outcome == outcome
    assert "violates not-null" in first.reason


def test_a_broken_flow_is_an_exit_code_of_its_own_and_in_the_trail(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute("DROP TRIGGER farebox_stage_insert ON public.subscriptions")
    where = ["--backup-dir", str(tmp_path), "--audit-dir", str(tmp_path)]
    assert main(["--database-url", database.url, *where]) == ExitCode.SMOKE_FAILED
    assert "deploy nothing on it yet" in capsys.readouterr().err
    lines = list(entries(tmp_path / "trail.jsonl"))
    assert next(e["outcome"] for e in lines if e["kind"] == "smoke") == "fails"
    assert lines[-1]["exit"] == ExitCode.SMOKE_FAILED
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute(
            "CREATE TRIGGER farebox_stage_insert AFTER INSERT ON public.subscriptions"
            " REFERENCING NEW TABLE AS new_rows"
            " FOR EACH STATEMENT EXECUTE FUNCTION pricing.stage_subscription_changed()"
        )
    assert main(["--database-url", database.url, *where]) == ExitCode.DONE
