"""An owner who is no superuser, as hosted databases have it: the runbook's way back, and the smoke test."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from migrations.guard.smoke import smoke
from migrations.run_lock import connect, run_lock
from migrations.steps import Migrations
from shared.db import SERVICES
from tests.conftest import Database
from tests.migrations.conftest import ROOT
from tests.servers import url_of

BEFORE_003 = "d6d022bcff3b"
GRANTS = """
SELECT count(*) FROM pg_shdepend
WHERE deptype = 'a' AND refobjid = %s::regrole AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def owned(fresh: Database) -> Iterator[Database]:
    """At head, brought there by a role that may make databases and roles and no more."""
    role = sql.Identifier(f"{fresh.name}_owner")
    with psycopg.connect(fresh.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE").format(role))
        name = sql.Identifier(fresh.name)
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, role))
        database = Database(fresh.name, url_of(fresh.url, fresh.name, f"{fresh.name}_owner"))
        migrations = Migrations(database.url)
        for step in migrations.pending():
            migrations.apply(step)
        yield database
        admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
        admin.execute(sql.SQL("DROP OWNED BY {}").format(role))
        admin.execute(sql.SQL("DROP ROLE {}").format(role))


def downgrade(database: Database) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "alembic", "downgrade", BEFORE_003],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": database.url},
    )


def test_the_runbooks_way_back_leaves_the_storefront_alone(owned: Database) -> None:
    done = downgrade(owned)
    assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(owned.url, autocommit=True) as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_namespace WHERE nspname = ANY(%s)", ([*SERVICES],)
        ).fetchone()
        there = connection.execute("SELECT to_regclass('public.subscriptions') IS NOT NULL")
        assert (left, there.fetchone()) == ((0,), (True,))
        for service in SERVICES:
            role = f"{service}_app"
            if connection.execute("SELECT to_regrole(%s)", (role,)).fetchone() != (None,):
                assert connection.execute(GRANTS, (role,)).fetchone() == (0,)


def test_the_way_back_is_closed_while_a_job_runs(owned: Database) -> None:
    with run_lock(owned.url, wait_seconds=0, on_wait=print):
        done = downgrade(owned)
    assert done.returncode == 4
    assert done.stderr.startswith("alembic: another migration job runs: process ")
    assert done.stderr.count("\n") == 1


def test_what_stops_alembic_is_one_line(fresh: Database) -> None:
    done = downgrade(Database(fresh.name, fresh.url + "_not"))
    assert done.returncode == 3
    assert f"{fresh.name}_not" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_smoke_test_works_for_an_owner_who_may_become_the_roles(
    fresh: Database, owned: Database
) -> None:
    owner = sql.Identifier(f"{fresh.name}_owner")
    with psycopg.connect(fresh.url, autocommit=True) as admin:
        for service in SERVICES:
            role = sql.Identifier(f"{service}_app")
            admin.execute(sql.SQL("GRANT {} TO {}").format(role, owner))
    with connect(owned.url) as connection:
        said = list(smoke(connection))
    assert [each.outcome for each in said] == ["works"] * 5


def test_what_an_owner_cannot_become_is_not_tried_and_fails_nothing(owned: Database) -> None:
    with connect(owned.url) as connection:
        said = list(smoke(connection))
    assert said[0].outcome == "works"
    assert {each.outcome for each in said} <= {"works", "not tried"}
