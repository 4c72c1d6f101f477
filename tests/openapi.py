"""Schemathesis against a real web process: whatever it sends, the answers are those the OpenAPI page promises."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedded.ports import free_port
from tests.servers import ROOT

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,ignored_auth"
)
EXAMPLES = 5
SEED = 7  # one and the same run each time: a smoke test, not a lottery
PATIENCE_SECONDS = 30.0


@contextmanager
def web(service: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The service's web process, by its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{service}.app", "web"],
        cwd=ROOT,
        env=os.environ | environment | {f"{service.upper()}_PORT": str(port)},
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


async def assert_promises_kept(url: str, key: str, folder: Path, hooks: str = "") -> None:
    """`folder` may hold a `schemathesis.toml`; `hooks` is a module of Schemathesis' hooks."""
    more = {"SCHEMATHESIS_HOOKS": hooks, "PYTHONPATH": str(ROOT)} if hooks else {}
    ran = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--exclude-tag", "operations", "--checks", CHECKS),
            *("--max-examples", str(EXAMPLES), "--seed", str(SEED)),
            *("--generation-database", "none", "--phases", "examples,coverage,fuzzing"),
        ],
        cwd=folder,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
