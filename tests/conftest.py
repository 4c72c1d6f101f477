"""Fixtures every test may use: real servers, a database and topics of one's own.

* `postgres_url`: a superuser's URL; `kafka_servers`: bootstrap servers.  Started only if a test asks, or those of
  DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS.
* `database`: a fresh, migrated database (`Database`); `empty_database`: one without any table.
* `topics`: a topic prefix whose topics exist with 3 partitions each.
* `sandbox_url`: Stripe's stand-in, for `sandbox` of tests/sandbox/conftest.py, which empties it before each test.
"""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from embedded.ports import LOOPBACK, free_port
from embedded.processes import interrupt_on_termination, tethered, uninterrupted
from shared.topics import create_topics
from tests.servers import (
    ROOT,
    OwnServers,
    RemoteServers,
    Servers,
    create_database,
    drop_database,
    url_of,
)

SERVERS: pytest.StashKey[Servers] = pytest.StashKey()
OWN: pytest.StashKey[OwnServers] = pytest.StashKey()
PARTITIONS = 3
numbers = itertools.count(1)


@dataclass(frozen=True)
class Database:
    """`url` belongs to the owner of the tables, `url_for("payments")` to the role `payments_app`."""

    name: str
    url: str

    def url_for(self, service: str) -> str:
        return url_of(self.url, self.name, f"{service}_app")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    hear_ctrl_c()
    given = getattr(config, "workerinput", None)
    if given is not None:
        address, key = given["farebox_servers"]
        config.stash[SERVERS] = RemoteServers(address, key)
        return
    own = OwnServers()
    config.stash[SERVERS] = config.stash[OWN] = own
    if config.option.basetemp is None:
        config.option.basetemp = str(own.folder / "tmp")
    interrupt_on_termination()


def hear_ctrl_c() -> None:
    """A shell's background jobs are started deaf to it, and so would be every process that a test interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    own = config.stash.get(OWN, None)
    if own is not None:
        with uninterrupted():
            own.close()


class WorkerNode(Protocol):
    """What pytest-xdist hands over for each worker."""

    config: pytest.Config
    workerinput: dict[str, object]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerNode) -> None:
    """A worker is about to start: tell it where to ask."""
    door = node.config.stash[OWN].door()
    node.workerinput["farebox_servers"] = (door.address, door.key)


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    return pytestconfig.stash[SERVERS]


@pytest.fixture(scope="session")
def postgres_url(servers: Servers) -> str:
    return servers.ask("postgres")


@pytest.fixture(scope="session")
def kafka_servers(servers: Servers) -> str:
    return servers.ask("kafka")


@pytest.fixture(scope="session")
def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One process for all of a worker's tests: to start it takes longer than most of them."""
    port, state = free_port(), tmp_path_factory.mktemp("sandbox")
    command = [sys.executable, "-m", "embedded.stripe_sandbox", "--port", str(port)]
    tied = tethered([*command, "--state-dir", str(state)], signal.SIGKILL, os.getpid())
    with subprocess.Popen(tied, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            # What it is, said as soon as it can be called.
            assert child.stdout.readline(), "the stand-in for Stripe did not start"
            yield f"http://{LOOPBACK}:{port}"
        finally:
            child.terminate()


@pytest.fixture(scope="session")
def unique(servers: Servers) -> Iterator[str]:
    """Makes names that no other test, worker or run makes."""
    return (f"{servers.ask('run')}_{os.getpid()}_{number}" for number in numbers)


@pytest.fixture
def database(servers: Servers, postgres_url: str, unique: Iterator[str]) -> Iterator[Database]:
    yield from own_database(postgres_url, servers.ask("template"), f"fbx_{next(unique)}")


@pytest.fixture
def empty_database(postgres_url: str, unique: Iterator[str]) -> Iterator[Database]:
    yield from own_database(postgres_url, "template1", f"fbx_{next(unique)}")


def own_database(admin_url: str, template: str, name: str) -> Iterator[Database]:
    create_database(admin_url, name, template)
    try:
        yield Database(name, url_of(admin_url, name))
    finally:
        drop_database(admin_url, name)


@pytest.fixture
async def topics(kafka_servers: str, unique: Iterator[str]) -> AsyncIterator[str]:
    prefix = f"t{next(unique).replace('_', '-')}"
    await create_topics(kafka_servers, prefix, partitions=PARTITIONS)
    try:
        yield prefix
    finally:
        await delete_topics(kafka_servers, prefix)


async def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    """Everything a test made under its prefix, also what it created itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        mine = [name for name in await admin.list_topics() if name.startswith(f"{prefix}.")]
        if mine:
            await admin.delete_topics(mine)
    finally:
        await admin.close()
