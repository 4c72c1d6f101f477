"""Signed webhooks as Stripe sends them, and wrk to send them."""

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from embedded.stripe_sandbox import PaymentSpec, play, sign
from shared.events import derived_id

SECRET = "whsec_bench"
SCRIPT = Path(__file__).with_name("load.lua")
CUSTOMERS = 2_000
PAYMENTS_A_PLAY = 1_000
START = 1_767_225_600  # 2026-01-01


class WrkMissing(Exception):
    def __init__(self) -> None:
        super().__init__("wrk is not installed: apt-get install wrk, or brew install wrk")


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers, over how long, how many of them failed, and how long they took."""

    answers: int
    seconds: float
    failures: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


def events(count: int, seed: int = 1) -> list[bytes]:
    """`count` distinct events of legal payment lives, as Stripe writes them."""
    made: list[bytes] = []
    number = 0
    while len(made) < count:
        specs = [spec(number + more) for more in range(PAYMENTS_A_PLAY)]
        number += PAYMENTS_A_PLAY
        played = play(f"bench-{seed}-{number}", specs, START)
        made += [json.dumps(event, indent=2).encode() for event in played.events]
    return made[:count]


def spec(number: int, lifecycle: str | None = None) -> PaymentSpec:
    customer: UUID = derived_id("bench-customer", number % CUSTOMERS)
    return PaymentSpec(
        user_id=str(customer),
        subscription_id=str(derived_id("bench-subscription", customer)),
        amount_minor=500 + number % 10_000,
        currency="usd",
        lifecycle=lifecycle,
    )


def request_of(body: bytes, port: int, now: int) -> bytes:
    head = (
        "POST /webhooks/stripe HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
        "Accept: */*; q=0.5, application/xml\r\n"
        "Cache-Control: no-cache\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Stripe-Signature: {sign(body, [SECRET], now)}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def write_requests(path: Path, bodies: Sequence[bytes], port: int) -> None:
    """Signed now: Stripe's tolerance is five minutes."""
    now = int(time.time())
    with path.open("wb") as file:
        for body in bodies:
            request = request_of(body, port, now)
            file.write(b"%d\n%s" % (len(request), request))


async def wrk(port: int, requests: Path, connections: int, seconds: int) -> Load:
    """Raises WrkMissing; RuntimeError when wrk says nothing."""
    program = shutil.which("wrk")
    if program is None:
        raise WrkMissing
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    process = await asyncio.create_subprocess_exec(
        *(program, *options, "-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(requests)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    for line in said.decode().splitlines():
        if line.startswith("RESULT "):
            answers, micros, failures, p50, p99 = (int(part) for part in line.split()[1:])
            return Load(answers, micros / 1e6, failures, p50 / 1e3, p99 / 1e3)
    raise RuntimeError(f"wrk: {said.decode().strip()}")
