"""The whole system as processes: up, hurt, mended, down, and nothing of it left whatever happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from embedded import stack_plan
from embedded.errors import (
    FolderNotUsable,
    MigrationFailed,
    NoSuchProcess,
    NotADatabaseUrl,
    PortInUse,
    ServerDidNotStart,
    SettingNotANumber,
    StackAlreadyRunning,
)
from embedded.ports import free_ports, is_in_use
from embedded.processes import ProcessMark
from embedded.stack import Stack, StackOptions, stop_stack
from embedded.stack_plan import make_plan
from embedded.stack_record import read_record
from shared.settings import PORTS
from tests.conftest import Database
from tests.embedded.conftest import processes_in

SERVICES = {f"{service}-{role}" for service in PORTS for role in ("web", "worker")}
WAIT_SECONDS = 90.0


@pytest.fixture
def environ() -> dict[str, str]:
    """Nobody's servers, ports of our own: everything is embedded."""
    unset = {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_API_KEY", "STRIPE_API_BASE"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return kept | {f"{name.upper()}_PORT": str(port) for name, port in ports.items()}


@pytest.fixture
def own_servers(
    environ: dict[str, str], empty_database: Database, kafka_servers: str, unique: Iterator[str]
) -> dict[str, str]:
    """PostgreSQL and Kafka are somebody's: only the sandbox and the services are started."""
    return environ | {
        "DATABASE_URL": empty_database.url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": f"t{next(unique).replace('_', '-')}",
        "FAREBOX_TOPIC_PARTITIONS": "2",
    }


@pytest.fixture
def folder(open_folder: Path) -> Iterator[Path]:
    yield open_folder / "state"
    stop_stack(open_folder / "state")


def none_left(folder: Path, environ: Mapping[str, str]) -> bool:
    ports = [int(environ[f"{name.upper()}_PORT"]) for name in PORTS]
    deadline = time.monotonic() + WAIT_SECONDS
    while processes_in(folder) or any(is_in_use(port) for port in ports):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def worker_logs(folder: Path) -> str:
    return "".join(path.read_text()[-2000:] for path in (folder / "logs").glob("*-worker.log"))


def test_everything_comes_up_is_hurt_and_mended_and_goes(
    folder: Path, environ: dict[str, str]
) -> None:
    options = StackOptions(folder=folder, environ=environ, fresh=True)
    with Stack.start(options) as stack:
        expected = SERVICES | {"postgres", "kafka", "stripe-sandbox", "supervisor"}
        assert set(stack.pids()) == expected
        for service in PORTS:
            assert httpx.get(f"{stack.urls[service]}/healthz").status_code == httpx.codes.OK
        hurt = stack.pids()["payments-worker"]
        stack.kill("payments-worker")
        assert set(stack.pids()) == expected - {"payments-worker"}, worker_logs(folder)
        stack.restart("payments-worker")
        assert stack.pids()["payments-worker"] != hurt
        with pytest.raises(StackAlreadyRunning, match="make down"):
            Stack.start(options)
        with pytest.raises(NoSuchProcess, match="payments-worker"):
            stack.kill("payment-worker")
        children = psutil.Process(stack.pids()["supervisor"]).children(True)
        marks = [ProcessMark(each.pid, each.create_time()) for each in children]
    assert not any(each.is_alive() for each in marks)
    assert none_left(folder, environ)
    assert not {"postgres", "kafka", "stripe-sandbox"} & {path.name for path in folder.iterdir()}


def test_a_killed_supervisor_takes_everything_with_it(
    folder: Path, own_servers: dict[str, str]
) -> None:
    stack = Stack.start(StackOptions(folder=folder, environ=own_servers))
    assert set(stack.pids()) == SERVICES | {"stripe-sandbox", "supervisor"}
    os.kill(stack.pids()["supervisor"], signal.SIGKILL)
    assert none_left(folder, own_servers)
    assert stack.pids() == {}
    stack.stop()
    assert read_record(folder) is None


def test_a_port_in_use_is_named_before_anything_starts(
    folder: Path, environ: dict[str, str], kafka_servers: str
) -> None:
    environ["LOYALTY_PORT"] = kafka_servers.rsplit(":", 1)[1]
    with pytest.raises(PortInUse, match="LOYALTY_PORT"):
        Stack.start(StackOptions(folder=folder, environ=environ))
    assert processes_in(folder) == []


class Ready(BaseHTTPRequestHandler):
    """What another stack answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def test_a_port_that_another_stack_took_meanwhile_is_not_taken_for_ours(
    folder: Path, own_servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def both_found_it_free(port: int, setting: str) -> None:
        """At the same moment."""

    monkeypatch.setattr(stack_plan, "require_free", both_found_it_free)
    address = ("127.0.0.1", int(own_servers["PRICING_PORT"]))
    with HTTPServer(address, Ready) as other:
        Thread(target=other.serve_forever).start()
        try:
            with pytest.raises(ServerDidNotStart, match="pricing-web"):
                Stack.start(StackOptions(folder=folder, environ=own_servers))
        finally:
            other.shutdown()
    assert none_left(folder, own_servers)


def test_no_service_starts_when_the_migration_job_fails(
    folder: Path, own_servers: dict[str, str]
) -> None:
    own_servers["FAREBOX_TIME_ZONE"] = "Nowhere/AtAll"
    with pytest.raises(MigrationFailed, match="FAREBOX_TIME_ZONE"):
        Stack.start(StackOptions(folder=folder, environ=own_servers))
    assert not list((folder / "logs").glob("*-web.log"))
    assert none_left(folder, own_servers)


def test_ctrl_c_during_the_start_leaves_nothing(folder: Path, own_servers: dict[str, str]) -> None:
    code = (
        "import sys; from pathlib import Path; from embedded.stack import Stack, StackOptions\n"
        "Stack.start(StackOptions(folder=Path(sys.argv[1])), lambda step: print(step, flush=True))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=own_servers, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == "pricing-web":
                break
        assert len(processes_in(folder)) > 1
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=WAIT_SECONDS)
    assert child.returncode != 0
    assert none_left(folder, own_servers)


def test_what_the_environment_names_is_not_embedded(
    open_folder: Path, environ: dict[str, str]
) -> None:
    given = {
        "DATABASE_URL": "postgresql://owner@db.example/farebox",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
        "STRIPE_API_KEY": "sk_live_x",
    }
    plan = make_plan(open_folder, environ | given)
    assert (plan.postgres, plan.kafka, plan.has_sandbox) == (None, None, False)
    assert {name: plan.env[name] for name in given} == given
    assert "STRIPE_API_BASE" not in plan.env


def test_a_port_that_is_no_number_is_named(open_folder: Path, environ: dict[str, str]) -> None:
    with pytest.raises(SettingNotANumber, match="PRICING_PORT=eighty"):
        make_plan(open_folder, environ | {"PRICING_PORT": "eighty"})


def test_a_folder_that_cannot_be_made_is_named(open_folder: Path, environ: dict[str, str]) -> None:
    (open_folder / "file").write_text("")
    with pytest.raises(FolderNotUsable, match="file"):
        Stack.start(StackOptions(folder=open_folder / "file" / "state", environ=environ))


def test_services_log_in_with_the_owners_password_where_none_of_their_own_is_given(
    environ: dict[str, str], folder: Path
) -> None:
    given = {
        "DATABASE_URL": "postgresql://owner:secret@127.0.0.1:1/shop",
        "LOYALTY_DATABASE_URL": "postgresql://loyalty_app:own@127.0.0.1:1/shop",
    }
    env = make_plan(folder, environ | given).env

    assert env["PRICING_DATABASE_URL"] == "postgresql://pricing_app:secret@127.0.0.1:1/shop"
    assert env["LOYALTY_DATABASE_URL"] == given["LOYALTY_DATABASE_URL"]


def test_a_database_url_that_is_none_is_refused_without_repeating_it(
    environ: dict[str, str], folder: Path
) -> None:
    with pytest.raises(NotADatabaseUrl) as refused:
        make_plan(folder, environ | {"DATABASE_URL": "my:secret"})
    assert "secret" not in str(refused.value)
