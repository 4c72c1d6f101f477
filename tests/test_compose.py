"""docker-compose.yml without Docker: its commands, environment and health checks, run as this machine's processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from embedded.ports import LOOPBACK, free_port
from embedded.stack_plan import SERVICE_RANK, Plan, plan_services
from shared.settings import PORTS, Settings
from tests.compose_file import (
    ROOT,
    ComposeService,
    MissingValue,
    compose_services,
    named_in_example,
    required_names,
)
from tests.conftest import Database

VALUES = {name: f"for{index}" for index, name in enumerate(sorted(required_names()))}
DATABASE_URL = re.compile(r"postgresql://(?P<user>\w+):\w+@postgres:5432/farebox")
# Only the migration job writes files.
JOB_FOLDERS = {"FAREBOX_AUDIT_DIR", "FAREBOX_BACKUP_DIR"}
JOB_FOLDER = "/var/lib/farebox"
READY_SECONDS = 90.0
STOP_SECONDS = 15.0


@pytest.fixture(scope="module")
def services() -> dict[str, ComposeService]:
    return compose_services(VALUES)


def test_no_value_that_must_be_secret_stands_in_the_file() -> None:
    for name in required_names():
        with pytest.raises(MissingValue, match=name):
            compose_services({key: value for key, value in VALUES.items() if key != name})
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"(?i)(password|secret|api_key)s?: (?!\$\{)\S", text)
    assert not re.search(r"://[^:/\s]+:(?!\$\{)[^@\s]+@", text)


def test_the_example_names_every_value_that_is_needed() -> None:
    assert required_names() <= named_in_example()


def test_it_runs_the_services_that_the_embedded_stack_runs(
    services: dict[str, ComposeService],
) -> None:
    plan = Plan(Path("unused"), {}, {}, {}, None, None)
    plan_services(plan)
    embedded = {
        each.name: _after_python(each.command)
        for each in plan.programs
        if each.rank == SERVICE_RANK
    }
    long_running = {
        name: _after_python(service.command)
        for name, service in services.items()
        if service.is_ours and not service.profiles and name != "migrate"
    }
    assert long_running == embedded
    assert services["migrate"].command == ["python", "run_migration.py"]


def test_nothing_of_ours_starts_before_the_migration_has_succeeded(
    services: dict[str, ComposeService],
) -> None:
    waits = {
        name: {on: how.condition for on, how in service.depends_on.items()}
        for name, service in services.items()
        if service.is_ours and not service.profiles
    }
    healthy = "service_healthy"
    assert waits.pop("migrate") == {"postgres": healthy, "kafka": healthy}
    assert len(waits) == 2 * len(PORTS)
    assert set(map(str, waits.values())) == {"{'migrate': 'service_completed_successfully'}"}


def test_every_variable_is_one_that_the_settings_know(services: dict[str, ComposeService]) -> None:
    known = {name.upper() for name in Settings.model_fields}
    for name, service in services.items():
        if service.is_ours:
            folders = JOB_FOLDERS if name == "migrate" else set()
            assert set(service.environment) <= known | folders, name


def test_each_service_is_told_its_own_database_alone(services: dict[str, ComposeService]) -> None:
    for name, service in services.items():
        owner = name.partition("-")[0]
        if service.is_ours and owner in PORTS:
            urls = {key for key in service.environment if key.endswith("DATABASE_URL")}
            assert urls == {f"{owner.upper()}_DATABASE_URL"}
            assert ("STRIPE_API_KEY" in service.environment) == (owner == "payments")


def test_ports_are_open_on_this_machine_only(services: dict[str, ComposeService]) -> None:
    published = [port for service in services.values() for port in service.ports]
    assert published
    assert all(port.startswith(f"{LOOPBACK}:") for port in published)


def test_its_commands_environment_and_health_checks_work_together(
    empty_database: Database, kafka_servers: str, topics: str, tmp_path: Path
) -> None:
    """What Docker would run, in its order: the job to its end, the rest until every health check passes."""
    here = Here(empty_database, kafka_servers)
    here.replacements[JOB_FOLDER] = str(tmp_path)
    services = {
        name: here.moved(service)
        for name, service in compose_services(VALUES | {"FAREBOX_TOPIC_PREFIX": topics}).items()
        if service.is_ours and not service.profiles
    }
    migrate = services.pop("migrate")
    job = subprocess.run(
        migrate.command, cwd=ROOT, env=_bare(migrate), capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stderr
    with contextlib.ExitStack() as running:
        processes = {name: running.enter_context(_run(each)) for name, each in services.items()}
        deadline = time.monotonic() + READY_SECONDS
        for name, service in services.items():
            while (sick := _sickness(service)) is not None:
                assert processes[name].poll() is None, f"{name} ended"
                assert time.monotonic() < deadline, f"{name}: {sick}"
                time.sleep(0.2)


class Here:
    """Moves a service from the compose network to this machine: other hosts and ports, all else as written."""

    def __init__(self, database: Database, kafka_servers: str) -> None:
        self.database = database
        self.replacements = {"kafka:9092": kafka_servers, "0.0.0.0": LOOPBACK}
        for service, port in PORTS.items():
            self.replacements[f"//{service}-web:"] = f"//{LOOPBACK}:"
            self.replacements[str(port)] = str(free_port())

    def moved(self, service: ComposeService) -> ComposeService:
        text = DATABASE_URL.sub(self._url, service.model_dump_json())
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return ComposeService.model_validate_json(text.replace('"python"', f'"{sys.executable}"'))

    def _url(self, found: re.Match[str]) -> str:
        """Without a password: roles belong to the whole server, which may be somebody's own."""
        owner, is_role, _ = found["user"].partition("_app")
        return self.database.url_for(owner) if is_role else self.database.url


def _after_python(command: Sequence[str]) -> list[str]:
    """Without the interpreter, and without what the embedded stack wraps around it."""
    at = max(index for index, word in enumerate(command) if word in ("python", sys.executable))
    return list(command[at + 1 :])


def _bare(service: ComposeService) -> Mapping[str, str]:
    """A container knows nothing of its host."""
    return {"PATH": os.environ["PATH"], **service.environment}


@contextlib.contextmanager
def _run(service: ComposeService) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(service.command, cwd=ROOT, env=_bare(service))
    try:
        yield process
        process.terminate()
        # uvicorn finishes, then ends as the signal would have ended it.
        assert process.wait(STOP_SECONDS) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _sickness(service: ComposeService) -> str | None:
    """None when the health check passes, else its last words."""
    assert service.healthcheck is not None
    kind, *command = service.healthcheck.test
    assert kind == "CMD"
    probe = subprocess.run(command, env=_bare(service), capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]
