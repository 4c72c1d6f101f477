"""Schemathesis against the real web process: whatever it sends, the answers are those the OpenAPI page promises."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.ports import free_port
from shared.api_keys import SCOPES, create_key
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import every_life
from tests.pricing.test_openapi import await_answer
from tests.sandbox.conftest import RunningSandbox, sandbox
from tests.servers import ROOT

__all__ = ["sandbox"]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,ignored_auth"
)
EXAMPLES = 5
SEED = 7  # one and the same run each time: a smoke test, not a lottery


@contextmanager
def web(environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", "services.payments.app", "web"],
        cwd=ROOT,
        env=os.environ | environment | {"PAYMENTS_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{url}/healthz")
        yield url
    finally:
        child.terminate()
        child.wait(timeout=20)


async def test_the_api_keeps_what_its_openapi_page_promises(
    database: Database, service: Service, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    await service.receive(every_life(2).events)
    await service.fold_all()
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine).begin() as session:
        key = await create_key(session, "payments", "all", list(SCOPES["payments"]))
    await engine.dispose()
    (tmp_path / "schemathesis.toml").write_text(await subjects(service))
    environment = {
        "DATABASE_URL": database.url,
        "STRIPE_API_KEY": "sk_test_openapi",
        "STRIPE_API_BASE": sandbox.url,
        # Without it the reading routes ask for no key, and then ignore a wrong one.
        "FAREBOX_REQUIRE_KEYS": "true",
    }
    with web(environment) as url:
        ran = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
                *("--header", f"Authorization: Bearer {key}"),
                *("--exclude-tag", "operations", "--checks", CHECKS),
                *("--max-examples", str(EXAMPLES), "--seed", str(SEED)),
                *("--generation-database", "none", "--phases", "examples,coverage,fuzzing"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
    placed = {row["kind"] for row in await service.rows("SELECT kind FROM stripe_orders")}
    assert placed - {"create"}, "no rule was passed for a payment that there is"


async def subjects(service: Service) -> str:
    """What is written is about payments that there are: an id that nobody knows ends before any rule is looked at."""
    by_status = {str(row["status"]): row["id"] for row in (await service.payments()).values()}
    wanted = {
        "refund": by_status["succeeded"],
        "capture": by_status.get("requires_capture", by_status["succeeded"]),
        "cancel": by_status["requires_payment_method"],
        "confirm": by_status["requires_payment_method"],
    }
    return "".join(
        f'[[operations]]\ninclude-path = "/payments/{{payment_id}}/{action}"\n'
        f'parameters = {{ payment_id = "{payment_id}" }}\n'
        for action, payment_id in wanted.items()
    )
