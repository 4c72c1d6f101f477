"""Validation finds what is broken, tells old faults from new ones, and who moved a cent."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from migrations.guard.compare import Expected, Severity, compare, faults, written_since
from migrations.guard.reach import Reach
from migrations.guard.runbook import main
from migrations.guard.snapshot import Snapshot, take
from migrations.guard.validate import check_indexes, validate
from migrations.run_lock import connect
from tests.conftest import Database
from tests.migrations.storefront import add_customer, add_subscription, fill

ORPHAN = "INSERT INTO public.addresses (user_id, country) VALUES (gen_random_uuid(), 'US')"
UNCHECKED = "SET session_replication_role = replica"


@pytest.fixture
def shop(database: Database) -> Iterator[Connection]:
    with connect(database.url) as connection:
        fill(connection, 10)
        connection.execute("UPDATE public.subscriptions SET total_minor = 100")
        connection.execute(UNCHECKED)
        yield connection


def said(found: list[str]) -> str:
    return "\n".join(found)


def test_a_whole_database_is_whole(shop: Connection) -> None:
    report = validate(shop)
    assert report.whole
    assert report.findings == ()
    assert report.rows >= 50
    assert report.indexes is not None
    assert report.indexes > 50


def test_a_row_without_its_parent_is_found_even_where_postgresql_does_not_look(
    shop: Connection,
) -> None:
    shop.execute("ALTER TABLE public.addresses DROP CONSTRAINT fk_addresses_user_id")
    shop.execute(ORPHAN)
    shop.execute(
        "ALTER TABLE public.addresses ADD CONSTRAINT later FOREIGN KEY (user_id)"
        " REFERENCES public.users NOT VALID"
    )
    report = validate(shop)
    lines = list(report.lines())
    assert [each.name for each in report.faults] == ["public.addresses.later"]
    assert any(
        "1 rows break FOREIGN KEY (user_id)" in each and "such as (" in each for each in lines
    )
    assert any(each.startswith("note: constraint public.addresses.later: is not") for each in lines)
    assert lines[-1] == "NOT whole: 1 new faults, 0 old ones"


NOT_CHECKED = (
    "ALTER TABLE public.users ADD CONSTRAINT odd CHECK (email <> 'x') NOT VALID",
    "UPDATE pg_constraint SET convalidated = true WHERE conname = 'odd'",
)
INDEX = "indexrelid = 'public.ix_addresses_user_id'::regclass"
INVALID = (f"UPDATE pg_index SET indisvalid = false WHERE {INDEX}",)
LYING = "FUNCTION public.f(t text) RETURNS text IMMUTABLE LANGUAGE sql AS"
DAMAGED = (
    f"CREATE {LYING} 'SELECT t'",
    "CREATE INDEX odd ON public.users (public.f(email))",
    f"CREATE OR REPLACE {LYING} 'SELECT t || 1'",
)


def test_an_index_that_is_known_is_not_compared_with_its_table_again(shop: Connection) -> None:
    for statement in DAMAGED:
        shop.execute(statement.encode())
    looked_at, damaged = check_indexes(shop)
    assert [each.name for each in damaged] == ["public.odd"]
    assert check_indexes(shop, {"public.odd"}) == (looked_at, [])


@pytest.mark.parametrize(
    ("breaking", "fault"),
    [
        (NOT_CHECKED, r"1 rows break CHECK \(.*such as \(x\)"),
        (INVALID, r"index public\.ix_addresses_user_id: is INVALID: drop it and build it again"),
        (DAMAGED, r"index public\.odd: is damaged: heap tuple .* lacks matching index tuple"),
    ],
)
def test_a_fault_is_named(shop: Connection, breaking: tuple[str, ...], fault: str) -> None:
    shop.execute("INSERT INTO public.users (email) VALUES ('x')")
    for each in breaking:
        shop.execute(each.encode())
    report = validate(shop)
    assert len(report.faults) == 1
    assert re.search(fault, str(report.faults[0]))


def test_two_of_what_must_be_one_are_found(shop: Connection) -> None:
    index = "(SELECT conindid FROM pg_constraint WHERE conname = 'uq_users_email')"
    user = add_customer(shop)
    set_unique = f"UPDATE pg_index SET indisunique = %s WHERE indexrelid = {index}"
    shop.execute(set_unique.encode(), (False,))
    shop.execute(
        "INSERT INTO public.users (email) SELECT email FROM public.users WHERE id = %s", (user,)
    )
    shop.execute(set_unique.encode(), (True,))
    report = validate(shop)
    assert any("1 rows break UNIQUE (email)" in str(each) for each in report.faults)


def test_a_table_whose_statistics_are_of_another_time_is_noted(shop: Connection) -> None:
    shop.execute("ALTER TABLE public.users SET (autovacuum_enabled = false)")
    shop.execute("ANALYZE public.users")
    shop.execute("INSERT INTO public.users (email) SELECT generate_series(1, 2000)::text")
    report = validate(shop)
    assert report.whole
    assert "has 2,010 rows, the planner knows of 10 rows: ANALYZE it" in str(report.findings[0])


def test_old_faults_are_told_and_fail_nothing_new_ones_do(shop: Connection) -> None:
    shop.execute(ORPHAN)
    before = take(shop)
    report = validate(shop, before)
    assert report.whole
    assert [each.severity for each in report.findings] == [Severity.OLD]
    shop.execute(ORPHAN)
    report = validate(shop, before, Expected(written=written_since(shop, before, set())))
    assert [each.name for each in report.faults] == ["public.addresses.fk_addresses_user_id"]
    assert "2 rows break" in str(report.faults[0])
    assert "(1 before)" in str(report.faults[0])


def test_structure_that_a_migration_changes_on_purpose_is_no_fault(shop: Connection) -> None:
    before = take(shop)
    shop.execute("ALTER TABLE public.users ADD COLUMN points bigint DEFAULT 0")
    shop.execute("CREATE TABLE public.later (id int PRIMARY KEY)")
    shop.execute("ALTER TABLE public.users ALTER email TYPE text")
    shop.execute("GRANT UPDATE (email) ON public.users TO pricing_app")
    found = compare(before, take(shop), Expected())
    assert faults(found) == []
    assert {each.severity for each in found} == {Severity.CHANGE}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("DROP TABLE public.addresses CASCADE", "table public.addresses: is gone (10 rows)"),
        (
            "ALTER TABLE public.subscriptions DROP COLUMN tax_minor",
            "column public.subscriptions.tax",
        ),
        ("REVOKE SELECT ON public.users FROM pricing_app", "grant public.users: was pricing_app=r"),
        ("DELETE FROM public.addresses", "table public.addresses: had 10 rows, has 0"),
        (
            "UPDATE public.product_variants SET price_minor = price_minor + 1 WHERE price_minor = 900",
            "money public.product_variants.price_minor: added up to 9045, adds up to 9046",
        ),
        (
            "UPDATE public.product_variants SET price_minor = 1809 - price_minor",
            "money public.product_variants.price_minor: still adds up to 9045, but in other rows",
        ),
        ("UPDATE public.alembic_version SET version_num = 'x'", "revision public.alembic_version"),
    ],
)
def test_what_a_migration_must_not_do_is_a_fault(shop: Connection, change: str, fault: str) -> None:
    before = take(shop)
    shop.execute(change.encode())
    found = compare(before, take(shop), Expected(revision=before.revision))
    assert fault in said([str(each) for each in faults(found)])


def test_what_was_meant_to_go_or_to_move_is_no_fault(shop: Connection) -> None:
    before = take(shop)
    shop.execute("UPDATE public.product_variants SET price_minor = price_minor * 2")
    shop.execute("DROP TABLE public.addresses CASCADE")
    moved, dropped = {"public.product_variants.price_minor"}, {"public.addresses"}
    meant = Expected(moved=frozenset(moved), dropped=frozenset(dropped))
    assert faults(compare(before, take(shop), meant)) == []


MEANWHILE = """
GRANT SELECT ON public.products TO PUBLIC;
CREATE TABLE public.staging AS SELECT 1 AS a;
"""
BY_OTHERS = [
    "DROP TABLE public.staging",
    "ALTER TABLE public.staging DROP COLUMN a",
    "REVOKE SELECT ON public.products FROM PUBLIC",
    f"UPDATE pg_index SET indisvalid = false WHERE {INDEX}",
]


@pytest.mark.parametrize("change", BY_OTHERS)
@pytest.mark.parametrize(
    ("plan", "ours"),
    [
        ("CREATE TABLE public.q (id int REFERENCES public.users ON DELETE CASCADE)", False),
        ("SELECT public.f()", True),
        ("DO $$ BEGIN EXECUTE 'x'; END $$", True),
        (
            (
                "DROP TABLE public.staging; ALTER TABLE public.staging DROP COLUMN a;"
                " REVOKE ALL ON public.products FROM PUBLIC; DROP INDEX public.ix_addresses_user_id"
            ),
            True,
        ),
    ],
    ids=["names it not", "calls", "executes", "names it"],
)
def test_what_the_plan_cannot_have_done_others_did(
    shop: Connection, change: str, plan: str, ours: bool
) -> None:
    shop.execute(MEANWHILE.encode())
    before = take(shop)
    shop.execute(change.encode())
    after = take(shop)
    live = Expected(written={}, reach=Reach.of([plan]))
    assert bool(faults(compare(before, after, live))) is ours
    told = said([str(each) for each in compare(before, after, live)])
    assert ("changed by others meanwhile" in told) is not ours
    # On the copy nobody else is at work.
    assert faults(compare(before, after, replace(live, written=None)))


@pytest.mark.parametrize(
    ("plan", "index", "ours"),
    [
        ("CREATE INDEX CONCURRENTLY ON public.users (email)", "public.users_email_idx", True),
        ("CREATE INDEX CONCURRENTLY ix ON public.users (email)", "public.ix_other", False),
        ("REINDEX INDEX CONCURRENTLY public.uq", "public.uq_ccnew1", True),
        ("REINDEX TABLE CONCURRENTLY public.users", "public.uq_ccnew", True),
        ("ALTER TABLE public.users ADD COLUMN a int", "public.uq_ccnew", False),
    ],
)
def test_an_index_that_is_being_built_is_its_builders(plan: str, index: str, ours: bool) -> None:
    assert Reach.of([plan]).has_index(index, "public.users") is ours


def moving(shop: Connection, database: Database, *, customers: int) -> tuple[Snapshot, Expected]:
    """This run moves every total by a cent; `customers` come meanwhile."""
    before = take(shop)
    with psycopg.connect(database.url) as run:
        row = run.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        run.execute("UPDATE public.subscriptions SET total_minor = total_minor + 1")
    for _ in range(customers):
        add_subscription(shop, add_customer(shop))
    return before, Expected(written=written_since(shop, before, {row[0]}))


def test_a_cent_that_only_this_run_can_have_moved_is_a_fault(
    shop: Connection, database: Database
) -> None:
    before, expected = moving(shop, database, customers=0)
    found = said([str(each) for each in faults(compare(before, take(shop), expected))])
    assert "added up to 1000, adds up to 1010; only this run wrote (10 rows)" in found


def test_money_that_the_application_moved_is_noted_and_no_fault(
    shop: Connection, database: Database
) -> None:
    before, expected = moving(shop, database, customers=3)
    found = compare(before, take(shop), expected)
    assert faults(found) == []
    lines = said([str(each) for each in found])
    assert "3 of the application's rows and 10 of this run's cannot be told apart" in lines
    assert "table public.users: had 10 rows, has 13; the application wrote 3 rows" in lines


def test_the_command_tells_people_and_scripts_and_leaves_with_a_code_of_its_own(
    shop: Connection,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--database-url", database.url, "validate"]) == 0
    assert "whole: 0 new faults" in capsys.readouterr().out
    assert main(["--database-url", database.url, "backup", "--name", "before", "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["path"]
    shop.execute(ORPHAN)
    assert main(["--database-url", database.url, "validate", "--json"]) == 42
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is False
    assert report["findings"][0]["name"] == "public.addresses.fk_addresses_user_id"
    assert main(["--database-url", database.url, "validate", "--against", path]) == 42
    assert "addresses" in capsys.readouterr().out
