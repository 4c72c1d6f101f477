"""The whole run as an owner who is no superuser: what most production databases have."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from migrations.guard.exits import ExitCode
from migrations.guard.run import Options, Run, Show
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT
from tests.guard.test_preflight_rights import as_role, give
from tests.migrations import storefront
from tests.migrations.conftest import upgrade
from tests.migrations.test_003 import BEFORE

REVISION = "SELECT version_num FROM public.alembic_version"


@pytest.fixture
def old(migrated: Database) -> Iterator[Database]:
    """As the storefront left it, beside a migrated database: the services' roles are there."""
    name = f"{migrated.name}_old"
    with psycopg.connect(migrated.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = migrated.url.rpartition("/")[0] + f"/{name}"
        upgrade(url, BEFORE)
        with psycopg.connect(url) as connection:
            storefront.fill(connection, 20)
        yield Database(name, url)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def role(old: Database) -> Iterator[str]:
    name = f"{old.name}_role"
    with psycopg.connect(old.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        give(admin, old, name)
        yield name
        everything = "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}"
        admin.execute(sql.SQL(everything).format(sql.Identifier(name)))


def value(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_an_owner_who_is_no_superuser_goes_the_whole_way(
    old: Database, role: str, tmp_path: Path
) -> None:
    options = Options(backup_folder=tmp_path / "b", policy=IMPATIENT)
    said: list[str] = []
    run = Run(as_role(old, role), options, Trail(tmp_path / "audit"), Show(said.append))
    assert run.go().code is ExitCode.DONE
    assert value(old.url, REVISION) == Chain().heads()[0]
    assert value(old.url, "SELECT count(*) FROM public.subscriptions") == 20
    # What it may not see is said.
    assert any("the disk where the rehearsal's copy will lie cannot be seen" in s for s in said)
