"""What a way back would lose: read whole, statement by statement."""

import pytest

from migrations.guard import authorship
from migrations.guard.loss import Unjudged, losses, roles_dropped
from migrations.guard.statements import Chain
from tests.migrations.test_003 import BEFORE


def test_our_own_ways_back_can_all_be_judged() -> None:
    chain = Chain()
    for step in chain.downgrade(chain.heads(), BEFORE):
        for each in step.statements:
            assert not [loss for loss in losses(each) if isinstance(loss, Unjudged)]


@pytest.mark.parametrize(
    ("sql", "gone"),
    [
        ("DROP VIEW public.v; DROP TABLE public.t", ["public.t"]),
        ("CREATE INDEX i ON public.t (x); DROP TABLE public.t", ["public.t"]),
        ('DROP TABLE public.a, "B b".c', ["public.a", "B b.c"]),
        ("ALTER TABLE public.t DROP CONSTRAINT c, DROP COLUMN v_minor", ["public.t.v_minor"]),
        ("ALTER TABLE public.t ALTER COLUMN a DROP NOT NULL", []),
        ("ALTER TABLE public.t SET (fillfactor = 90), RESET (toast_tuple_target)", []),
        ("DROP INDEX CONCURRENTLY public.i", []),
        ("UPDATE public.alembic_version SET version_num = 'a' WHERE version_num = 'b'", []),
        ("REVOKE ALL ON public.t FROM r", []),
    ],
)
def test_what_goes_is_named(sql: str, gone: list[str]) -> None:
    assert [str(each) for each in losses(sql)] == gone


@pytest.mark.parametrize(
    "sql",
    [
        "DROP INDEX public.i; DELETE FROM public.users",
        "DROP OWNED BY r",
        "DROP VIEW public.v CASCADE",
        "DROP SCHEMA s CASCADE",
        "TRUNCATE public.t",
        "ALTER TABLE public.t RENAME TO u",
        "ALTER TABLE public.t ALTER COLUMN a TYPE int",
        "ALTER TABLE public.t DROP CONSTRAINT c CASCADE, DROP COLUMN d",
        "DO $$ BEGIN DROP ROLE r; DELETE FROM public.users; END $$",
        "DO $$ BEGIN DROP ROLE r; EXCEPTION WHEN others THEN DELETE FROM public.users; END $$",
        "UPDATE public.alembic_version SET version_num = 'a'; DELETE FROM public.users",
        "WITH x AS (DELETE FROM public.users RETURNING 1) DELETE FROM public.alembic_version",
        "UPDATE public.alembic_version SET version_num = public.f()",
        "SELECT public.f()",
        "SET search_path = public",
        "no SQL",
    ],
)
def test_what_is_not_known_to_be_harmless_cannot_be_judged(sql: str) -> None:
    assert any(isinstance(each, Unjudged) for each in losses(sql))


def test_roles_are_found_also_in_blocks() -> None:
    block = "DO $$ BEGIN /* x */ DROP ROLE IF EXISTS a; EXCEPTION WHEN others THEN NULL; END $$"
    assert roles_dropped(f'{block}; DROP ROLE b, "C"') == {"a", "b", "C"}


@pytest.mark.parametrize(
    ("body", "harmless"),
    [
        ("BEGIN RAISE EXCEPTION 'no UPDATE, no DELETE here' USING ERRCODE = '23001'; END", True),
        (
            "BEGIN /* delete */ IF NEW.a > OLD.a THEN RETURN NULL; END IF; -- update\nRETURN NEW; END",
            True,
        ),
        ("BEGIN INSERT INTO public.log VALUES (NEW.id); RETURN NEW; END", False),
        ("BEGIN x := '--'; update public.log SET id = 1; RETURN NEW; END", False),
        ("BEGIN EXECUTE 'x'; RETURN NEW; END", False),
        ("BEGIN x := public.log_it(NEW.id); RETURN NEW; END", False),
        ("BEGIN x := E'\\''; DELETE FROM public.log; x := ''; RETURN NEW; END", False),
    ],
)
def test_a_trigger_that_only_refuses_is_told_from_one_that_may_write(
    body: str, harmless: bool
) -> None:
    assert authorship._writes_nothing("plpgsql", body) is harmless
    assert not authorship._writes_nothing("c", body)
