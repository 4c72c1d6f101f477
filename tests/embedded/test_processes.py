"""Processes are ended by who they are, die with their parent, and are waited for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from embedded import processes
from embedded.processes import ProcessMark
from tests.embedded.conftest import processes_in

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
WAIT_SECONDS = 20.0

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's death signal is Linux's"
)


@contextmanager
def sleeper(code: str) -> Iterator[tuple[subprocess.Popen[str], ProcessMark]]:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            mark = ProcessMark.of(child.pid)
            assert mark is not None
            yield child, mark
        finally:
            child.kill()


def test_a_deaf_process_is_killed_after_its_patience() -> None:
    with sleeper(DEAF) as (child, mark):
        processes.end(mark, signal.SIGTERM, patience_seconds=0.2)
        assert not mark.is_alive()
        assert child.wait() == -signal.SIGKILL


def test_the_same_pid_with_another_start_is_somebody_else() -> None:
    with sleeper(DEAF) as (child, mark):
        stranger = replace(mark, started_at=mark.started_at - 60)
        assert not stranger.is_alive()
        processes.end(stranger, signal.SIGKILL, patience_seconds=0.2)
        assert child.poll() is None
        assert mark.is_alive()


def test_a_process_that_is_gone_has_no_mark_and_ending_it_again_is_no_error() -> None:
    with sleeper(DEAF) as (child, mark):
        child.kill()
        child.wait()
        assert ProcessMark.of(mark.pid) is None
        processes.end(mark, signal.SIGTERM, patience_seconds=0.2)


@linux_only
def test_a_tethered_command_dies_with_the_one_that_started_it(open_folder: Path) -> None:
    code = (
        "import os, subprocess, sys; from embedded.processes import tethered\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]]\n"
        "subprocess.Popen(tethered(command, 9, os.getpid())); print('up', flush=True)\n"
        "import time; time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(open_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert len(processes_in(open_folder)) == 2
        parent.kill()
    assert gone(open_folder)


@linux_only
def test_a_command_whose_parent_is_gone_already_does_not_start(open_folder: Path) -> None:
    marker = open_folder / "ran"
    command = [sys.executable, "-c", f"open({str(marker)!r}, 'w')"]
    nobody = os.getppid()
    ran = subprocess.run(
        processes.tethered(command, 9, nobody), check=False, capture_output=True, text=True
    )
    assert ran.returncode != 0
    assert "parent is gone" in ran.stderr
    assert not marker.exists()


def gone(folder: Path) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while processes_in(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
