"""Revisions as steps: the same each time, cut where the transactions are."""

import subprocess
import sys
from pathlib import Path

import pytest

from migrations.guard.statements import CannotRender, Chain, Kind, PlannedStep
from migrations.steps import ROOT
from tests.guard.conftest import Write, add_revision
from tests.guard.test_apply import HEAD
from tests.migrations.test_003 import BEFORE

CHECKSUMS = f"""
from migrations.guard.statements import Chain
print([step.checksum for step in Chain().upgrade(("{BEFORE}",))])
"""
BULK_JSON = """
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
table = sa.table("q", sa.column("j", JSONB), schema="public")
op.bulk_insert(table, [{"j": {"a": 1}}])
"""


def test_a_step_is_the_same_in_every_process() -> None:
    """A ledger of a killed run is believed by its checksums."""
    here = str([step.checksum for step in Chain().upgrade((BEFORE,))])
    for _ in range(3):
        told = subprocess.run(
            [sys.executable, "-c", CHECKSUMS], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert told.stdout.strip() == here


def test_steps_are_cut_where_the_transactions_are(on_top: Write) -> None:
    up = """
    op.execute("CREATE TABLE public.x (id int)")
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.x (id)")
        op.execute("ALTER TABLE public.x VALIDATE CONSTRAINT ck_x")
    """
    steps = on_top(up).upgrade(HEAD)
    assert [step.kind for step in steps] == [
        Kind.TRANSACTION,
        Kind.INDEX,
        Kind.VALIDATION,
        Kind.TRANSACTION,
    ]
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert [step.ends_revision for step in steps] == [False, False, False, True]


@pytest.mark.parametrize("current", [(), (BEFORE,), ("5b7d21c4e8a0", "8c3e90f7d1b6")])
def test_there_is_a_way_from_wherever_a_database_stands(current: tuple[str, ...]) -> None:
    assert Chain().upgrade(current)[-1].revision == HEAD[0]
    assert Chain().upgrade(HEAD) == ()


@pytest.mark.parametrize(
    "up",
    [
        'op.get_bind().execute("SELECT 1").fetchall()',
        'for row in op.get_bind().execute("SELECT 1"):\n    pass',
        "import sqlalchemy as sa\nsa.inspect(op.get_bind())",
    ],
)
def test_a_revision_that_asks_the_database_is_refused(
    on_top: Write, versions: Path, up: str
) -> None:
    on_top(up)
    with pytest.raises(CannotRender, match=r"x01\.py, line \d+, .*say it in SQL"):
        Chain(versions).upgrade(HEAD)


@pytest.mark.parametrize(
    "up",
    [
        'op.get_bind().execute(sa.text("INSERT INTO public.q VALUES (:x)"), {"x": 2})',
        'op.get_bind().execute(sa.text("INSERT INTO public.q VALUES (:x)"), [{"x": 3}, {"x": 4}])',
        'op.get_bind().execute(sa.text("SELECT :x").bindparams(x=1), {"x": 2})',
        "op.get_bind().execute(sa.table('q', sa.column('id'), schema='public').insert(), {'id': 2})",
        'op.execute(sa.text("INSERT INTO public.q VALUES (:x)"))',
        """op.execute("ALTER TABLE public.q ALTER j SET DEFAULT '{\\"a\\":true}'")""",
    ],
)
def test_a_value_that_would_be_written_out_as_null_is_refused(
    on_top: Write, versions: Path, up: str
) -> None:
    on_top(f"import sqlalchemy as sa\n{up}")
    with pytest.raises(
        CannotRender, match=r"x01\.py, line 12, cannot be written out as SQL: .*:"
    ) as caught:
        Chain(versions).upgrade(HEAD)
    assert caught.value.exit_code == 20


def test_values_that_are_bound_are_written_out(on_top: Write) -> None:
    up = r"""
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import JSONB
    given = sa.text("INSERT INTO public.q VALUES (:x, :y)").bindparams(x=1, y=None)
    op.get_bind().execute(given)
    table = sa.table("q", sa.column("id", sa.Integer), sa.column("n", sa.Text), schema="public")
    op.bulk_insert(table, [{"id": 2, "n": None}])
    op.execute(table.update().where(table.c.id.in_([1, 2])).values(n="x:y"))
    op.execute("ALTER TABLE public.q ALTER n SET DEFAULT '{\"a\"\\:true}'")
    """
    step = on_top(up).upgrade(HEAD)[0]
    assert [" ".join(each.split()) for each in step.statements[:-1]] == [
        "INSERT INTO public.q VALUES (1, NULL);",
        "INSERT INTO public.q (id, n) VALUES (2, NULL);",
        "UPDATE public.q SET n='x:y' WHERE public.q.id IN (1, 2);",
        """ALTER TABLE public.q ALTER n SET DEFAULT '{"a":true}';""",
    ]


@pytest.mark.parametrize("asks", ["context.is_offline_mode()", "op.get_context().as_sql"])
def test_a_revision_that_asks_whether_it_is_written_out_is_refused_unless_it_says_why_not(
    on_top: Write, versions: Path, asks: str
) -> None:
    up = f"from alembic import context\nif not {asks}:MARK\n    op.execute('DROP TABLE public.q')"
    on_top(up.replace("MARK", ""))
    with pytest.raises(CannotRender, match=r"x01\.py, line 12, asks whether .*farebox: the same"):
        Chain(versions).upgrade(HEAD)
    on_top(up.replace("MARK", "  # farebox: the same offline"))
    assert len(Chain(versions).upgrade(HEAD)) == 1


@pytest.mark.parametrize(
    ("name", "after", "up", "said"),
    [
        ("x01", HEAD[0], "raise NotImplementedError", r"x01\.py, line 11, .*NotImplementedError"),
        ("x01", HEAD[0], "op.execute(", r"x01\.py, line \d+, cannot be read \(SyntaxError"),
        ("x01", HEAD[0], "import no_such_module", "ModuleNotFoundError: No module named"),
        ("x01", HEAD[0], BULK_JSON, r"x01\.py, line 14, cannot be read \(CompileError: No literal"),
        ("x01", "gone", "pass", "Revision gone referenced from gone -> x01"),
        ("x01", "x01", "pass", "x01"),
    ],
)
def test_a_revision_that_cannot_be_read_is_refused(
    versions: Path, name: str, after: str, up: str, said: str
) -> None:
    add_revision(versions, name, after, up)
    with pytest.raises(CannotRender, match=said) as caught:
        Chain(versions).upgrade(HEAD)
    assert caught.value.exit_code == 20


def test_two_revisions_of_one_name_are_refused_as_such(versions: Path) -> None:
    add_revision(versions, "x01", HEAD[0], "pass")
    (versions / "other.py").write_text((versions / "x01.py").read_text())
    with pytest.raises(CannotRender, match="Revision x01 is present more than once"):
        Chain(versions)


def test_a_database_that_names_a_revision_and_its_ancestor_is_told_what_to_do() -> None:
    with pytest.raises(CannotRender, match="delete the older row"):
        Chain().upgrade((BEFORE, HEAD[0]))


@pytest.mark.parametrize(
    ("up", "name"),
    [
        ('import sqlalchemy as sa\nop.create_table("foo", sa.Column("id", sa.Integer))', "foo"),
        ('op.execute("CREATE TABLE public.x (id uuid REFERENCES users)")', "users"),
        ('op.drop_index("ix_addresses_user_id")', "ix_addresses_user_id"),
        ('op.execute("CREATE VIEW public.v AS WITH a AS (SELECT 1) SELECT FROM a, b")', "b"),
    ],
)
def test_a_name_without_a_schema_is_refused_in_the_plan(on_top: Write, up: str, name: str) -> None:
    with pytest.raises(CannotRender, match=rf"names {name} without a schema.*write public\.{name}"):
        on_top(up).upgrade(HEAD)


def test_what_needs_no_schema_is_not_asked_for_one(on_top: Write) -> None:
    up = """
    op.execute("CREATE TEMP TABLE t AS WITH a AS (SELECT FROM pg_class) SELECT FROM a")
    op.execute("INSERT INTO t DEFAULT VALUES")
    op.execute("CREATE INDEX ix ON public.users (id)")
    """
    assert on_top(up).upgrade(HEAD)
    assert on_top('op.execute("SET LOCAL search_path = public; DROP TABLE x")').upgrade(HEAD)


@pytest.mark.parametrize(
    "sql",
    [
        "REINDEX (VERBOSE, CONCURRENTLY) TABLE public.users",
        "CREATE UNIQUE INDEX\n CONCURRENTLY ix ON public.users (email)",
        "DROP INDEX CONCURRENTLY public.ix",
    ],
)
def test_a_concurrent_build_is_one_however_it_is_written(sql: str) -> None:
    assert PlannedStep("x", "", 1, (sql,), False).kind is Kind.INDEX
