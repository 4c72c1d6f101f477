"""Preflight: every line of the runbook's troubleshooting, on a real database, with its remedy."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from migrations.guard import preflight as checks
from migrations.guard.preflight import Problem, Subject, known, models, preflight
from migrations.guard.statements import Chain
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.conftest import Write, add_revision
from tests.guard.test_apply import HEAD, UNIQUE, fill


def of(url: str, chain: Chain, folder: Path) -> dict[str, Problem]:
    with connect(url) as connection:
        return {
            p.check: p
            for p in preflight(Subject(connection, chain, HEAD, chain.upgrade(HEAD), folder))
        }


def test_a_sound_database_has_no_problem(database: Database, tmp_path: Path) -> None:
    assert of(database.url, Chain(), tmp_path / "backups") == {}
    assert list(known(Chain(), HEAD)) == []
    assert list(models()) == []


def test_two_heads_and_an_unknown_revision(versions: Path, on_top: Write) -> None:
    on_top("pass")
    add_revision(versions, "x02", HEAD[0], "pass")
    said = list(known(Chain(versions), ("from_the_future",)))
    assert [each.check for each in said] == ["heads", "revision"]
    assert "from_the_future" in said[1].cause


@pytest.fixture
def stranger(database: Database) -> Iterator[str]:
    """The URL of a role that may log in and nothing else."""
    role = sql.Identifier(f"{database.name}_stranger")
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        yield (
            make_url(database.url)
            .set(username=f"{database.name}_stranger")
            .render_as_string(hide_password=False)
        )
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_rights_that_are_missing_are_named_with_their_grant(
    database: Database, stranger: str, tmp_path: Path
) -> None:
    with connect(stranger) as connection:
        subject = Subject(connection, Chain(), HEAD, (), tmp_path)
        said = [str(p) for p in preflight(subject)]
        assert any("GRANT CREATE ON DATABASE" in each for each in said)
        assert any("CREATEDB" in each for each in said)
        assert any("GRANT SELECT ON public.users" in each for each in said)
        assert any("does not own public.users" in each for each in said)


def test_one_table_that_may_not_be_read_is_named(
    database: Database, stranger: str, tmp_path: Path
) -> None:
    role = str(make_url(stranger).username)
    with psycopg.connect(database.url, autocommit=True) as connection:
        grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {0}; REVOKE SELECT ON public.products FROM {0}"
        connection.execute(sql.SQL(grant).format(sql.Identifier(role)))
    with connect(stranger) as connection:
        subject = Subject(connection, Chain(), HEAD, (), tmp_path)
        said = [p.cause for p in preflight(subject) if "may not read public." in p.cause]
    assert said == [f"{role} may not read public.products"]


def test_a_name_in_the_way_is_named(database: Database, on_top: Write, tmp_path: Path) -> None:
    chain = on_top('op.execute("CREATE TABLE public.x (id int)")')
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.x (other text)")
    problem = of(database.url, chain, tmp_path)["names"]
    assert problem.cause == 'table "public.x" already exists, and x01 wants to create it'


def test_an_invalid_index_is_a_warning(database: Database, on_top: Write, tmp_path: Path) -> None:
    fill(database.url)
    build = on_top(UNIQUE).upgrade(HEAD)[0].statements[0].encode()
    with (
        psycopg.connect(database.url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
    ):
        connection.execute(build)
    problem = of(database.url, Chain(), tmp_path)["indexes"]
    assert problem.severity == "warning"
    assert "public.ux" in problem.cause
    # The run that builds it cleans it up itself.
    assert "indexes" not in of(database.url, on_top(UNIQUE), tmp_path)


def test_a_transaction_that_lasts_is_named_with_how_to_end_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LONG_TRANSACTION_SECONDS", 0)
    with psycopg.connect(database.url, application_name="report") as holder:
        holder.execute("SELECT 1")
        pid = holder.info.backend_pid
        problem = of(database.url, Chain(), tmp_path)["long transaction"]
    assert "(report), idle in transaction" in problem.cause
    assert f"pg_terminate_backend({pid})" in problem.remedy


def test_another_dump_is_named(database: Database, tmp_path: Path) -> None:
    with psycopg.connect(database.url, application_name="pg_dump") as dump:
        pid = dump.info.backend_pid
        problem = of(database.url, Chain(), tmp_path)["dump"]
    assert f"process {pid}" in problem.cause


def test_a_full_disk_is_told_before_it_is_met(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "space_needed", lambda connection: 2**60)
    said = of(database.url, Chain(), tmp_path)["disk"]
    assert "MB" in said.cause


def test_a_folder_that_cannot_be_written_is_named(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        "cannot write to"
        in of(database.url, Chain(), tmp_path / "file" / "x")["backup folder"].cause
    )


def test_programs_of_another_version_are_named(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pg_dump", "pg_restore"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 11.2'\n")
        program.chmod(0o755)
    monkeypatch.setenv("FAREBOX_PG_BIN", str(tmp_path))
    problem = of(database.url, Chain(), tmp_path / "backups")["programs"]
    assert "11.2" in problem.cause
