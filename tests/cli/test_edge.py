"""What goes wrong is one line on stderr and a code a script can act on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import edge
from migrations.faults import MigrationFault
from migrations.guard.lint.report import LintRefused
from tests.cli.conftest import Farebox
from tests.conftest import Database

KEYS = ("keys", "list", "--service", "loyalty")
SECRET = "s3cret-and-long"


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:1/d"}, 3, "cannot reach"),
        ({"FAREBOX_TIME_ZONE": "Mars/Olympus"}, 2, "FAREBOX_TIME_ZONE"),
        ({"PRICING_PORT": "http"}, 2, "PRICING_PORT"),
    ],
    ids=["nobody listens", "no such zone", "no number"],
)
def test_a_bad_environment_is_named(
    farebox: Farebox,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    code: int,
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = farebox(*KEYS)
    assert outcome.code == code
    assert said in outcome.err
    assert SECRET not in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_a_database_that_does_not_exist_is_not_reached(
    farebox: Farebox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url + "_not")
    outcome = farebox(*KEYS)
    assert (outcome.code, database.name + "_not" in outcome.err) == (3, True)


def test_a_database_without_our_tables_says_which_command_makes_them(
    farebox: Farebox, empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_DATABASE_URL", empty_database.url)
    outcome = farebox(*KEYS)
    assert outcome.code == 1
    assert outcome.err == "farebox: the database has no farebox schema; run `farebox migrate run`\n"


def test_a_broker_that_is_away_is_said(farebox: Farebox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    outcome = farebox("topics", "create")
    assert outcome.code == 3
    assert "Unable to bootstrap from" in outcome.err


def test_what_runs_here_answers_for_what_the_environment_leaves_open(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "stack.json"
    record.write_text(
        json.dumps({"env": {"DATABASE_URL": "postgresql://a@h/d", "PAYMENTS_PORT": "9"}})
    )
    monkeypatch.setattr(edge, "STACK_RECORD", record)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("PAYMENTS_PORT", "10")
    settings = edge.current_settings()
    assert (settings.database_url, settings.payments_port) == ("postgresql://a@h/d", 10)


def test_it_runs_as_a_module_and_says_what_its_codes_mean() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--help"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "COLUMNS": "200"},
        cwd=Path(edge.__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    for word in ("audit", "parked", "migrate", "Exit codes"):
        assert word in done.stdout


def test_what_the_linter_says_keeps_its_lines() -> None:
    report = "plan.sql: dangerous\n  line 3: danger: adding-not-null\n      ALTER TABLE …"
    assert edge.one_line(LintRefused(report)) == report
    assert edge.one_line(MigrationFault("one\n  line")) == "one line"
