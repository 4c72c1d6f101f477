"""Taking a run back: only what it created, only while nobody's data is in it, never what the storefront wrote."""

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from migrations.guard.apply import Applier, TableBusy
from migrations.guard.loss import Table
from migrations.guard.made_roles import roles
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail
from migrations.guard.tripwires import Tripwire, put_up
from migrations.guard.undo import undo
from migrations.steps import Migrations
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_apply import HEAD, REVISION
from tests.migrations import storefront
from tests.migrations.test_003 import BEFORE, Writer

Look = Callable[[str], object]
ACCOUNT = (
    "INSERT INTO loyalty.loyalty_accounts (user_id, opened_at) VALUES (gen_random_uuid(), now())"
)
# What the cases below write; one of them each.
THERE = """
SELECT EXISTS (SELECT FROM loyalty.loyalty_accounts)
    OR EXISTS (SELECT FROM public.subscriptions WHERE delivery_type = 'express')
    OR EXISTS (SELECT FROM public.subscriptions WHERE status = 'paused')
"""

TRIPWIRES = "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'farebox_undo%'"
LOGGED = """
op.execute("CREATE TABLE public.log (id uuid)")
op.execute(
    "CREATE FUNCTION public.log_it() RETURNS trigger LANGUAGE plpgsql AS"
    " $f$ BEGIN INSERT INTO public.log VALUES (NEW.id); RETURN NEW; END $f$"
)
op.execute(
    "CREATE TRIGGER log_it AFTER INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION public.log_it()"
)
"""
UNLOGGED = """
op.execute("DROP TRIGGER log_it ON public.users")
op.execute("DROP FUNCTION public.log_it()")
op.execute("DROP TABLE public.log")
"""


@pytest.fixture
def database(empty_database: Database) -> Database:
    """As the storefront left it."""
    migrations = Migrations(empty_database.url)
    for step in migrations.pending():
        migrations.apply(step)
        if step.revision == BEFORE:
            break
    return empty_database


def test_it_is_as_before_and_what_was_written_meanwhile_is_there(
    database: Database, applier: Applier, look: Look
) -> None:
    chain = Chain()
    writer = Writer(database.url)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        writer.wait_for_writes()
        roles_before = roles(applier.connection)
        applier.apply(chain.upgrade((BEFORE,)))
        writer.wait_for_writes()
        assert look("SELECT count(*) > 0 FROM pricing.outbox") is True
        done = undo(applier, chain, (BEFORE,), roles_before)
        writer.wait_for_writes()
    finally:
        writer.stop.set()
        thread.join()
    assert done.kept == ()
    assert writer.errors == []
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT id, status FROM public.subscriptions").fetchall()
    assert dict(found) == writer.acknowledged
    assert look("SELECT version_num FROM public.alembic_version") == BEFORE
    assert look("SELECT to_regnamespace('pricing')") is None
    applier.apply(chain.upgrade((BEFORE,)))
    assert look("SELECT version_num FROM public.alembic_version") == chain.heads()[0]


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (
            ACCOUNT,
            "loyalty.loyalty_accounts holds 1 rows",
        ),
        (
            "UPDATE public.subscriptions SET delivery_type = 'express'",
            "public.subscriptions.delivery_type holds 5 values",
        ),
        (
            (
                "UPDATE public.subscriptions SET status = 'paused';"
                " UPDATE pricing.outbox SET published_at = now() WHERE position = 1"
            ),
            "pricing.outbox holds 1 rows",
        ),
    ],
    ids=["a table", "a column", "a published fact"],
)
def test_data_of_somebody_else_keeps_everything(
    database: Database, applier: Applier, look: Look, write: str, reason: str
) -> None:
    chain = Chain()
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 5)
    applier.apply(chain.upgrade((BEFORE,)))
    applier.connection.execute(write.encode())
    done = undo(applier, chain, (BEFORE,), roles(applier.connection))
    assert reason in done.kept
    assert look("SELECT version_num FROM public.alembic_version") == chain.heads()[0]
    assert look(THERE) is True


class WritingTrail(Trail):
    """Somebody writes when the look for other people's data is over and the DROP is still to come."""

    at = "undo_started"
    url = ""
    statement = ""
    open_seconds = 0.0
    times = 0

    def record(self, kind: str, **fields: object) -> None:
        super().record(kind, **fields)
        if kind == self.at:
            self.write()

    def write(self) -> None:
        somebody = psycopg.connect(self.url)
        somebody.execute(self.statement.format(self.times).encode())
        self.times += 1
        if self.open_seconds:
            threading.Timer(self.open_seconds, _commit, (somebody,)).start()
        else:
            _commit(somebody)


def _commit(somebody: psycopg.Connection) -> None:
    somebody.commit()
    somebody.close()


@pytest.mark.parametrize(
    "write", [ACCOUNT, "UPDATE public.subscriptions SET delivery_type = 'express'"]
)
def test_what_is_written_after_the_look_is_seen_and_kept(
    database: Database, applier: Applier, look: Look, tmp_path: Path, write: str
) -> None:
    chain = Chain()
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 5)
    applier.apply(chain.upgrade((BEFORE,)))
    applier.trail = trail = WritingTrail(tmp_path / "audit")
    trail.url, trail.statement = database.url, write
    done = undo(applier, chain, (BEFORE,), roles(applier.connection))
    assert "somebody wrote meanwhile" in done.kept[0]
    assert trail.times == 1
    assert look("SELECT version_num FROM public.alembic_version") == chain.heads()[0]
    assert look(THERE) is True
    assert look(TRIPWIRES) == 0
    assert look("SELECT count(*) FROM farebox_migration.ledger WHERE closed_at IS NULL") == 0


@pytest.mark.parametrize("committed", [True, False])
def test_what_is_written_after_the_last_look_is_seen_under_the_lock_and_never_refused(
    database: Database,
    applier: Applier,
    on_top: Write,
    look: Look,
    tmp_path: Path,
    committed: bool,
) -> None:
    chain = on_top(LOGGED, UNLOGGED)
    applier.apply(chain.upgrade((BEFORE,)))
    write = "INSERT INTO public.users (email) VALUES ('new@x')"
    applier.trail = trail = WritingTrail(tmp_path / "audit")
    trail.at, trail.url, trail.statement = "undo_watched", database.url, write
    trail.open_seconds = 0.0 if committed else 0.1
    done = undo(applier, chain, HEAD, set())
    assert "somebody wrote into public.log" in done.kept[0]
    assert look("SELECT count(*) FROM public.log") == 1
    assert look("SELECT version_num FROM public.alembic_version") == "x01"
    assert look(TRIPWIRES) == 0


def test_an_undo_that_cannot_get_its_lock_stops_no_write(
    database: Database, applier: Applier, on_top: Write, look: Look, tmp_path: Path
) -> None:
    """Nor does one that was killed: the writer comes while the tripwires stand, and as a role with few rights."""
    chain = on_top(LOGGED, UNLOGGED)
    applier.apply(chain.upgrade((BEFORE,)))
    applier.connection.execute("DROP ROLE IF EXISTS undo_app; CREATE ROLE undo_app")
    applier.connection.execute("GRANT INSERT ON public.users, public.log TO undo_app")
    write = "SET ROLE undo_app; INSERT INTO public.users (email) VALUES ('while{}@x')"
    applier.trail = trail = WritingTrail(tmp_path / "audit")
    trail.at, trail.url, trail.statement = "lock_busy", database.url, write
    with psycopg.connect(database.url) as report:
        report.execute("SELECT count(*) FROM public.users")
        with pytest.raises(TableBusy):
            undo(applier, chain, HEAD, set())
        assert trail.times > 1
        assert look(TRIPWIRES) == 0
    put_up(applier, [Tripwire(Table("public", "log"), "x01", 1, "NOT (true)")])
    assert look(TRIPWIRES) == 1
    trail.write()
    assert look("SELECT is_called FROM farebox_migration.undo_writes") is True
    applier.connection.execute("TRUNCATE public.log")
    assert undo(applier, chain, HEAD, set()).kept == ()
    assert look("SELECT count(*) FROM public.users") == trail.times
    applier.connection.execute("DROP OWNED BY undo_app; DROP ROLE undo_app")


SEEDED = """
op.execute("CREATE TABLE public.q (id int, note text)")
op.execute("INSERT INTO public.q VALUES (1, 'ours'), (2, 'ours')")
op.execute("ALTER TABLE public.users ADD COLUMN q text")
op.execute("UPDATE public.users SET q = 'ours' WHERE q IS NULL")
"""
UNSEEDED = """
op.execute("ALTER TABLE public.users DROP COLUMN q")
op.execute("DROP TABLE public.q")
"""


@pytest.mark.parametrize(
    ("written", "lost"),
    [
        (None, None),
        ("INSERT INTO public.q VALUES (3, 'theirs')", "public.q holds 1 rows"),
        ("UPDATE public.q SET note = 'theirs' WHERE id = 1", "public.q holds 1 rows"),
        (
            "UPDATE public.users SET q = 'theirs' WHERE id = (SELECT min(id::text)::uuid FROM public.users)",
            "public.users.q holds 1 values",
        ),
    ],
)
def test_what_the_run_itself_wrote_is_nobodys_data(
    database: Database,
    applier: Applier,
    on_top: Write,
    look: Look,
    written: str | None,
    lost: str | None,
) -> None:
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 5)
    chain = on_top(SEEDED, UNSEEDED)
    applier.apply(chain.upgrade((BEFORE,)))
    if written is not None:
        applier.connection.execute(written.encode())
    done = undo(applier, chain, HEAD, set())
    assert done.kept == (() if lost is None else (lost,))
    assert look("SELECT version_num FROM public.alembic_version") == ("x01" if lost else HEAD[0])
    assert look("SELECT count(*) FROM public.users") == 5


@pytest.mark.parametrize(
    "write",
    ["UPDATE public.users SET q = 'theirs'", "INSERT INTO public.users (email) VALUES ('new@x')"],
)
def test_a_column_that_the_run_filled_is_looked_at_under_the_lock(
    database: Database,
    applier: Applier,
    on_top: Write,
    look: Look,
    tmp_path: Path,
    write: str,
) -> None:
    """The storefront's own writes to such rows go on."""
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 5)
    chain = on_top(SEEDED, UNSEEDED)
    applier.apply(chain.upgrade((BEFORE,)))
    applier.trail = trail = WritingTrail(tmp_path / "audit")
    trail.at, trail.url, trail.statement = "undo_watched", database.url, write
    done = undo(applier, chain, HEAD, set())
    assert trail.times == 1
    if "theirs" in write:
        assert "somebody wrote into public.users" in done.kept[0]
        assert look("SELECT count(*) FROM public.users WHERE q = 'theirs'") == 5
        assert look(TRIPWIRES) == 0
    else:
        assert done.kept == ()
        assert look("SELECT count(*) FROM public.users WHERE email = 'new@x'") == 1


@pytest.mark.parametrize(
    "more",
    [
        # The only copy of what was there.
        'op.execute("UPDATE public.users SET email = id::text")',
        # It may have carried along what somebody wrote meanwhile.
        'op.execute("UPDATE public.q SET note = note || id")',
        "op.execute(\"DO $$ BEGIN EXECUTE 'SELECT ' || 1; END $$\")",
        'op.execute("DELETE FROM public.addresses WHERE false")',
    ],
)
def test_where_it_cannot_be_told_who_wrote_everything_is_kept(
    database: Database, applier: Applier, on_top: Write, more: str
) -> None:
    chain = on_top(SEEDED + more, UNSEEDED)
    applier.apply(chain.upgrade((BEFORE,)))
    assert "public.q holds 2 rows" in undo(applier, chain, HEAD, set()).kept


def test_a_step_by_itself_drops_what_is_empty_and_leaves_roles_of_before(
    database: Database, applier: Applier, on_top: Write, look: Look
) -> None:
    chain = on_top(
        "op.execute('CREATE TABLE public.\"Q q\" (id int)')",
        """
        op.execute("COMMENT ON TABLE public.users IS 'x'; DROP ROLE IF EXISTS of_before")
        with op.get_context().autocommit_block():
            op.execute("DROP ROLE IF EXISTS of_before")
            op.execute('DROP TABLE public."Q q"')
        """,
    )
    applier.apply(chain.upgrade((BEFORE,)))
    assert undo(applier, chain, HEAD, {"of_before"}).kept == ()
    assert look("SELECT to_regclass('public.\"Q q\"')") is None
    assert look("SELECT obj_description('public.users'::regclass)") == "x"


class StoppingTrail(Trail):
    """Stopped, once, when the first step of the way back is done."""

    stopped = False

    def record(self, kind: str, **fields: object) -> None:
        super().record(kind, **fields)
        if kind == "step_done" and "(undo)" in str(fields["step"]) and not self.stopped:
            self.stopped = True
            raise KeyboardInterrupt


def test_an_undo_that_was_cut_short_between_its_steps_goes_on_there(
    database: Database, applier: Applier, on_top: Write, look: Look, tmp_path: Path
) -> None:
    with psycopg.connect(database.url) as connection:
        storefront.fill(connection, 5)
    chain = on_top(
        SEEDED,
        """
        op.execute("DROP TABLE public.q")
        with op.get_context().autocommit_block():
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS public.nothing")
        op.execute("ALTER TABLE public.users DROP COLUMN q")
        """,
    )
    applier.apply(chain.upgrade((BEFORE,)))
    applier.trail = StoppingTrail(tmp_path / "audit")
    with pytest.raises(KeyboardInterrupt):
        undo(applier, chain, HEAD, set())
    assert look("SELECT to_regclass('public.q')") is None
    assert look(REVISION) == "x01"
    assert undo(applier, chain, HEAD, set()).kept == ()
    assert look(REVISION) == HEAD[0]


def test_what_cannot_be_judged_keeps_everything(
    database: Database, applier: Applier, on_top: Write, look: Look
) -> None:
    chain = on_top(
        'op.execute("CREATE TABLE public.x (id int)")', 'op.execute("DELETE FROM public.users")'
    )
    applier.apply(chain.upgrade((BEFORE,)))
    done = undo(applier, chain, HEAD, set())
    assert done.kept == ("what this would lose cannot be judged: DELETE FROM public.users",)
    assert look("SELECT version_num FROM public.alembic_version") == "x01"
