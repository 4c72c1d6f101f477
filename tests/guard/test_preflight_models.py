"""The runbook's fourth trouble: "verify all model imports are working".  On a copy of the release that is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("migrations", "services", "shared", "cli", "embedded")
COMMANDS = (
    ("run_migration.py", "--dry-run"),
    ("-m", "cli", "migrate", "run"),
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("run_migration.py", "migration_utils.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def run(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    url = "postgresql://u@127.0.0.1:1/d"
    return subprocess.run(
        [sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import a_package_nobody_has\n", "No module named 'a_package_nobody_has'"),
        ("ledger = a_name_nobody_gave\n", "NameError"),
        ("def broken(:\n", "SyntaxError"),
    ],
    ids=["a missing package", "a missing name", "half a file"],
)
def test_models_that_cannot_be_imported_are_refused_in_one_line(
    release: Path, line: str, said: str
) -> None:
    with (release / "services" / "loyalty" / "models.py").open("a") as models:
        models.write(f"\n\n{line}")
    done = run(release, *COMMANDS[0])
    assert done.returncode == 20, done.stderr
    assert said in done.stderr
    assert "install this release again" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=["run", "cli"])
def test_every_way_to_the_run_says_so(release: Path, command: tuple[str, ...]) -> None:
    (release / "services" / "payments" / "models.py").unlink()
    done = run(release, *command)
    assert done.returncode == 20, done.stderr
    assert "No module named 'services.payments.models'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_broken_release_can_still_back_up_and_restore(release: Path) -> None:
    (release / "services" / "payments" / "models.py").unlink()
    done = run(release, "migration_utils.py", "list")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("there is none")


def test_a_whole_release_gets_as_far_as_the_database(release: Path) -> None:
    done = run(release, *COMMANDS[0])
    assert done.returncode == 3, done.stderr
    assert "Connection refused" in done.stderr
    assert "see that the server runs" in done.stderr


def test_models_that_do_not_fit_together_are_refused(release: Path) -> None:
    """A relationship is resolved when it is first used, long after the import."""
    path = release / "services" / "loyalty" / "models.py"
    broken = "LoyaltyAccount.__mapper__.add_property('ghosts', relationship('NobodysModel'))"
    path.write_text(path.read_text() + f"\n\nfrom sqlalchemy.orm import relationship\n\n{broken}\n")
    check = "from migrations.guard.preflight import models; [p] = models(); print(p.check, p)"
    done = run(release, "-c", check)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("models the models do not fit together: ")
    assert "NobodysModel" in done.stdout
    assert "repair this installation" in done.stdout
