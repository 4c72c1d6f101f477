"""A price from its draft to its rollout, as two people at their terminals take it through the door."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import asyncpg
import pytest

from services.pricing import preview, rollout
from shared.clock import utc_now
from shared.db import create_engine, create_sessions
from tests.cli.conftest import Farebox
from tests.conftest import Database
from tests.openapi import web
from tests.pricing.conftest import CONFIG, Shop

WRITES = ("pricing:read", "pricing:write", "subscriptions:read")


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


async def subscribed(database: Database, number: int) -> None:
    connection = await asyncpg.connect(database.url)
    shop = Shop(connection)
    variant = await shop.variant(1_000)
    for _ in range(number):
        await shop.subscription([(variant, 1)])
    await connection.close()


def exported(farebox: Farebox, file: Path) -> None:
    """Three lines, whole or in parts, into a file or not; a file goes on where it ends."""
    command = ("pricing", "history", "export")
    done = farebox(*command, "--out", str(file))
    assert (done.code, "3 lines up to 3" in done.err) == (0, True)
    whole = file.read_bytes()
    heading, *lines, end = whole.split(b"\r\n")
    assert (heading[:3], [line[:2] for line in lines], end) == (b"id,", [b"1,", b"2,", b"3,"], b"")
    assert farebox(*command).out.encode() == whole
    nowhere = farebox(*command, "--out", str(file / "costs.csv"))
    assert (nowhere.code, nowhere.err.splitlines()) == (2, [nowhere.err.strip()])
    rest = farebox(*command, "--after", "2").out
    assert rest.encode() == b"\r\n".join((heading, lines[2], b""))
    file.write_bytes(whole[: -len(lines[2]) // 2])  # as a killed one may leave it
    refused = farebox(*command, "--out", str(file))
    assert (refused.code, "ends with line 2: --after 2 goes on" in refused.err) == (2, True)
    assert farebox(*command, "--out", str(file), "--after", "2").code == 0
    assert file.read_bytes() == whole


def lined(farebox: Farebox, version: str) -> None:
    """Three subscriptions, one by one, of the preview and of the rollout; what is left out is said."""
    for command in (("lines", version), ("rollout", "lines", version)):
        some = farebox("pricing", *command, "--outcome", "moved", "--limit", "2", "--json")
        first, second = (each["subscription_id"] for each in json.loads(some.out))
        assert f"the first 2; --after {second} goes on" in some.err
        rest = farebox("pricing", *command, "--after", second)
        [_, line] = rest.out.splitlines()
        assert (line.split()[1], rest.err) == ("moved", "")
        assert first < second < line.split()[0]
        assert farebox("pricing", *command, "--outcome", "failed").out == "there is none\n"
        assert farebox("pricing", *command, "--outcome", "lost").code == 2


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
    asyncio.run(subscribed(database, 3))
    with web("pricing", environment) as url, worker(database):
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
        lined(farebox, version)
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
        exported(farebox, tmp_path / "costs.csv")
        listed = farebox("pricing", "list")
        assert [word in listed.out for word in ("everything", "active", "grace")] == [True] * 3


class HalfWay(BaseHTTPRequestHandler):
    """Pricing, as it dies in the midst of the second line."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Farebox-Lines", "3")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        part = b"id,kind\r\n7,created\r\n8,con"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_an_export_that_is_broken_off_says_how_it_goes_on(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAREBOX_API_KEY", "fbx_any")
    file = tmp_path / "costs.csv"
    with HTTPServer(("127.0.0.1", 0), HalfWay) as server:
        monkeypatch.setenv("FAREBOX_PRICING_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        ended = farebox("pricing", "history", "export", "--out", str(file))
        thread.join()
    assert (ended.code, ended.out) == (1, "")
    assert f"broken off after line 7; `--after 7 --out {file}` goes on" in ended.err
    assert file.read_bytes() == b"id,kind\r\n7,created\r\n"


def test_without_a_key_it_says_which_variable_is_missing(
    farebox: Farebox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAREBOX_API_KEY", raising=False)
    ended = farebox("pricing", "list")
    assert (ended.code, ended.out) == (2, "")
    assert "FAREBOX_API_KEY is not set" in ended.err
