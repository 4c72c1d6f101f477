"""Names that are taken: each is found whatever it is called, and none that the plan itself frees first."""

from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import Connection

from migrations.guard.wanted import in_the_way
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_apply import HEAD, UNIQUE, fill
from tests.guard.test_preflight import of

Find = Callable[[str], list[str]]


@pytest.fixture
def find(job: Connection, on_top: Write) -> Find:
    """What is in the way of these statements."""

    def look(statements: str) -> list[str]:
        up = "\n".join(f"op.execute({each!r})" for each in statements.split("|"))
        steps = on_top(up).upgrade(HEAD)
        return [f"{each.kind} {each}" for each in in_the_way(job, steps, ())]

    return look


TAKEN = (
    'CREATE TABLE public."My Table" (id int)',
    "CREATE TYPE public.mood AS ENUM ('good')",
    "CREATE SEQUENCE public.s",
    'CREATE SCHEMA "Back Office"',
)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ('CREATE TABLE public."My Table" (id int)', ["table public.My Table"]),
        ("CREATE TABLE public.mytable (id int)", []),
        ("CREATE TABLE public.mood (id int)", ["table public.mood"]),
        ("CREATE TYPE public.mood AS ENUM ('bad')", ["type public.mood"]),
        ("CREATE DOMAIN public.mood AS int", ["type public.mood"]),
        ("CREATE TYPE public.mood AS (a int)", ["type public.mood"]),
        ('CREATE VIEW public."My Table" AS SELECT 1', ["view public.My Table"]),
        ("CREATE MATERIALIZED VIEW public.s AS SELECT 1", ["materialized view public.s"]),
        ("CREATE SEQUENCE public.s", ["sequence public.s"]),
        ('CREATE SCHEMA "Back Office"', ["schema Back Office"]),
        ("CREATE TABLE IF NOT EXISTS public.s (id int)", []),
        ("CREATE TEMPORARY TABLE s (id int)", []),
        ("DROP SEQUENCE public.s|CREATE TABLE public.s (id int)", []),
        ('ALTER TABLE public."My Table" RENAME TO t|CREATE TABLE public."My Table" ()', []),
        ('ALTER TABLE public."My Table" SET SCHEMA x|CREATE TABLE public."My Table" ()', []),
        (
            'ALTER TABLE public."My Table" RENAME id TO a|CREATE VIEW public.s AS SELECT 1',
            ["view public.s"],
        ),
        ("ALTER TYPE public.mood RENAME TO old|CREATE TYPE public.mood AS ENUM ('a')", []),
        ('DROP SCHEMA "Back Office"|CREATE SCHEMA "Back Office"', []),
        ("DO $$ BEGIN DROP SEQUENCE public.s; END $$ |CREATE TABLE public.s (id int)", []),
        ("CREATE TABLE public.s (id int)|DROP SEQUENCE public.s", ["table public.s"]),
    ],
)
def test_a_name_is_in_the_way_by_what_it_is(
    job: Connection, find: Find, wanted: str, found: list[str]
) -> None:
    for each in TAKEN:
        job.execute(each.encode())
    assert find(wanted) == found


def test_the_invalid_index_that_the_run_will_clean_up_itself_is_no_warning(
    database: Database, job: Connection, on_top: Write, tmp_path: Path
) -> None:
    fill(database.url)
    job.execute('CREATE INDEX "ix Mixed" ON public.users (email)')
    job.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.\"ix Mixed\"'::regclass"
    )
    builds = UNIQUE.replace("ux", '\\"ix Mixed\\"')
    said = of(database.url, on_top("pass"), tmp_path)["indexes"]
    assert said.cause == 'index public."ix Mixed" is INVALID'
    assert builds != UNIQUE
    assert "indexes" not in of(database.url, on_top(builds), tmp_path)
