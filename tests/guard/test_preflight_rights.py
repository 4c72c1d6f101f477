"""The runbook's second and third trouble, "permission denied" and "backup failed": what a role lacks, and its grant."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql
from sqlalchemy import make_url

from migrations.guard.gates import make_plan
from migrations.guard.preflight import preflight
from migrations.guard.statements import Chain
from migrations.guard.subject import PreflightRefused, Problem, Subject, shortened
from migrations.guard.trail import Trail
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.test_apply import HEAD

SCHEMAS = ("public", "pricing", "payments", "loyalty", "analytics")


@pytest.fixture
def owner(migrated: Database) -> Iterator[Connection]:
    with psycopg.connect(migrated.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(migrated: Database, owner: Connection) -> Iterator[str]:
    """May log in and nothing else."""
    name = f"{migrated.name}_role"
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    everything = "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}"
    owner.execute(sql.SQL("RESET ROLE"))
    owner.execute(sql.SQL(everything).format(sql.Identifier(name)))


def give(owner: Connection, database: Database, role: str) -> None:
    """All that a run needs of a role that is no superuser: the database and what is in it, CREATEDB, sight."""
    name = sql.Identifier(role)
    owner.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(name))
    place = sql.Identifier(database.name)
    owner.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(place, name))
    owner.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(name))
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname = ANY (%s) AND nspname <> 'public'"
    for (schema,) in owner.execute(schemas, (list(SCHEMAS),)).fetchall():
        what = sql.SQL("ALTER SCHEMA {} OWNER TO {}")
        owner.execute(what.format(sql.Identifier(schema), name))
    relations = owner.execute(
        "SELECT relnamespace::regnamespace::text, relname FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace::regnamespace::text = ANY (%s)",
        (list(SCHEMAS),),
    ).fetchall()
    for schema, relation in relations:
        what = sql.SQL("ALTER TABLE {} OWNER TO {}")
        owner.execute(what.format(sql.Identifier(schema, relation), name))
    functions = owner.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p"
        " WHERE pronamespace::regnamespace::text = ANY (%s)",
        (list(SCHEMAS),),
    ).fetchall()
    for (function,) in functions:
        what = sql.SQL("ALTER FUNCTION {} OWNER TO {}")
        owner.execute(what.format(sql.SQL(function), name))


def as_role(database: Database, role: str) -> str:
    return make_url(database.url).set(username=role).render_as_string(hide_password=False)


def problems(url: str, folder: Path) -> list[Problem]:
    with connect(url) as connection:
        chain = Chain()
        return preflight(Subject(connection, chain, HEAD, chain.upgrade(HEAD), folder))


def refusals(url: str, folder: Path) -> list[str]:
    return [str(p) for p in problems(url, folder) if p.severity == "refusal"]


def test_a_role_that_may_nothing_hears_of_every_grant(
    migrated: Database, role: str, tmp_path: Path
) -> None:
    said = "\n".join(map(str, problems(as_role(migrated, role), tmp_path)))
    assert f"{role} may not create schemas here: GRANT CREATE ON DATABASE … TO {role}" in said
    assert f"ALTER ROLE {role} CREATEDB" in said
    assert "FAREBOX_SCRATCH_DATABASE_URL" in said
    assert f"GRANT USAGE ON SCHEMA analytics, loyalty, payments, pricing TO {role}" in said
    assert "GRANT SELECT ON analytics." in said
    assert f"GRANT CREATE ON SCHEMA analytics, loyalty, payments, pricing, public TO {role}" in said
    assert f"{role} does not own " in said
    assert "ALTER … OWNER TO" in said
    assert f"GRANT pg_read_all_stats TO {role}" in said


def test_an_owner_who_is_no_superuser_has_all_it_takes(
    migrated: Database, role: str, owner: Connection, tmp_path: Path
) -> None:
    give(owner, migrated, role)
    assert refusals(as_role(migrated, role), tmp_path) == []


def test_one_table_that_may_not_be_read_is_named_with_its_grant(
    migrated: Database, role: str, owner: Connection, tmp_path: Path
) -> None:
    give(owner, migrated, role)
    owner.execute("CREATE TABLE public.of_others (id int)")
    name = sql.Identifier(role)
    owner.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
    [unread, foreign] = refusals(as_role(migrated, role), tmp_path)
    assert unread.startswith(f"{role} may not read public.of_others, so not back it up: ")
    assert unread.endswith(f"GRANT SELECT ON public.of_others TO {role}")
    assert f"{role} does not own public.of_others, but postgres does" in foreign
    # The grant it says is the grant it takes.
    owner.execute(unread.partition(": ")[2].encode())
    [foreign] = refusals(as_role(migrated, role), tmp_path)
    owner.execute(sql.SQL("ALTER TABLE public.of_others OWNER TO {}").format(name))
    assert refusals(as_role(migrated, role), tmp_path) == []


def test_a_sequence_that_may_not_be_read_is_named_with_its_grant(
    migrated: Database, role: str, owner: Connection, tmp_path: Path
) -> None:
    give(owner, migrated, role)
    owner.execute("CREATE SEQUENCE public.numbers")
    said = refusals(as_role(migrated, role), tmp_path)
    assert said[0].endswith(f"GRANT SELECT ON SEQUENCE public.numbers TO {role}")


def test_a_schema_that_takes_nothing_new_is_named_with_its_grant(
    migrated: Database, role: str, owner: Connection, tmp_path: Path
) -> None:
    give(owner, migrated, role)
    owner.execute("ALTER SCHEMA loyalty OWNER TO CURRENT_USER")
    owner.execute(sql.SQL("GRANT USAGE ON SCHEMA loyalty TO {}").format(sql.Identifier(role)))
    said = refusals(as_role(migrated, role), tmp_path)
    assert f"GRANT CREATE ON SCHEMA loyalty TO {role}" in said[0]
    assert f"{role} does not own schema loyalty" in said[1]


def test_a_database_that_only_takes_reads_is_refused(
    migrated: Database, owner: Connection, tmp_path: Path
) -> None:
    place = sql.Identifier(migrated.name)
    owner.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(place))
    [said] = refusals(migrated.url, tmp_path)
    assert "only takes reads" in said
    assert "default_transaction_read_only = off" in said


def test_revisions_that_may_not_be_read_refuse_the_run_with_words(
    migrated: Database, role: str, tmp_path: Path
) -> None:
    with (
        connect(as_role(migrated, role)) as connection,
        pytest.raises(PreflightRefused, match=r"permission denied for .*alembic_version") as caught,
    ):
        make_plan(connection, Chain(), Trail(tmp_path))
    assert caught.value.exit_code == 20
    assert "run as the owner" in str(caught.value)


def test_roles_that_are_missing_and_cannot_be_made_are_named(
    migrated: Database,
    role: str,
    owner: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The services' roles belong to the whole server, so that the test asks for another one's."""
    monkeypatch.setattr(
        "migrations.guard.rights.MISSING_ROLES", "SELECT array_agg('fbx_nobody_app'::text)"
    )
    give(owner, migrated, role)
    with connect(as_role(migrated, role)) as connection:
        chain = Chain()
        subject = Subject(connection, chain, HEAD, chain.upgrade(("008",)), tmp_path)
        said = [str(p) for p in preflight(subject) if "fbx_nobody_app" in p.cause]
    assert said[0].endswith(f"ALTER ROLE {role} CREATEROLE, or create them")


def test_a_long_list_is_counted() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(list("abcdefg")) == "a, b, c, d, e and 2 more"
