"""The payments service, told everything late, twice, shuffled and tied, comes to the sandbox's truth."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from embedded.ports import LOOPBACK, free_ports
from embedded.stripe_sandbox import LIFECYCLES
from tests.conftest import Database
from tests.payments.localstripe import running, until
from tests.sandbox.conftest import PLAIN, START, RunningSandbox

SECRET = "whsec_of_the_sandbox"
EACH_LIFE_TIMES = 4
SETTLES_WITHIN_SECONDS = 120.0
CURRENCIES = ("USD", "EUR", "JPY")


@pytest.fixture
def together(
    database: Database, kafka_servers: str, topics: str, tmp_path: Path
) -> Iterator[tuple[RunningSandbox, str]]:
    """A sandbox and the payments service pointed at each other."""
    sandbox_port, payments_port = free_ports(2)
    sandbox, payments = (f"http://{LOOPBACK}:{port}" for port in (sandbox_port, payments_port))
    env = {
        "DATABASE_URL": database.url,
        "PAYMENTS_DATABASE_URL": database.url_for("payments"),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": topics,
        "PAYMENTS_PORT": str(payments_port),
        "STRIPE_API_KEY": "sk_test_sandbox",
        "STRIPE_API_BASE": sandbox,
        "STRIPE_WEBHOOK_SECRETS": SECRET,
    }
    python = [sys.executable, "-m"]
    serve = [*python, "embedded.stripe_sandbox", "--port", str(sandbox_port)]
    with ExitStack() as stack:
        stack.enter_context(running([*serve, "--state-dir", str(tmp_path)], sandbox_port))
        stack.enter_context(running([*python, "services.payments.app", "web"], payments_port, env))
        stack.enter_context(running([*python, "services.payments.app", "worker"], 0, env))
        yield RunningSandbox(sandbox), payments


def test_every_life_comes_to_its_truth(together: tuple[RunningSandbox, str]) -> None:
    sandbox, payments = together
    endpoint = {"url": f"{payments}/webhooks/stripe", "secrets": [SECRET]}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    asked = [
        {
            "user_id": str(UUID(int=2 * index + 1)),
            "subscription_id": str(UUID(int=2 * index + 2)),
            "amount_minor": 1_000 + index,
            "currency": CURRENCIES[index % 3],
            "lifecycle": lifecycle,
        }
        for index, lifecycle in enumerate(sorted(LIFECYCLES) * EACH_LIFE_TIMES)
    ]
    faults = {"duplicates": 0.3, "reorder": "all", "tie_seconds": 0.4, "delay_ms": 500}
    order = {"seed": 5, "start_at": START, "payments": asked, "faults": faults}
    sandbox.control("POST", "play", order)
    assert sandbox.control("POST", "drain", {"timeout_seconds": 60})["drained"]

    truth = sandbox.control("GET", "truth")
    until(lambda: told_by(payments, truth) == truth, SETTLES_WITHIN_SECONDS)


def told_by(payments: str, truth: dict[str, Any]) -> dict[str, Any]:
    """What the service says of every payment, in the fields of the truth."""
    fields = next(iter(truth.values()))
    told: dict[str, Any] = {}
    after: dict[str, str] = {}
    while True:
        answer = PLAIN.get(f"{payments}/payments", params={"limit": 500, **after})
        page = answer.raise_for_status().json()
        for item in page["items"]:
            told[item["stripe_id"]] = {field: item[field] for field in fields}
        if page["next"] is None:
            return told
        after = {"after": page["next"]}
