"""A database that was not whole before: each kind of old fault is told and stops nothing; the same made anew does."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.faults import MigrationFault
from migrations.guard.compare import Severity
from migrations.guard.exits import ExitCode
from migrations.guard.lint import Override
from migrations.guard.run import Options, Run, Show
from migrations.guard.trail import Trail, entries
from shared.schema import WANTED_REVISION
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.guard.test_validate import DAMAGED, INDEX, INVALID, LYING, NOT_CHECKED, ORPHAN, UNCHECKED
from tests.migrations import storefront

REVISION = "SELECT version_num FROM public.alembic_version"
# Only where it is not rehearsed: what nobody could have foreseen.
LIVE = "current_database() NOT LIKE 'farebox_scratch_%'"
TWICE = (
    "CREATE TABLE public.twice (id int CONSTRAINT uq_twice UNIQUE)",
    "INSERT INTO public.twice VALUES (1)",
    "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'public.uq_twice'::regclass",
    "INSERT INTO public.twice VALUES (1)",
    "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'public.uq_twice'::regclass",
)
RULES = ("unbatched-change", "drop-table", "drop-cascade", "drop-constraint")
ALLOWED = tuple(Override(rule, "a test of what comes later") for rule in RULES)
OLD = {
    "public.addresses.fk_addresses_user_id",
    "public.users.odd",
    "public.twice.uq_twice",
    "public.ix_addresses_user_id",
}


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.url, autocommit=True) as connection:
        storefront.fill(connection, 10)
        connection.execute(UNCHECKED)
        yield connection


@pytest.fixture
def options(tmp_path: Path, versions: Path) -> Options:
    return Options(
        backup_folder=tmp_path / "backups",
        policy=IMPATIENT,
        more_versions=versions,
        allowed=ALLOWED,
    )


def test_old_faults_of_every_kind_are_told_and_stop_nothing(
    database: Database,
    owner: psycopg.Connection,
    options: Options,
    trail: Trail,
    on_top: Write,
    said: list[str],
) -> None:
    owner.execute("INSERT INTO public.users (email) VALUES ('x')")
    for each in (NOT_CHECKED[0], ORPHAN, *TWICE, *INVALID, *DAMAGED):
        owner.execute(each.encode())
    on_top('op.execute("CREATE TABLE public.x (id int)")')
    result = Run(database.url, options, trail, Show(said.append)).go()
    assert result.code is ExitCode.DONE
    found = {each.name for each in result.differences if each.severity == Severity.OLD}
    assert found >= OLD
    assert {name for name in OLD if any(name in line for line in said)} == OLD


def test_an_index_that_the_migration_damages_is_seen_on_the_copy(
    database: Database,
    owner: psycopg.Connection,
    options: Options,
    trail: Trail,
    on_top: Write,
) -> None:
    for each in DAMAGED[:2]:
        owner.execute(each.encode())
    on_top(f"op.execute(\"CREATE OR REPLACE {LYING} 'SELECT t || 1'\")")
    with pytest.raises(MigrationFault, match=r"public\.odd: is damaged") as caught:
        Run(database.url, options, trail, Show(print)).go()
    assert caught.value.exit_code == ExitCode.REFUSED_BY_REHEARSAL
    assert owner.execute(REVISION).fetchone() == (WANTED_REVISION,)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (
            f"INSERT INTO public.addresses (user_id, country) SELECT gen_random_uuid(), 'US' WHERE {LIVE}",
            "1 rows break FOREIGN KEY",
        ),
        (
            f"UPDATE pg_index SET indisvalid = false WHERE {LIVE} AND {INDEX}",
            "is INVALID",
        ),
        (f"DELETE FROM public.addresses WHERE {LIVE}", "had 10 rows, has 0"),
        (
            f"DO $$ BEGIN IF {LIVE} THEN REVOKE SELECT ON public.users FROM pricing_app; END IF; END $$",
            "grant public.users",
        ),
        (
            f"DO $$ BEGIN IF {LIVE} THEN DROP TABLE public.addresses CASCADE; END IF; END $$",
            "table public.addresses: is gone",
        ),
        (
            f"DO $$ BEGIN IF {LIVE} THEN ALTER TABLE public.users DROP CONSTRAINT uq_users_email CASCADE; END IF; END $$",
            "the schema and the models differ",
        ),
    ],
    ids=["foreign key", "index", "rows", "grants", "table", "models"],
)
def test_a_new_fault_on_the_live_database_fails_the_validation(
    database: Database,
    owner: psycopg.Connection,
    options: Options,
    trail: Trail,
    on_top: Write,
    wrong: str,
    fault: str,
) -> None:
    on_top(
        'op.execute("SET LOCAL session_replication_role = replica")\n'
        f'op.execute("""{wrong}""")\nop.execute("RESET session_replication_role")'
    )
    with pytest.raises(MigrationFault, match=fault) as caught:
        Run(database.url, options, trail, Show(print)).go()
    assert caught.value.exit_code == ExitCode.VALIDATION_FAILED
    assert [e["kind"] for e in entries(trail.path)][-1] == "run_ended"
