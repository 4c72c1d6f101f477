"""A sandbox process of one's own, a real client for it, and an endpoint that takes its webhooks."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import stripe

STARTS_WITHIN_SECONDS = 30.0
START = 1_780_000_000
# Made anew for each call, a client would read all the certificates there are, for an address without any.
PLAIN = httpx.Client(verify=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True)
class RunningSandbox:
    url: str

    def client(self, key: str = "sk_test_sandbox", retries: int = 0) -> stripe.StripeClient:
        return stripe.StripeClient(
            key, base_addresses={"api": self.url}, max_network_retries=retries
        )

    def control(self, method: str, path: str, body: object = None) -> Any:
        """A control command's answer; HTTPStatusError when it is refused."""
        answer = PLAIN.request(method, f"{self.url}/_sandbox/{path}", json=body)
        return answer.raise_for_status().json()

    def play(self, *lifecycles: str, seed: int = 1, **more: object) -> list[str]:
        """Play one payment per lifecycle; returns their ids."""
        payments = [
            {"user_id": "u", "amount_minor": 9_000, "currency": "USD", "lifecycle": each}
            for each in lifecycles
        ]
        order = {"seed": seed, "start_at": START, "payments": payments, **more}
        return [each["stripe_id"] for each in self.control("POST", "play", order)["payments"]]

    def await_health(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while True:
            try:
                self.control("GET", "health")
            except httpx.TransportError:
                assert child.poll() is None, "the sandbox ended before it served"
                assert time.monotonic() < deadline, "the sandbox did not serve in time"
                time.sleep(0.05)
            else:
                return


@pytest.fixture
def sandbox(sandbox_url: str) -> RunningSandbox:
    """The worker's process, with nothing left from the test before: no payment, endpoint, fault or clock."""
    running = RunningSandbox(sandbox_url)
    running.control("POST", "forget")
    return running


@dataclass
class Receiver:
    """What came in, in order; `refuse` holds statuses to answer with before any 200."""

    url: str = ""
    refuse: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]

    def take(self, body: bytes, signature: str) -> int:
        with self.lock:
            self.bodies.append(body)
            self.signatures.append(signature)
            return self.refuse.pop(0) if self.refuse else 200

    @contextmanager
    def also_at(self, address: tuple[str, int]) -> Iterator[int]:
        """Listen at an address; port 0 takes a free one, which is given back."""
        server = ThreadingHTTPServer(address, _door(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _door(taken: Receiver) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = taken.take(body, self.headers.get("Stripe-Signature", ""))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Tests speak for themselves."""

    return Door


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    taken = Receiver()
    with taken.also_at(("127.0.0.1", 0)) as port:
        taken.url = f"http://127.0.0.1:{port}/webhooks/stripe"
        yield taken
