"""Real servers for one run of benchmarks: PostgreSQL with fsync on a disk, Kafka, a temporary folder; all gone after."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedded.kafka import EmbeddedKafka
from embedded.postgres import EmbeddedPostgres, running_server
from embedded.processes import uninterrupted
from shared.topics import create_topics
from tests.servers import create_database, make_run_folder, migrate, url_of

# What the product creates by default.
PARTITIONS = 12


@dataclass
class Ground:
    """`database()` and `topics()` are fresh at each call, so that no benchmark sees another's rows."""

    folder: Path
    postgres: EmbeddedPostgres
    kafka: EmbeddedKafka
    _template: str | None = None
    _kafka_runs: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def bootstrap_servers(self) -> str:
        """Started when a benchmark first asks: those of the database alone have the machine for themselves."""
        if not self._kafka_runs:
            self.kafka.start()
            self._kafka_runs = True
        return self.kafka.bootstrap_servers

    def database(self) -> str:
        """The owner's URL of a new, migrated database."""
        admin = self.postgres.url
        if self._template is None:
            create_database(admin, "bench_template", "template1")
            migrate(url_of(admin, "bench_template"))
            self._template = "bench_template"
        name = f"bench_{next(self._numbers)}"
        create_database(admin, name, self._template)
        return url_of(admin, name)

    def copy(self, owner_url: str) -> str:
        """The owner's URL of a database with the same rows; nobody may be connected to the one that is copied."""
        name = f"bench_{next(self._numbers)}"
        create_database(self.postgres.url, name, owner_url.rsplit("/", 1)[1])
        return url_of(self.postgres.url, name)

    def pids(self) -> dict[str, int]:
        """Of the servers that run."""
        server = running_server(self.postgres.data_dir)
        found = {"postgres": server.mark.pid if server else None, "kafka": self.kafka.pid}
        return {name: pid for name, pid in found.items() if pid is not None}

    async def topics(self) -> str:
        """A prefix whose topics exist."""
        prefix = f"bench-{next(self._numbers)}"
        await create_topics(self.bootstrap_servers, prefix, partitions=PARTITIONS)
        return prefix


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """Raises EmbeddedFault when a server cannot start."""
    # Never in memory: a commit that need not reach a disk would flatter us.
    folder = make_run_folder(Path(os.environ.get("FAREBOX_BENCH_FOLDER", tempfile.gettempdir())))
    postgres = EmbeddedPostgres(folder / "postgres", durable=True)
    kafka = EmbeddedKafka(folder / "kafka")
    try:
        postgres.start()
        yield Ground(folder, postgres, kafka)
    finally:
        with uninterrupted(), contextlib.ExitStack() as last:
            last.callback(shutil.rmtree, folder, ignore_errors=True)
            last.callback(postgres.remove)
            last.callback(kafka.remove)


def service_url(owner_url: str, service: str) -> str:
    """The same database as the service's own role, which is what the product logs in as."""
    return url_of(owner_url, owner_url.rsplit("/", 1)[1], f"{service}_app")
