"""The real servers of one test run: started when a test first asks, by one process, gone when the run is.

Under pytest-xdist the controller owns them and the workers ask it over a socket in the run's own folder.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from embedded.errors import EmbeddedFault
from embedded.kafka import EmbeddedKafka
from embedded.postgres import EmbeddedPostgres
from embedded.processes import ProcessMark

ROOT = Path(__file__).resolve().parent.parent
FOLDER_PREFIX = "farebox-test-"
MEMORY = Path("/dev/shm")
# Each test's database is 10 MB and write-ahead logs up to 1 GB; containers often have 64 MB there.
MEMORY_NEEDED_BYTES = 4 * 2**30
# Any number will do, as long as every run on one server takes the same: roles belong to the whole server.
MIGRATION_LOCK = 7_274_001


class ServersDidNotStart(Exception):
    """The owner could not start what was asked for."""


# What keeps a server or a template from being there; anything else is a mistake of ours and may be loud.
FAULTS = (EmbeddedFault, ServersDidNotStart, psycopg.Error, OSError)


class Servers(Protocol):
    """What a test may ask of the run."""

    def ask(self, question: str) -> str:
        """`run`: the run's id. `postgres`, `kafka`: where it listens. `template`: a migrated database's name."""


class OwnServers:
    """Starts each server at its first question; an answer, or a failure, is given again without another try."""

    def __init__(self) -> None:
        self.run_id = secrets.token_hex(4)
        self.folder = make_run_folder(Path(tempfile.gettempdir()))
        self._database_folder: Path | None = None
        self._answers: dict[str, str | Exception] = {}
        self._gate = threading.RLock()
        self._postgres: EmbeddedPostgres | None = None
        self._kafka: EmbeddedKafka | None = None
        self._door: Door | None = None

    def ask(self, question: str) -> str:
        makers: dict[str, Callable[[], str]] = {
            "run": lambda: self.run_id,
            "postgres": self._start_postgres,
            "kafka": self._start_kafka,
            "template": self._make_template,
        }
        with self._gate:
            if question not in self._answers:
                try:
                    self._answers[question] = makers[question]()
                except FAULTS as error:
                    self._answers[question] = error
            answer = self._answers[question]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _start_postgres(self) -> str:
        given = os.environ.get("DATABASE_URL")
        if given:
            return plain_url(make_url(given))
        self._database_folder = make_run_folder(database_parent())
        self._postgres = EmbeddedPostgres(self._database_folder / "postgres", durable=False)
        return self._postgres.start()

    def _start_kafka(self) -> str:
        given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if given:
            return given
        self._kafka = EmbeddedKafka(self.folder / "kafka")
        return self._kafka.start()

    def _make_template(self) -> str:
        admin_url = self.ask("postgres")
        name = f"fbx_{self.run_id}_template"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            admin.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
            migrate(url_of(admin_url, name))
        return name

    def door(self) -> "Door":
        """Where workers ask; opened with the first of them."""
        if self._door is None:
            self._door = Door(self, self.folder / "door")
        return self._door

    def close(self) -> None:
        with contextlib.ExitStack() as last:
            last.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self._database_folder is not None:
                last.callback(shutil.rmtree, self._database_folder, ignore_errors=True)
            if self._kafka is not None:
                last.callback(self._kafka.remove)
            if self._postgres is not None:
                last.callback(self._postgres.remove)
            elif isinstance(self._answers.get("template"), str):
                last.callback(drop_database, self.ask("postgres"), f"fbx_{self.run_id}_template")
            if self._door is not None:
                last.callback(self._door.close)


class Door:
    """Answers the workers' questions, one at a time, from a thread of the owner."""

    def __init__(self, servers: OwnServers, path: Path) -> None:
        self.address = str(path)
        self.key = secrets.token_bytes(16)
        self._servers = servers
        self._listener = Listener(self.address, "AF_UNIX", authkey=self.key)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._listener.accept() as worker:
                question = str(worker.recv())
                if question == "close":
                    return
                try:
                    worker.send((True, self._servers.ask(question)))
                except FAULTS as error:
                    worker.send((False, f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        with Client(self.address, "AF_UNIX", authkey=self.key) as door:
            door.send("close")
        self._thread.join()
        self._listener.close()


class RemoteServers:
    """A worker's view of the owner's servers."""

    def __init__(self, address: str, key: bytes) -> None:
        self._address = address
        self._key = key

    def ask(self, question: str) -> str:
        with Client(self._address, "AF_UNIX", authkey=self._key) as door:
            door.send(question)
            fine, answer = door.recv()
        if not fine:
            raise ServersDidNotStart(answer)
        return str(answer)


def make_run_folder(parent: Path) -> Path:
    """The run's own folder; what runs that were killed left behind is swept away first."""
    sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
    # PostgreSQL may have to run as another user than the tests.
    folder.chmod(0o711)
    own = ProcessMark.of(os.getpid())
    if own is not None:
        (folder / "owner.json").write_text(json.dumps([own.pid, own.started_at]))
    return folder


def database_parent() -> Path:
    """Memory where there is plenty: a new database is 300 small files, 20 times slower to make on some disks."""
    there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if there and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED_BYTES:
        return MEMORY
    return Path(tempfile.gettempdir())


def sweep(parent: Path) -> None:
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        try:
            pid, started_at = json.loads((folder / "owner.json").read_text())
        except (OSError, ValueError):
            # Being made this moment, or another user's.
            continue
        if not ProcessMark(int(pid), float(started_at)).is_alive():
            shutil.rmtree(folder, ignore_errors=True)


def migrate(database_url: str) -> None:
    """Through the same command a user types, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ServersDidNotStart(f"alembic upgrade head: {done.stderr.strip()}")


def url_of(admin_url: str, database: str, user: str | None = None) -> str:
    url = make_url(admin_url).set(database=database)
    return plain_url(url.set(username=user) if user else url)


def plain_url(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def create_database(admin_url: str, name: str, template: str) -> None:
    """Copied as files, which is a third of the work of writing it into the log page by page, and so is its end."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))


def drop_database(admin_url: str, name: str) -> None:
    """Whoever is still connected is thrown out."""
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(statement.format(sql.Identifier(name)))
