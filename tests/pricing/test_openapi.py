"""Schemathesis against the real web process: whatever it sends, the answers are those the OpenAPI page promises."""

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.api_keys import SCOPES, create_key
from shared.db import Sessions
from tests.conftest import Database
from tests.pricing.conftest import Shop, hear_storefront, publish_config
from tests.servers import ROOT

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,ignored_auth"
)
EXAMPLES = 5
SEED = 7  # one and the same run each time: a smoke test, not a lottery
PATIENCE_SECONDS = 30.0


@contextmanager
def web(environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.pricing.app", "web"],
        cwd=ROOT,
        env=os.environ | environment | {"PRICING_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(f"{url}/healthz")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def await_answer(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def test_the_api_keeps_what_its_openapi_page_promises(
    database: Database, shop: Shop, sessions: Sessions, tmp_path: Path
) -> None:
    async with sessions.begin() as session:
        key = await create_key(session, "pricing", "all", list(SCOPES["pricing"]))
    await publish_config(sessions, datetime.now(UTC) - timedelta(days=1))
    await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    environment = {
        "DATABASE_URL": database.url,
        "PRICING_DATABASE_URL": database.url_for("pricing"),
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
