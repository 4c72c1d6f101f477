"""Empty databases on both PostgreSQL versions that must do, and the migrations to run on them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from sqlalchemy import create_engine, make_url, pool
from sqlalchemy.engine import Connection

from migrations.steps import Migrations
from tests.conftest import Database, own_database
from tests.migrations.servers15 import MAJOR, InstalledPostgres, installed_programs
from tests.servers import Servers, create_database, database_parent, make_run_folder, url_of

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def postgres_15_url() -> Iterator[str]:
    programs = installed_programs()
    if programs is None:
        pytest.skip(f"PostgreSQL {MAJOR} is not installed on this machine")
    folder = make_run_folder(database_parent())
    server = InstalledPostgres(folder / "postgres", programs)
    try:
        yield server.start()
    finally:
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["given", "15"])
def admin_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Of the run's server (embedded: 18), then of PostgreSQL 15."""
    if request.param == "15":
        return str(request.getfixturevalue("postgres_15_url"))
    # The template holds grants, so that no downgrade here takes the server's roles from other tests.
    servers.ask("template")
    return servers.ask("postgres")


@pytest.fixture
def fresh(admin_url: str, unique: Iterator[str]) -> Iterator[Database]:
    """An empty database."""
    yield from own_database(admin_url, "template1", f"fbx_{next(unique)}")


@pytest.fixture(scope="session")
def template_15(postgres_15_url: str) -> str:
    """The name of a migrated database on PostgreSQL 15."""
    name = "fbx_template"
    create_database(postgres_15_url, name, "template1")
    upgrade(url_of(postgres_15_url, name))
    return name


@pytest.fixture(params=["given", "15"])
def migrated(
    request: pytest.FixtureRequest, servers: Servers, unique: Iterator[str]
) -> Iterator[Database]:
    """A database at head, on each server."""
    if request.param == "15":
        template = request.getfixturevalue("template_15")
        admin_url = request.getfixturevalue("postgres_15_url")
    else:
        template, admin_url = servers.ask("template"), servers.ask("postgres")
    yield from own_database(admin_url, template, f"fbx_{next(unique)}")


@pytest.fixture
def alembic_config() -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")


@pytest.fixture
def alembic_engine(fresh: Database) -> Iterator[Connection]:
    """pytest-alembic's name for it; a connection, because the environment takes one."""
    url = make_url(fresh.url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        yield connection


def upgrade(url: str, to: str | None = None) -> None:
    """Step by step to revision `to`, by default to head."""
    migrations = Migrations(url)
    for step in migrations.pending():
        migrations.apply(step)
        if step.revision == to:
            return


@pytest.fixture
def owner(migrated: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(migrated.url) as connection:
        yield connection
