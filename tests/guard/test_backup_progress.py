"""Whoever waits for a dump or a restore sees how far it is."""

from io import StringIO
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from migrations.guard import tools
from migrations.guard.backup import backup
from migrations.guard.progress import shown
from migrations.guard.restore import proven
from migrations.guard.trail import Trail
from tests.conftest import Database

# A fraction of a second to copy: looked at more often than a person would.
ROWS = 250_000


def test_the_bytes_that_were_copied_rise_to_what_was_expected(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "POLL_SECONDS", 0.01)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE public.boxes AS SELECT gen_random_uuid() AS id, repeat('x', 100) AS note"
            f" FROM generate_series(1, {ROWS})".encode()
        )
        connection.execute("VACUUM ANALYZE public.boxes")
    trail = Trail(tmp_path / "trail")
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(what: str, done: int, expected: int) -> None:
        seen.setdefault(what, []).append((done, expected))

    made = backup(empty_database.url, tmp_path, "big", trail=trail, progress=note)
    with proven(made, empty_database.url, trail=trail, progress=note) as copy:
        assert copy.differences == []
    started = [each.partition(" ")[0] for each in seen]
    assert started == ["dump", "restore", "reading"]
    reading = seen.pop(next(each for each in seen if each.startswith("reading of ")))
    assert [done for done, _ in reading] == [0, reading[0][1]]
    assert reading[0][1] > ROWS * 100
    for what, looks in seen.items():
        done = [each for each, _ in looks]
        expected = looks[-1][1]
        assert expected > ROWS * 100, what
        assert done == sorted(done), what
        assert done[-1] == expected, what
        assert any(0 < each < expected for each in done), what


def test_a_bar_is_drawn_on_a_terminal_and_nothing_elsewhere() -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    pipe = Console(file=StringIO())
    for console in (terminal, pipe):
        with shown(console) as say:
            say("dump of farebox", 5 * 2**20, 10 * 2**20)
    assert isinstance(terminal.file, StringIO)
    assert "dump of farebox" in terminal.file.getvalue()
    assert isinstance(pipe.file, StringIO)
    assert pipe.file.getvalue() == ""
