"""States that PostgreSQL calls normal, and a reader of its catalog may take for faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from migrations.guard.preflight import preflight
from migrations.guard.runbook import main
from migrations.guard.snapshot import take
from migrations.guard.statements import Chain
from migrations.guard.subject import Subject
from migrations.guard.validate import validate
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.test_apply import HEAD

# The index of a partitioned table while its partitions get theirs, one after the other.
ATTACHING = (
    "CREATE TABLE public.facts (id int) PARTITION BY RANGE (id)",
    "CREATE TABLE public.facts_1 PARTITION OF public.facts FOR VALUES FROM (1) TO (10)",
    "CREATE INDEX ix_facts ON ONLY public.facts (id)",
)
TEMPORAL = (
    "CREATE TABLE public.prices (id int4range, valid daterange, PRIMARY KEY (id, valid WITHOUT OVERLAPS))",
    "CREATE TABLE public.sales (id int4range, valid daterange)",
    "ALTER TABLE public.sales ADD FOREIGN KEY (id, PERIOD valid) REFERENCES public.prices (id, PERIOD valid)",
    "INSERT INTO public.prices VALUES ('[1,2)', '[2024-01-01,2025-01-01)')",
    "INSERT INTO public.sales VALUES ('[1,2)', '[2024-03-01,2024-04-01)')",
)
SINCE = 180_000
NOT_ENFORCED = (
    "CREATE TABLE public.wishes (n int CHECK (n > 0) NOT ENFORCED)",
    "INSERT INTO public.wishes VALUES (-1)",
)


@pytest.fixture
def shop(database: Database) -> Iterator[Connection]:
    with connect(database.url) as connection:
        yield connection


def test_the_index_of_a_partitioned_table_may_wait_for_its_partitions(
    shop: Connection, tmp_path: Path
) -> None:
    for each in ATTACHING:
        shop.execute(each.encode())
    assert validate(shop).faults == ()
    problems = preflight(Subject(shop, Chain(), HEAD, (), tmp_path))
    assert not [each for each in problems if each.check == "indexes"]


def test_the_command_says_where_the_models_differ(
    shop: Connection, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.execute("CREATE TABLE public.somebody_elses (id int)")
    assert main(["--database-url", database.url, "validate"]) == 0
    assert "note: model remove table public.somebody_elses" in capsys.readouterr().out
    shop.execute("ALTER TABLE loyalty.loyalty_accounts DROP COLUMN tier CASCADE")
    assert main(["--database-url", database.url, "validate"]) == 42
    assert "new fault: model add column loyalty, loyalty_accounts, tier" in capsys.readouterr().out


@pytest.mark.parametrize("made", [TEMPORAL, NOT_ENFORCED], ids=["a period", "not enforced"])
def test_what_cannot_be_counted_row_by_row_is_not_called_broken(
    shop: Connection, made: tuple[str, ...]
) -> None:
    if shop.info.server_version < SINCE:
        pytest.skip("PostgreSQL 18 brought it")
    for each in made:
        shop.execute(each.encode())
    counted = {name: each.violations for name, each in take(shop).constraints.items()}
    name = (
        "public.sales.sales_id_valid_fkey" if made is TEMPORAL else "public.wishes.wishes_n_check"
    )
    assert counted[name] is None
    assert validate(shop).faults == ()
