"""The whole run as an owner who is no superuser: what most production databases have."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from migrations.guard.exits import ExitCode
from migrations.guard.preflight import preflight
from migrations.guard.run import Options, Run, Show
from migrations.guard.scratch import copy_maker
from migrations.guard.statements import Chain
from migrations.guard.subject import PreflightRefused, Subject
from migrations.guard.trail import Trail
from migrations.run_lock import connect
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


def test_an_owner_who_may_make_no_databases_has_another_role_make_the_copy(
    old: Database, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is no superuser either, and may not touch the live tables by itself."""
    maker = f"{role}_maker"
    with psycopg.connect(old.url, autocommit=True) as admin:
        names = (sql.Identifier(maker), sql.Identifier(role))
        admin.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(names[1]))
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB IN ROLE {}").format(*names))
    url = as_role(old, role)
    options = Options(backup_folder=tmp_path / "b", policy=IMPATIENT)
    run = Run(url, options, Trail(tmp_path / "audit"), Show(print))
    try:
        with pytest.raises(PreflightRefused, match="FAREBOX_SCRATCH_DATABASE_URL") as caught:
            run.go()
        assert caught.value.exit_code == 20
        monkeypatch.setenv("FAREBOX_SCRATCH_DATABASE_URL", as_role(old, maker))
        assert run.go().code is ExitCode.DONE
        assert value(old.url, REVISION) == Chain().heads()[0]
    finally:
        with psycopg.connect(old.url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(maker)))


@pytest.fixture
def elsewhere(old: Database, postgres_15_url: str, postgres_url: str) -> Iterator[str]:
    """A database of the same name on the other server."""
    ours = make_url(old.url).port
    other = postgres_url if make_url(postgres_15_url).port == ours else postgres_15_url
    name = sql.Identifier(old.name)
    with psycopg.connect(other, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield other
        admin.execute(sql.SQL("DROP DATABASE {}").format(name))


def test_a_maker_that_is_no_help_is_refused(
    old: Database, role: str, elsewhere: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with psycopg.connect(old.url, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(sql.Identifier(role)))
    chain = Chain()
    for given, said in (
        (as_role(old, role), "may not create the copy's database either"),
        ("postgresql://u@127.0.0.1:1/d", "Connection refused"),
        (elsewhere, "is of another server"),
    ):
        monkeypatch.setenv("FAREBOX_SCRATCH_DATABASE_URL", given)
        with connect(as_role(old, role)) as connection:
            subject = Subject(connection, chain, (BEFORE,), chain.upgrade((BEFORE,)), tmp_path)
            found = preflight(replace(subject, scratch_url=copy_maker(old.url)))
        [problem] = [p for p in found if p.check == "scratch"]
        assert said in problem.cause
