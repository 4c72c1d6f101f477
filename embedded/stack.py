"""The whole system as processes of this machine: started in order, stopped exactly as started, nothing left behind."""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil
import psycopg
from psycopg import sql

from embedded import processes
from embedded.errors import (
    FolderNotUsable,
    MigrationFailed,
    NoSuchProcess,
    ServerDidNotStart,
    StackAlreadyRunning,
)
from embedded.ports import accepts_connections
from embedded.processes import ProcessMark
from embedded.stack_plan import (
    DATABASE,
    KAFKA,
    POSTGRES,
    ROOT,
    SANDBOX,
    Plan,
    empty,
    make_plan,
    plan_services,
    prepare_servers,
)
from embedded.stack_record import StackRecord, forget_record, read_record
from embedded.supervisor import Supervisor
from shared.settings import Settings

# Eight Python processes on two busy cores; idle it takes 6 s.
READY_TIMEOUT_SECONDS = 120.0
POLL_SECONDS = 0.1
# What outlives its supervisor has been told to go by the kernel already.
ORPHAN_PATIENCE_SECONDS = 5.0
SUPERVISOR = "supervisor"
# Where the migration job keeps its trail and its backups, unless the environment says otherwise.
JOB_FOLDERS = {"FAREBOX_AUDIT_DIR": "migration-audit", "FAREBOX_BACKUP_DIR": "backups"}

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class StackOptions:
    """`folder`: state, data and logs. `fresh`: begin with empty data and take it away at the end (logs stay)."""

    folder: Path = ROOT / ".farebox"
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    fresh: bool = False
    die_with_caller: bool = False


def silent(step: str) -> None:
    """Nobody is watching."""


class Stack:
    """A running system: `urls` by name, `env` for whoever wants to talk to it as a service would."""

    def __init__(self, options: StackOptions, plan: Plan, supervisor: Supervisor) -> None:
        self.folder = options.folder
        self.urls = plan.urls
        self.env = plan.env
        self._fresh = options.fresh
        self._plan = plan
        self._supervisor = supervisor
        self._marks: dict[str, ProcessMark] = {SUPERVISOR: supervisor.mark}

    @classmethod
    def start(cls, options: StackOptions | None = None, on_step: OnStep = silent) -> "Stack":
        """Start everything and wait until it is ready; on any failure or Ctrl-C everything is stopped again.

        `on_step` hears the name of each step as it begins.  Raises EmbeddedFault.
        """
        options = options or StackOptions()
        with starting(options):
            on_step("making ready")
            plan = make_plan(options.folder, options.environ)
            if options.fresh:
                empty(options.folder)
            prepare_servers(plan)
            plan_services(plan)
            supervisor = Supervisor.launch(
                plan.programs, options.folder, plan.env, die_with_caller=options.die_with_caller
            )
            stack = cls(options, plan, supervisor)
            try:
                stack._bring_up(on_step)
            except BaseException:
                stack.stop()
                raise
        return stack

    def _bring_up(self, on_step: OnStep) -> None:
        self._write_record(ready=False)
        for name in self._plan.servers:
            self._start_process(name)
        self._wait_servers(on_step)
        on_step("migration job")
        self._migrate()
        for name in self._plan.services:
            self._start_process(name)
        self._wait_services(self._plan.services, on_step)
        if self._plan.has_sandbox:
            self._point_sandbox_at_payments()
        self._write_record(ready=True)

    def _start_process(self, name: str) -> None:
        self._supervisor.start(name)
        info = self._supervisor.infos()[name]
        mark = ProcessMark.of(info.pid) if info.pid else None
        if mark is None:
            raise self._did_not_start(name)
        self._marks[name] = mark
        self._write_record(ready=False)

    def _write_record(self, *, ready: bool) -> None:
        names = [name.upper() for name in Settings.model_fields]
        record = StackRecord(
            supervisor=self._supervisor.mark,
            address=self._supervisor.address,
            processes=dict(self._marks),
            urls=self.urls,
            env={name: self.env[name] for name in names if name in self.env},
            ready=ready,
        )
        record.write(self.folder)

    def _wait_servers(self, on_step: OnStep) -> None:
        if self._plan.postgres is not None:
            on_step("PostgreSQL")
            self._plan.postgres.wait_ready(
                self._plan.ports[POSTGRES], alive=lambda: self._runs(POSTGRES)
            )
            create_database(self._plan.postgres.url)
        if self._plan.kafka is not None:
            on_step("Kafka")
            self._plan.kafka.wait_ready(alive=lambda: self._runs(KAFKA))
        if self._plan.has_sandbox:
            on_step("Stripe sandbox")
            port = self._plan.ports[SANDBOX]
            ready = partial(accepts_connections, port)
            self._wait(SANDBOX, partial(self._answers_itself, SANDBOX, port, ready))

    def _migrate(self) -> None:
        """The job's own command, in a process of its own; nothing of ours runs before it has succeeded."""
        log = self.log("migration")
        log.unlink(missing_ok=True)
        arguments = ["run_migration.py", "--database-url", self.env["DATABASE_URL"]]
        command = [sys.executable, *arguments]
        tethered = processes.tethered(command, signal.SIGKILL, os.getpid())
        folders = {
            name: self.env.get(name, str(self.folder / folder))
            for name, folder in JOB_FOLDERS.items()
        }
        job = processes.spawn(tethered, log, {**self.env, **folders}, ROOT)
        try:
            exit_code = job.wait()
        except BaseException:
            job.send_signal(signal.SIGINT)
            job.wait()
            raise
        if exit_code != 0:
            raise MigrationFailed(exit_code, log, processes.last_lines(log))

    def _wait_services(self, names: list[str], on_step: OnStep) -> None:
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            for name in names:
                on_step(name)
                service, _, role = name.partition("-")
                address = f"{self.urls[service]}/readyz"
                if role == "web":
                    ready = partial(says_ready, client, address)
                    self._wait(
                        name, partial(self._answers_itself, name, self._plan.ports[service], ready)
                    )
                elif not self._runs(name):
                    raise self._did_not_start(name)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not ready():
            if not self._runs(name) or time.monotonic() > deadline:
                raise self._did_not_start(name)
            time.sleep(POLL_SECONDS)

    def _answers_itself(self, name: str, port: int, ready: Callable[[], bool]) -> bool:
        """Another stack that took the port first answers too, and ours then ends."""
        return ready() and listens_on(self._marks[name].pid, port)

    def _did_not_start(self, name: str) -> ServerDidNotStart:
        return ServerDidNotStart(name, self.log(name), processes.last_lines(self.log(name)))

    def _runs(self, name: str) -> bool:
        mark = self._marks.get(name)
        return mark is not None and mark.is_alive()

    def _point_sandbox_at_payments(self) -> None:
        endpoint = {
            "url": f"{self.urls['payments']}/webhooks/stripe",
            "secrets": self.env["STRIPE_WEBHOOK_SECRETS"].split(","),
        }
        address = f"{self.urls[SANDBOX]}/_sandbox/endpoints"
        httpx.put(address, json={"endpoints": [endpoint]}, trust_env=False).raise_for_status()

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def pids(self) -> dict[str, int]:
        """Of the processes that run now."""
        return {name: mark.pid for name, mark in self._marks.items() if mark.is_alive()}

    def kill(self, name: str) -> None:
        """SIGKILL, and gone on return; it stays down until `restart`."""
        mark = self._mark_of(name)
        mark.send(signal.SIGKILL)
        mark.wait_gone(ORPHAN_PATIENCE_SECONDS)

    def restart(self, name: str) -> None:
        """Stop it if it runs, start it, and wait until its service is ready."""
        self._mark_of(name)
        self._supervisor.stop(name)
        self._start_process(name)
        if name in self._plan.services:
            self._wait_services([f"{name.partition('-')[0]}-web"], silent)
        else:
            self._wait_servers(silent)
        self._write_record(ready=True)

    def _mark_of(self, name: str) -> ProcessMark:
        if name not in self._marks:
            raise NoSuchProcess(name, sorted(self._marks))
        return self._marks[name]

    def stop(self) -> None:
        """Graceful, then by force; nothing of it runs on return."""
        stop_stack(self.folder)
        self._supervisor.reap()
        if self._fresh:
            empty(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def starting(options: StackOptions) -> Iterator[None]:
    """The folder, usable and ours alone while a stack is being started in it."""
    folder = options.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        gate = (folder / ".starting").open("w")
    except OSError as error:
        raise FolderNotUsable(folder, str(error.strerror)) from error
    with gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackAlreadyRunning(folder) from error
        record = read_record(folder)
        if record is not None and record.alive():
            raise StackAlreadyRunning(folder)
        yield


def stop_stack(folder: Path) -> list[str]:
    """Stop what the record in `folder` names, by pid and start time; returns the names of what was running."""
    record = read_record(folder)
    if record is None:
        return []
    with processes.uninterrupted():
        running = record.alive()
        Supervisor(record.address, record.supervisor).shut_down()
        for mark in record.processes.values():
            processes.end(mark, signal.SIGTERM, ORPHAN_PATIENCE_SECONDS)
        forget_record(folder)
    return running


def says_ready(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(address).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def listens_on(pid: int, port: int) -> bool:
    """Whether the process, or a child of its, is who is asked at this port."""
    try:
        process = psutil.Process(pid)
        doors = [
            door
            for member in (process, *process.children(recursive=True))
            for door in member.net_connections("tcp")
        ]
    except psutil.NoSuchProcess:
        return False
    return any(door.status == psutil.CONN_LISTEN and door.laddr.port == port for door in doors)


def create_database(admin_url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as admin:
        known = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
        if known.fetchone() is None:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
