"""Child processes that die with their parent and are ended by who they are (pid and start time), never by name."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

TETHER = Path(__file__).with_name("tether.py")
# The kernel counts start times in ticks since boot; two readings of one process differ by less.
SAME_START_SECONDS = 2.0
KILL_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.02
SUPERVISOR = 0


@dataclass(frozen=True)
class ProcessMark:
    """One process and no other: a pid is reused, a pid with its start time is not."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> "ProcessMark | None":
        """None when there is no such process."""
        try:
            return cls(pid, float(psutil.Process(pid).create_time()))
        except psutil.NoSuchProcess:
            return None

    def is_alive(self) -> bool:
        """A zombie is not alive: it holds no port and no file."""
        try:
            process = psutil.Process(self.pid)
            same = abs(float(process.create_time()) - self.started_at) < SAME_START_SECONDS
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def send(self, signal_number: signal.Signals) -> None:
        """Does nothing when the process is gone."""
        if not self.is_alive():
            return
        try:
            os.kill(self.pid, signal_number)
        except ProcessLookupError:
            return

    def wait_gone(self, timeout_seconds: float) -> bool:
        """True once it is gone, False when it is still there after the timeout."""
        # Polled: psutil's own wait would reap a child behind its Popen's back.
        deadline = time.monotonic() + timeout_seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def end(mark: ProcessMark, polite: signal.Signals, patience_seconds: float) -> None:
    """Ask, wait, then kill; returns when the process is gone."""
    mark.send(polite)
    if not mark.wait_gone(patience_seconds):
        mark.send(signal.SIGKILL)
        mark.wait_gone(KILL_WAIT_SECONDS)


def tethered(
    command: Sequence[str], death_signal: int, parent_pid: int, user: str = "-"
) -> list[str]:
    """The command, made to receive `death_signal` when the process `parent_pid` that starts it dies.

    `parent_pid`: 0 (SUPERVISOR) for a command that a tethered supervisor will start. `death_signal`: 0 for none.
    `user`: run as this user instead of the present one (only root can).
    """
    tether = [sys.executable, "-S", "-E", str(TETHER), str(parent_pid), str(int(death_signal))]
    return [*tether, user, *command]


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start in the background, output to `log`, in a session of its own (a Ctrl-C is ours to pass on)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )


def is_running(child: subprocess.Popen[bytes]) -> bool:
    return child.poll() is None


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log on one line, for an error message."""
    if not log.exists():
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-count:])


def interrupt_on_termination() -> None:
    """A SIGTERM is taken like a Ctrl-C, so that what was started is cleared away; only the main thread may ask."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Clearing away is bounded in time and must not be cut short by an impatient second Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
