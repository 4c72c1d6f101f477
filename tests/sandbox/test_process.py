"""The sandbox as a process: it says what it is, starts or says why not, and stops when told."""

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from embedded.ports import free_port
from tests.sandbox.conftest import RunningSandbox

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "embedded.stripe_sandbox"]


def start(port: int, state: Path) -> subprocess.CompletedProcess[str]:
    command = [*MODULE, "--port", str(port), "--state-dir", str(state)]
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_it_says_that_it_is_not_stripe(sandbox: RunningSandbox) -> None:
    assert "stand-in for Stripe, not Stripe" in httpx.get(sandbox.url).text
    key = {"Authorization": "Bearer sk_test_1"}
    answer = httpx.get(f"{sandbox.url}/v1/payment_intents", headers=key)
    assert "not Stripe" in answer.headers["x-stand-in"]


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start(port, tmp_path)
    assert ended.returncode == 69
    [line] = ended.stderr.splitlines()
    assert str(port) in line
    assert "in use" in line


def test_an_unusable_state_folder_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    ended = start(free_port(), blocked)
    assert ended.returncode == 69
    [line] = ended.stderr.splitlines()
    assert str(blocked) in line


@pytest.mark.parametrize("hung_calls", [0, 1])
def test_it_stops_at_sigterm_even_while_an_answer_is_held_back(
    tmp_path: Path, hung_calls: int
) -> None:
    port = free_port()
    command = [*MODULE, "--port", str(port), "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        running = RunningSandbox(f"http://127.0.0.1:{port}")
        running.await_health(child)
        running.control("POST", "outage", {"status": "timeout", "count": hung_calls})
        call = threading.Thread(target=hang, args=(running,))
        call.start()
        if hung_calls == 0:
            call.join()
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=15)
        call.join()
        assert time.monotonic() - asked < 10


def hang(running: RunningSandbox) -> None:
    key = {"Authorization": "Bearer sk_test_1"}
    try:
        httpx.get(f"{running.url}/v1/payment_intents", headers=key, timeout=30)
    except httpx.TransportError:
        return
