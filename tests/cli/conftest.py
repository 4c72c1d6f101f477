"""`farebox …` as it is typed, against the test's own database and topics."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import edge
from cli.main import main
from tests.conftest import Database


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Farebox = Callable[..., Outcome]


@pytest.fixture
def farebox(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Farebox:
    """Run a command; the environment names the test's database and nothing else."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setattr(edge, "STACK_RECORD", tmp_path / "no-stack.json")

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["farebox", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run
