"""`farebox migrate`: one JSON document whatever happens, a code for each end, and a trail that is checked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from migrations.guard.speech import tell
from migrations.guard.trail import Trail, verify
from shared.schema import WANTED_REVISION
from tests.cli.conftest import Farebox
from tests.conftest import Database

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "s3cret-and-long"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAREBOX_AUDIT_DIR", "FAREBOX_BACKUP_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


@pytest.mark.parametrize(
    ("url", "code", "outcome"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/d", 3, "unreachable"),
        (f"mysql://u:{SECRET}@h/d", 2, "usage"),
        (f"postgresql://u:{SECRET}@h:port/d", 2, "usage"),
    ],
    ids=["nobody listens", "another server's", "no port"],
)
def test_a_refusal_is_one_document_and_one_line(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch, url: str, code: int, outcome: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    done = farebox("migrate", "run", "--json")
    told = json.loads(done.out)
    assert (done.code, told["exit_code"], told["outcome"]) == (code, code, outcome)
    assert done.err.startswith("farebox: ")
    assert done.err.count("\n") == 1
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize("command", ["plan", "run", "rehearse", "validate", "backup"])
def test_no_url_is_said_before_anything_is_asked(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    done = farebox("migrate", command)
    assert (done.code, done.out) == (2, "")
    assert "set DATABASE_URL" in done.err


def test_nothing_to_do_is_told_and_fails_only_whoever_asks(farebox: Farebox) -> None:
    done = farebox("migrate", "run", "--json")
    assert (done.code, json.loads(done.out)["outcome"]) == (0, "nothing_to_do")
    assert farebox("migrate", "run", "--detailed-exit-code").code == 10
    assert farebox("migrate", "rehearse", "--json").code == 0


def test_a_run_tells_its_steps_and_the_head_of_its_trail(
    farebox: Farebox, empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.url)
    planned = json.loads(farebox("migrate", "plan", "--json").out)
    done = farebox("migrate", "run", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [each["checksum"] for each in told["steps"]] == [each["checksum"] for each in planned]
    assert Path(told["backup"]).is_dir()
    head = done.err.rstrip().rpartition("head ")[2]
    assert verify(tmp_path / "FAREBOX_AUDIT_DIR" / "trail.jsonl").head == head
    assert farebox("migrate", "history", "--head", head).code == 0


def test_the_runbooks_commands_answer_to_their_own_name(farebox: Farebox) -> None:
    assert "usage: farebox migrate restore" in farebox("migrate", "restore", "--help").out
    gone = farebox("migrate", "restore", "gone", "--json")
    assert (gone.code, json.loads(gone.out)["exit_code"]) == (22, 22)
    assert gone.err.startswith("farebox migrate: gone is not there")


def _changed(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("two", "TWO"), *lines[2:]]


TAMPERED: dict[str, Callable[[list[str]], list[str]]] = {
    "changed": _changed,
    "removed": lambda lines: [lines[0], *lines[2:]],
    "reordered": lambda lines: [lines[0], lines[2], lines[1], lines[3]],
    "inserted": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "cut short": lambda lines: [lines[0], lines[1][:-9], *lines[2:]],
    "first removed": lambda lines: lines[1:],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_trail_that_was_tampered_with_is_broken(
    farebox: Farebox, tmp_path: Path, how: str
) -> None:
    trail = Trail(tmp_path / "FAREBOX_AUDIT_DIR")
    for kind in ("one", "two", "three", "four"):
        trail.record(kind)
    assert farebox("migrate", "history").code == 0
    lines = trail.path.read_text().splitlines()
    trail.path.write_text("\n".join(TAMPERED[how](lines)) + "\n")
    broken = farebox("migrate", "history")
    assert (broken.code, "BROKEN: line " in broken.out) == (1, True)
    told = farebox("migrate", "history", "--json")
    assert (told.code, json.loads(told.out)["problems"] != []) == (1, True)


def test_lines_cut_off_the_end_are_missed_by_whoever_kept_the_head(
    farebox: Farebox, tmp_path: Path
) -> None:
    trail = Trail(tmp_path / "FAREBOX_AUDIT_DIR")
    trail.record("one")
    trail.record("two")
    head = trail.head()
    trail.record("three")
    assert farebox("migrate", "history", "--head", head).code == 0
    first = trail.path.read_text().splitlines()[0]
    trail.path.write_text(first + "\n")
    assert farebox("migrate", "history").code == 0
    cut = farebox("migrate", "history", "--head", head)
    assert (cut.code, f"no line has the hash {head}" in cut.out) == (1, True)


def test_history_takes_no_senseless_number(farebox: Farebox) -> None:
    assert farebox("migrate", "history", "--lines", "0").code == 2


def test_a_run_goes_on_when_nobody_listens_any_more(empty_database: Database) -> None:
    """`run_migration.py 2>&1 | head -1`: the reader has gone before anything is changed."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_migration.py")],
            check=False,
            stdout=writer,
            stderr=writer,
            env={**os.environ, "DATABASE_URL": empty_database.url},
        )
    finally:
        os.close(writer)
    assert done.returncode == 0
    with psycopg.connect(empty_database.url) as connection:
        row = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
    assert row == (WANTED_REVISION,)


def test_a_terminals_lines_are_folded_under_their_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    tell("    ALTER TABLE public.users ADD x int\n\nend")
    assert capsys.readouterr().out.splitlines() == [
        "    ALTER TABLE",
        "      public.users",
        "      ADD x int",
        "",
        "end",
    ]
