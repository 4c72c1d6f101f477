"""The audit trail: nobody changes it unseen, nothing secret is in it, a killed writer does not break it."""

import json
import threading
from pathlib import Path

import pytest

from migrations.guard.trail import Trail, entries, redact_text, verify


def test_lines_form_a_chain_over_several_runs(tmp_path: Path) -> None:
    for run in range(3):
        trail = Trail(tmp_path)
        for number in range(4):
            trail.record("step", run=run, number=number, text="ü" * 5000)
    report = verify(trail.path)
    assert (report.lines, report.problems) == (12, ())
    assert [each["number"] for each in entries(trail.path)] == [0, 1, 2, 3] * 3
    assert len(trail.log_path.read_text().splitlines()) == 12


@pytest.mark.parametrize("change", ["edit", "remove", "insert"])
def test_a_changed_line_is_found(tmp_path: Path, change: str) -> None:
    trail = Trail(tmp_path)
    for number in range(5):
        trail.record("step", number=number)
    lines = trail.path.read_text().splitlines()
    match change:
        case "edit":
            lines[2] = lines[2].replace('"number": 2', '"number": 9')
        case "remove":
            del lines[2]
        case _:
            lines.insert(2, lines[1])
    trail.path.write_text("\n".join(lines) + "\n")
    assert verify(trail.path).problems


def test_a_line_cut_short_by_a_kill_is_noted_and_the_chain_goes_on(tmp_path: Path) -> None:
    Trail(tmp_path).record("step", number=1)
    path = tmp_path / "trail.jsonl"
    with path.open("ab") as file:
        file.write(b'{"at": "2026-01-01T00:00:00+00:00", "ki')
    Trail(tmp_path).record("step", number=2)
    assert verify(path).problems == ()
    assert [each["kind"] for each in entries(path)] == ["step", "torn", "step"]


def test_two_jobs_share_one_chain(tmp_path: Path) -> None:
    def write() -> None:
        trail = Trail(tmp_path)
        for number in range(30):
            trail.record("step", number=number)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verify(tmp_path / "trail.jsonl")
    assert (report.lines, report.problems) == (120, ())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:s3cret@host:1/db",
        "postgresql+psycopg://u:s3cret@s3cret/x@host/db failed",
        "host=x password=s3cret user=u",
        "host=x password='s3cret s3cret' user=u",
        "ALTER ROLE x PASSWORD 's3cret'",
        "ALTER ROLE x PASSWORD 'SCRAM-SHA-256$4096:s3cret'",
        "?user=u&password=s3cret&sslmode=require",
    ],
)
def test_passwords_never_reach_it(tmp_path: Path, text: str) -> None:
    trail = Trail(tmp_path)
    trail.record("said", text=text, nested={"list": [text], "error": RuntimeError(text)})
    assert "s3cret" not in trail.path.read_text() + trail.log_path.read_text()
    assert redact_text("nothing secret here: a:b@c") == "nothing secret here: a:b@c"


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "audit")
    trail.record("x")
    assert trail.path.stat().st_mode & 0o077 == 0
    assert json.loads(trail.path.read_text())["run"] == trail.run
