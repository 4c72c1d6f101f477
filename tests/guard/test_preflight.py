"""Preflight: every line of the runbook's troubleshooting, on a real database, with its remedy."""

from pathlib import Path

import psycopg
import pytest

from migrations.guard import blockers, drift
from migrations.guard.preflight import known, models, preflight
from migrations.guard.statements import Chain
from migrations.guard.subject import Problem, Subject
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.conftest import Write, add_revision
from tests.guard.test_apply import HEAD, UNIQUE, fill
from tests.migrations.conftest import upgrade


def of(url: str, chain: Chain, folder: Path) -> dict[str, Problem]:
    with connect(url) as connection:
        return {
            p.check: p
            for p in preflight(Subject(connection, chain, HEAD, chain.upgrade(HEAD), folder))
        }


def test_a_sound_database_has_no_problem(migrated: Database, tmp_path: Path) -> None:
    assert of(migrated.url, Chain(), tmp_path / "backups") == {}
    assert list(known(Chain(), HEAD)) == []
    assert list(models()) == []


def test_two_heads_and_an_unknown_revision(versions: Path, on_top: Write) -> None:
    on_top("pass")
    add_revision(versions, "x02", HEAD[0], "pass")
    said = list(known(Chain(versions), ("from_the_future",)))
    assert [each.check for each in said] == ["heads", "revision"]
    assert "from_the_future" in said[1].cause


def test_a_name_in_the_way_is_named(database: Database, on_top: Write, tmp_path: Path) -> None:
    chain = on_top('op.execute("CREATE TABLE public.x (id int)")')
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.x (other text)")
    problem = of(database.url, chain, tmp_path)["names"]
    assert problem.cause == 'table "public.x" already exists, and x01 wants to create it'
    assert problem.remedy == "rename it, or drop it if nobody needs it"


def test_tables_without_a_record_of_their_revision_are_not_called_in_the_way(
    empty_database: Database, tmp_path: Path
) -> None:
    upgrade(empty_database.url, "d6d022bcff3b")
    with connect(empty_database.url) as connection:
        connection.execute("DROP TABLE public.alembic_version")
        chain = Chain()
        subject = Subject(connection, chain, (), chain.upgrade(()), tmp_path)
        said = {p.check: p for p in preflight(subject)}
    assert set(said) == {"revision"}
    assert "there is public." in said["revision"].cause
    assert "alembic stamp" in said["revision"].remedy


def test_what_was_changed_by_hand_is_named_before_the_backup(
    empty_database: Database, tmp_path: Path
) -> None:
    upgrade(empty_database.url, "003")
    chain = Chain()
    with connect(empty_database.url) as connection:
        subject = Subject(connection, chain, ("003",), chain.upgrade(("003",)), tmp_path)
        # What is still to come is no drift.
        assert preflight(subject) == []
        connection.execute("ALTER TABLE loyalty.loyalty_accounts DROP COLUMN opened_at CASCADE")
        connection.execute("CREATE TABLE public.somebody_elses (id int)")
        [problem] = preflight(subject)
    assert (problem.check, problem.severity) == ("drift", "refusal")
    assert problem.cause.endswith("add column loyalty, loyalty_accounts, opened_at")


def test_drift_behind_a_schema_change_is_left_to_the_rehearsal(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "LOCK_TIMEOUT", "200ms")
    with psycopg.connect(database.url) as changing:
        changing.execute("LOCK TABLE loyalty.loyalty_accounts IN ACCESS EXCLUSIVE MODE")
        problem = of(database.url, Chain(), tmp_path).get("drift")
    # PostgreSQL 18 opens a table to write out its expressions.
    assert problem is None or problem.severity == "warning"


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
    monkeypatch.setattr(blockers, "LONG_TRANSACTION_SECONDS", 0)
    with psycopg.connect(database.url, application_name="report") as holder:
        holder.execute("SELECT 1")
        pid = holder.info.backend_pid
        problem = of(database.url, Chain(), tmp_path)["long transaction"]
    assert "(report), idle in transaction" in problem.cause
    assert f"pg_terminate_backend({pid})" in problem.remedy


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
