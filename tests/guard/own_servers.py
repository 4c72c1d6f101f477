"""Servers of a test's own, on each version that must do: with settings that the shared one has not, and standbys."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.postgres import EmbeddedPostgres
from tests.migrations.servers15 import InstalledPostgres
from tests.servers import database_parent, make_run_folder


class Tuned(EmbeddedPostgres):
    """The embedded server with settings more."""

    more: dict[str, str]

    def command(self, port: int, death_signal: int, parent_pid: int) -> list[str]:
        options = [part for name, value in self.more.items() for part in ("-c", f"{name}={value}")]
        return [*super().command(port, death_signal, parent_pid), *options]


class Tuned15(InstalledPostgres):
    """The machine's PostgreSQL 15 with settings more."""

    more: dict[str, str]

    def command(self, port: int, death_signal: int, parent_pid: int) -> list[str]:
        options = [part for name, value in self.more.items() for part in ("-c", f"{name}={value}")]
        return [*super().command(port, death_signal, parent_pid), *options]

    def initialise(self) -> None:
        if not (self.data_dir / "PG_VERSION").exists():
            super().initialise()


Server = Tuned | Tuned15


def make(folder: Path, programs: Path | None, more: dict[str, str]) -> Server:
    """Of `programs`, else the embedded one."""
    server = (
        Tuned(folder, durable=False, log=folder.with_suffix(".log"))
        if programs is None
        else Tuned15(folder, programs)
    )
    server.more = more
    return server


@contextmanager
def own_server(programs: Path | None, more: dict[str, str]) -> Iterator[Server]:
    folder = make_run_folder(database_parent())
    server = make(folder / "postgres", programs, more)
    try:
        server.start()
        yield server
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def standby_of(primary: Server, programs: Path | None) -> Iterator[Server]:
    """A streaming replica by pg_basebackup, in the primary's own folder."""
    folder = primary.data_dir.with_name("standby")
    there = primary.url.rpartition("/")[0]
    program = primary.server_programs() / "pg_basebackup"
    copy = [str(program), "-d", there, "-D", str(folder), "-R", "-X", "stream", "-c", "fast"]
    subprocess.run([*copy, "--no-sync"], check=True, capture_output=True, cwd="/")
    if primary.user is not None:
        for each in (folder, *folder.rglob("*")):
            shutil.chown(each, primary.user)
    standby = make(folder, programs, primary.more)
    try:
        standby.start()
        yield standby
    finally:
        standby.remove()
