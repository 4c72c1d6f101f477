"""A price from its draft to its rollout, as two people at their terminals take it through the door."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from services.pricing import preview, rollout
from shared.clock import utc_now
from shared.db import create_engine, create_sessions
from tests.cli.conftest import Farebox
from tests.conftest import Database
from tests.pricing.conftest import CONFIG, Shop
from tests.pricing.test_openapi import web

WRITES = ("pricing:read", "pricing:write")


@contextmanager
def worker(database: Database) -> Iterator[None]:
    """The worker's two loops on prices, without its consumers and its relay."""
    over = threading.Event()

    async def work() -> None:
        engine = create_engine(database.url_for("pricing"), "pricing")
        sessions = create_sessions(engine)
        while not over.is_set():
            busy = await preview.run_once(sessions, utc_now)
            if not busy and not await rollout.run_once(sessions, utc_now):
                await asyncio.sleep(0.05)
        await engine.dispose()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def sold(database: Database) -> str:
    """A variant of 12.50 USD."""
    connection = await asyncpg.connect(database.url)
    variant = await Shop(connection).variant(1_250)
    await connection.close()
    return str(variant)


def test_a_price_goes_from_draft_to_rollout_by_two_keys(
    farebox: Farebox, database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def key(name: str, *scopes: str) -> str:
        named = [part for scope in scopes for part in ("--scope", scope)]
        return farebox("keys", "create", "--service", "pricing", "--name", name, *named).out.strip()

    keys = {"ada": key("ada", *WRITES, "pricing:approve"), "grace": key("grace", "pricing:approve")}

    def done(who: str, *arguments: str) -> dict[str, object]:
        monkeypatch.setenv("FAREBOX_API_KEY", keys[who])
        ended = farebox("pricing", *arguments, "--json")
        assert ended.code == 0, ended.err
        # The worker in this process logs to the same place.
        [said] = [line for line in ended.out.splitlines() if line.startswith("{")]
        found: dict[str, object] = json.loads(said)
        return found

    content = tmp_path / "spring.json"
    content.write_text(json.dumps(CONFIG))
    environment = {
        "DATABASE_URL": database.url,
        "PRICING_DATABASE_URL": database.url_for("pricing"),
    }
    with web(environment) as url, worker(database):
        monkeypatch.setenv("FAREBOX_PRICING_URL", url)
        version = str(done("ada", "draft", str(content))["version"])
        digest = str(done("ada", "preview", version)["hash"])
        shown = farebox("pricing", "preview", version, "--show")
        assert f"hash {digest}" in shown.out
        refused = farebox("pricing", "approve", version, "--hash", digest)
        assert refused.code == 1
        assert "ada wrote a part of price version 1" in refused.err
        assert len(refused.err.splitlines()) == 1
        assert done("grace", "approve", version, "--hash", digest)["status"] == "approved"
        order = ("publish", version, "--hash", digest, "--because", "spring")
        assert done("ada", *order)["status"] == "active"
        followed = farebox("pricing", "rollout", "show", version, "--follow")
        assert (followed.code, "is done" in followed.out) == (0, True)
        late = farebox("pricing", "rollout", "pause", version, "--because", "lunch")
        assert (late.code, "the rollout is done" in late.err) == (1, True)
        variant = asyncio.run(sold(database))
        lowest = farebox("pricing", "lowest-price", variant, "--currency", "USD")
        assert (lowest.code, lowest.out.split(" from ")[0]) == (0, "12.50 USD")
        assert "prices are known since" in lowest.out
        early = ("--currency", "USD", "--at", "2020-01-01", "--json")
        unknown = farebox("pricing", "lowest-price", variant, *early)
        assert (unknown.code, "No price was known then" in unknown.err) == (1, True)
        shown = farebox("pricing", "show", version)
        told = ("drafted", "approved", "published", "ada", "grace", "spring", "admin_percentage")
        assert [word for word in told if word not in shown.out] == []
        listed = farebox("pricing", "list")
        assert [word in listed.out for word in ("everything", "active", "grace")] == [True] * 3


def test_without_a_key_it_says_which_variable_is_missing(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAREBOX_API_KEY", raising=False)
    ended = farebox("pricing", "list")
    assert (ended.code, ended.out) == (2, "")
    assert "FAREBOX_API_KEY is not set" in ended.err
