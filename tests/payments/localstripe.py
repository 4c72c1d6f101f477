"""localstripe in a process and a Python of its own: somebody else's idea of Stripe (GPL, never imported here)."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import platformdirs
import stripe

from embedded.ports import LOOPBACK, accepts_connections, free_port
from embedded.processes import tethered

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements" / "localstripe.txt"
READY = "installed"
# A first run downloads a dozen packages.
STARTS_WITHIN_SECONDS = 60.0
STOPS_WITHIN_SECONDS = 20.0
# Its own command binds every interface and loads a pickle from /tmp; its application alone does neither,
# and what it would write there is left out.
RUN = """
import sys
from aiohttp import web
from localstripe import resources, server

resources.Store.dump_to_disk = lambda store: None
web.run_app(server.app, host=sys.argv[1], port=int(sys.argv[2]), print=None)
"""


def python_with_localstripe() -> Path:
    """Made once for these pins, in the user's cache; whoever comes second waits for the first."""
    pins = hashlib.sha256(PINS.read_bytes()).hexdigest()[:16]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = platformdirs.user_cache_path("farebox") / f"localstripe-{version}-{pins}"
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv" / "bin" / "python"
    with (folder / ".lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not (folder / READY).exists():
            shutil.rmtree(folder / "venv", ignore_errors=True)
            uv = [sys.executable, "-m", "uv"]
            made = [*uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")]
            subprocess.run(made, check=True)
            install = ["pip", "install", "--quiet", "--require-hashes", "--python", str(python)]
            subprocess.run([*uv, *install, "-r", str(PINS)], check=True)
            (folder / READY).touch()
    return python


@contextmanager
def running(command: list[str], port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    """The command, from when it accepts connections on `port` (0: at once) until it has ended."""
    child = subprocess.Popen(
        tethered(command, signal.SIGKILL, os.getpid()), cwd=ROOT, env={**os.environ, **(env or {})}
    )
    try:
        until(lambda: port == 0 or accepts_connections(port) or child.poll() is not None)
        assert child.poll() is None, f"{command} ended with {child.returncode}"
        yield
    finally:
        child.terminate()
        try:
            child.wait(STOPS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until(holds: Callable[[], bool], within_seconds: float = STARTS_WITHIN_SECONDS) -> None:
    """Ask again until it holds; AssertionError when it has not by then."""
    deadline = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


class Localstripe:
    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}"
        self.client = stripe.StripeClient("sk_test_local", base_addresses={"api": self.url}).v1

    def register_webhook(self, url: str, secret: str) -> None:
        order = {"url": url, "secret": secret}
        httpx.post(f"{self.url}/_config/webhooks/farebox", json=order).raise_for_status()

    def customer_with_card(self, number: str) -> tuple[str, str]:
        """The ids of a new customer and of the card that is attached to it."""
        customer = self.client.customers.create({"email": "somebody@example.test"})
        method = self.client.payment_methods.create(
            {
                "type": "card",
                "card": {"number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"},
            }
        )
        self.client.payment_methods.attach(method.id, {"customer": customer.id})
        return customer.id, method.id


@contextmanager
def localstripe() -> Iterator[Localstripe]:
    port = free_port()
    command = [str(python_with_localstripe()), "-c", RUN, LOOPBACK, str(port)]
    with running(command, port):
        yield Localstripe(port)
