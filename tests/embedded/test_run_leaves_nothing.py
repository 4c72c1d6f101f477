"""A test run that ends, fails, is interrupted or is terminated leaves no process, folder or port behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.servers import ROOT, sweep

WAIT_SECONDS = 60.0

WAITING = """
import os, time

def test_waits(postgres_url, tmp_path):
    print("READY", os.getpid(), flush=True)
    time.sleep(600)
"""
FAILING = """
def test_fails(empty_database):
    assert empty_database is None
"""


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """A test folder of its own with the very same fixtures, and a place for what the run makes."""
    tests = tmp_path / "inner"
    tests.mkdir()
    (tests / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (tmp_path / "temp").mkdir()
    return tests


def run(inner: Path, code: str, *options: str) -> subprocess.Popen[str]:
    (inner / "test_inner.py").write_text(code)
    temp = inner.parent / "temp"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
        *("--rootdir", str(inner), "-c", str(ROOT / "pyproject.toml"), str(inner), *options),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temp), "DATABASE_URL": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_ready(child: subprocess.Popen[str]) -> dict[psutil.Process, Path]:
    """Returns the servers the run has started, with the folder each works in."""
    assert child.stdout is not None
    seen = ""
    for line in child.stdout:
        seen += line
        if "READY" in line:
            break
    else:
        pytest.fail(seen)
    servers = [
        each for each in psutil.Process(child.pid).children(True) if each.name() == "postgres"
    ]
    assert servers
    return {each: Path(each.cwd()) for each in servers}


def nothing_left(inner: Path, servers: dict[psutil.Process, Path]) -> bool:
    psutil.wait_procs(list(servers), timeout=WAIT_SECONDS)
    assert not any(each.is_running() for each in servers)
    assert not any(folder.exists() for folder in servers.values())
    return not list((inner.parent / "temp").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupted_run_leaves_nothing(inner: Path, number: signal.Signals) -> None:
    with run(inner, WAITING) as child:
        servers = wait_ready(child)
        child.send_signal(number)
        child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode == pytest.ExitCode.INTERRUPTED
    assert nothing_left(inner, servers)


def test_a_failing_run_leaves_nothing(inner: Path) -> None:
    with run(inner, FAILING) as child:
        output, _ = child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode == pytest.ExitCode.TESTS_FAILED, output
    assert nothing_left(inner, {})


def test_a_killed_run_leaves_no_process_and_the_next_sweeps_its_folder(inner: Path) -> None:
    with run(inner, WAITING) as child:
        servers = wait_ready(child)
        child.kill()
    psutil.wait_procs(list(servers), timeout=WAIT_SECONDS)
    assert not any(each.is_running() for each in servers)
    temp = inner.parent / "temp"
    assert list(temp.iterdir())
    sweep(temp)
    assert not list(temp.iterdir())


def test_two_runs_at_once_do_not_meet(inner: Path) -> None:
    code = """
def test_alone(empty_database):
    import psycopg, time
    with psycopg.connect(empty_database.url) as connection:
        connection.execute("CREATE TABLE once ()")
    time.sleep(1)
"""
    with run(inner, code) as first, run(inner, code) as second:
        outputs = [each.communicate(timeout=WAIT_SECONDS)[0] for each in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
