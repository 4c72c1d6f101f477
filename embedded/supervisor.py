"""The stack's processes under supervisord: each known by name, with its own log, told apart from all others by pid."""

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from embedded import processes
from embedded.errors import ServerDidNotStart
from embedded.ports import LOOPBACK, free_port
from embedded.processes import ProcessMark

USER = "farebox"
START_TIMEOUT_SECONDS = 15.0
POLL_SECONDS = 0.05
# Longer than the longest `stop_seconds` of a program: supervisord kills those itself.
SHUTDOWN_SECONDS = 60.0
RUNNING_STATES = frozenset({"STARTING", "RUNNING", "STOPPING"})


@dataclass(frozen=True)
class Program:
    """`command` must be tethered to the supervisor; lower ranks start first and stop last."""

    name: str
    command: Sequence[str]
    directory: Path
    rank: int
    stop_signal: str = "TERM"
    stop_seconds: int = 15


@dataclass(frozen=True)
class ProgramInfo:
    """As supervisord reports it; pid 0 when it does not run."""

    name: str
    group: str
    pid: int
    statename: str
    exitstatus: int

    @property
    def runs(self) -> bool:
        return self.statename in RUNNING_STATES and self.pid > 0


INFOS = TypeAdapter(list[ProgramInfo])


@dataclass(frozen=True)
class Address:
    """Where a supervisor listens, and the password that keeps other users of the machine out."""

    port: int
    password: str

    @property
    def url(self) -> str:
        return f"http://{USER}:{self.password}@{LOOPBACK}:{self.port}/RPC2"


class Supervisor:
    """A running supervisord; calls raise OSError when it is gone."""

    def __init__(
        self, address: Address, mark: ProcessMark, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.address = address
        self.mark = mark
        self._child = child

    @classmethod
    def launch(
        cls,
        programs: Sequence[Program],
        folder: Path,
        env: Mapping[str, str],
        *,
        die_with_caller: bool,
    ) -> "Supervisor":
        """Start supervisord with no program running yet; logs go to `folder`/logs."""
        address = Address(free_port(), secrets.token_hex(16))
        config = folder / "supervisord.conf"
        config.touch(mode=0o600)
        config.write_text(configuration(programs, folder, address))
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)]
        death_signal = int(signal.SIGTERM) if die_with_caller else 0
        tethered = processes.tethered(command, death_signal, os.getpid())
        log = folder / "logs" / "supervisord.log"
        child = processes.spawn(tethered, log, env)
        mark = ProcessMark.of(child.pid)
        if mark is None:
            raise ServerDidNotStart("supervisord", log, processes.last_lines(log))
        supervisor = cls(address, mark, child)
        try:
            supervisor.wait_answering(log)
        except BaseException:
            processes.end(mark, signal.SIGTERM, patience_seconds=1)
            supervisor.reap()
            raise
        return supervisor

    def reap(self) -> None:
        """Once it is gone, for whoever launched it."""
        if self._child is not None:
            self._child.wait(SHUTDOWN_SECONDS)

    def wait_answering(self, log: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.answers():
            if not self.mark.is_alive() or time.monotonic() > deadline:
                raise ServerDidNotStart("supervisord", log, processes.last_lines(log))
            time.sleep(POLL_SECONDS)

    def _call(self, method: str, *arguments: str | bool) -> object:
        """One connection each: a kept one would have to be closed by whoever holds this object."""
        with xmlrpc.client.ServerProxy(self.address.url) as server:
            return getattr(server.supervisor, method)(*arguments)

    def answers(self) -> bool:
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self, name: str) -> None:
        self._call("startProcess", self._full_name(name), False)

    def signal(self, name: str, number: signal.Signals) -> None:
        self._call("signalProcess", self._full_name(name), str(int(number)))

    def stop(self, name: str) -> None:
        """Returns once it has stopped; one that does not run is no error."""
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("stopProcess", self._full_name(name), True)

    def _full_name(self, name: str) -> str:
        return f"{self.infos()[name].group}:{name}"

    def infos(self) -> dict[str, ProgramInfo]:
        rows = INFOS.validate_python(self._call("getAllProcessInfo"))
        return {row.name: row for row in rows}

    def shut_down(self) -> None:
        """Stop everything, highest rank first and one rank at a time, then the supervisor; gone on return."""
        self.mark.send(signal.SIGTERM)
        if not self.mark.wait_gone(SHUTDOWN_SECONDS):
            processes.end(self.mark, signal.SIGKILL, patience_seconds=0)


def configuration(programs: Sequence[Program], folder: Path, address: Address) -> str:
    logs = folder / "logs"
    ranks = sorted({program.rank for program in programs})
    sections = [
        "[supervisord]",
        f"logfile={quoted(logs / 'supervisord.log')}",
        f"pidfile={quoted(folder / 'supervisord.pid')}",
        f"childlogdir={quoted(logs)}",
        # Its standard output is the same file: what precedes the log, such as a failed import, goes there.
        "silent=true",
        "[inet_http_server]",
        f"port={LOOPBACK}:{address.port}",
        f"username={USER}",
        f"password={address.password}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs:
        sections += program_section(program, logs)
    for rank in ranks:
        members = ",".join(program.name for program in programs if program.rank == rank)
        sections += [f"[group:rank{rank}]", f"programs={members}", f"priority={rank}"]
    return "\n".join(sections) + "\n"


def program_section(program: Program, logs: Path) -> list[str]:
    return [
        f"[program:{program.name}]",
        f"command={quoted(shlex.join(program.command))}",
        f"directory={quoted(program.directory)}",
        f"stdout_logfile={quoted(logs / f'{program.name}.log')}",
        "redirect_stderr=true",
        "stdout_logfile_maxbytes=20MB",
        "stdout_logfile_backups=1",
        "autostart=false",
        # What dies stays down and is shown as such: here one wants to see it, not to have it papered over.
        "autorestart=false",
        "startsecs=0",
        f"stopsignal={program.stop_signal}",
        f"stopwaitsecs={program.stop_seconds}",
        "killasgroup=true",
    ]


def quoted(value: object) -> str:
    """supervisord expands `%`."""
    return str(value).replace("%", "%%")
