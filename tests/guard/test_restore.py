"""A restore stands beside, is checked, takes the place by renaming; what would be lost is shown and typed."""

import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from migrations.faults import CannotReach
from migrations.guard import doors, properties
from migrations.guard.backup import backup
from migrations.guard.manifest import Backup, BackupFault
from migrations.guard.restore import WritesWouldBeLost, proven, restore
from migrations.guard.snapshot import take
from migrations.guard.tools import on_database
from migrations.guard.trail import Trail, entries
from migrations.guard.writes import lost_writes, phrase
from tests.conftest import Database
from tests.migrations.storefront import add_customer, fill
from tests.servers import drop_database


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "trail")


@pytest.fixture
def shop(database: Database) -> Iterator[Database]:
    """With some customers; whatever a test makes of it goes with it."""
    with psycopg.connect(database.url) as connection:
        fill(connection, 5)
    try:
        yield database
    finally:
        for name in related(database):
            drop_database(on_database(database.url, "postgres"), name)


@pytest.fixture
def saved(shop: Database, tmp_path: Path, trail: Trail) -> Backup:
    return backup(shop.url, tmp_path / "b", "saved", trail=trail)


def related(database: Database) -> set[str]:
    """Databases made out of this one."""
    with psycopg.connect(on_database(database.url, "postgres")) as connection:
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        return {row[0] for row in connection.execute(query, (f"{database.name}_",))}


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for each in statements:
            connection.execute(each.encode())


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_a_backup_takes_the_place_of_its_database_which_is_kept(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    name = sql.Identifier(shop.name)
    with psycopg.connect(shop.url, autocommit=True) as connection:
        for setting in ("search_path TO public, pricing", "work_mem TO '8MB'", "a.b TO 'c''d'"):
            connection.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(name))
        connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO pricing_app").format(name))
        old = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        old_oid = old.fetchone()
    done = restore(saved, shop.url, trail=trail)
    assert done.kept is not None
    assert related(shop) == {done.kept}
    with psycopg.connect(shop.url) as connection:
        assert take(connection, contents=True).tables == saved.manifest.snapshot.tables
        connection.rollback()
        assert connection.execute("SHOW search_path").fetchone() == ("public, pricing",)
        assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
        assert connection.execute("SHOW a.b").fetchone() == ("c'd",)
    here = "datname = current_database()"
    kept = on_database(shop.url, done.kept)
    assert (ask(kept, f"SELECT oid FROM pg_database WHERE {here}"),) == old_oid
    assert ask(kept, "SELECT count(*) FROM public.users") == 5
    acl = f"SELECT array(SELECT x::text FROM pg_database, unnest(datacl) x WHERE {here} ORDER BY 1)"
    assert ask(shop.url, acl) == ask(kept, acl)
    assert "pricing_app=c" in str(ask(shop.url, acl))


def test_newer_writes_are_shown_and_nothing_is_touched(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    execute(
        shop.url,
        "INSERT INTO public.users (email) VALUES ('new@example.org')",
        "UPDATE public.subscriptions SET total_minor = 5 WHERE id = (SELECT min(id::text)::uuid FROM public.subscriptions)",
        "DELETE FROM public.addresses WHERE id = (SELECT min(id::text)::uuid FROM public.addresses)",
        "ANALYZE",
    )
    with pytest.raises(WritesWouldBeLost) as refused:
        restore(saved, shop.url, trail=trail)
    assert refused.value.phrase == (
        "1 row in public.addresses, 1 row in public.subscriptions, 1 row in public.users"
    )
    shown = [each.examples[0] for each in refused.value.lost]
    assert shown[0].startswith("deleted: ")
    assert shown[1].startswith("changed: ")
    assert "added: " in shown[2]
    assert "new@example.org" in shown[2]
    assert related(shop) == set()
    assert ask(shop.url, "SELECT count(*) FROM public.users") == 6
    # Who wrote what may be personal: the trail has the numbers.
    assert "new@example.org" not in trail.path.read_text()
    assert list(entries(trail.path))[-1]["kind"] == "restore refused"


def test_writes_are_given_up_only_by_the_very_phrase(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    execute(shop.url, "INSERT INTO public.users (email) VALUES ('a@example.org')")
    with pytest.raises(WritesWouldBeLost, match="is not what would be lost now"):
        restore(saved, shop.url, trail=trail, give_up="2 rows in public.users")
    done = restore(saved, shop.url, trail=trail, give_up="1 row in public.users")
    assert done.kept is not None
    assert ask(shop.url, "SELECT count(*) FROM public.users") == 5
    assert ask(on_database(shop.url, done.kept), "SELECT count(*) FROM public.users") == 6
    kinds = [each["kind"] for each in entries(trail.path)]
    assert kinds[-3:] == ["writes given up", "writes given up", "restored"]


def test_what_a_migration_added_counts_where_it_holds_something(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    execute(
        shop.url,
        "ALTER TABLE public.users ADD COLUMN nickname text, ADD COLUMN age int DEFAULT 7",
        "CREATE TABLE public.later (id int)",
        "UPDATE public.alembic_version SET version_num = 'x01'",
    )
    with psycopg.connect(shop.url) as live, psycopg.connect(shop.url) as same:
        assert lost_writes(live, same) == []
    assert restore(saved, shop.url, trail=trail).kept
    execute(
        shop.url,
        "ALTER TABLE public.users ADD COLUMN nickname text",
        "CREATE TABLE public.later AS SELECT 1 AS id",
        "UPDATE public.users SET nickname = 'x' WHERE email = (SELECT min(email) FROM public.users)",
    )
    with pytest.raises(WritesWouldBeLost) as refused:
        restore(saved, shop.url, trail=trail)
    assert refused.value.phrase == "1 row in public.later, 1 row in public.users"


def test_writes_that_come_in_during_the_restore_are_not_lost_unseen(
    shop: Database, saved: Backup, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds nothing; before the second, when the doors are shut, a customer comes."""
    shut = doors.shut

    def late(
        control: psycopg.Connection, elsewhere: str, names: doors.Names, staying: set[int]
    ) -> object:
        with psycopg.connect(shop.url) as storefront:
            add_customer(storefront)
        return shut(control, elsewhere, names, staying)

    monkeypatch.setattr(doors, "shut", late)
    with pytest.raises(
        WritesWouldBeLost, match=r"1 row in public\.addresses, 1 row in public\.users"
    ):
        restore(saved, shop.url, trail=trail)
    assert related(shop) == set()
    # The doors are open again.
    assert ask(shop.url, "SELECT count(*) FROM public.users") == 6


def test_a_busy_application_loses_its_connections_and_no_write(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    stop, thrown_out = threading.Event(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(shop.url, autocommit=True) as connection:
                    while not stop.is_set():
                        connection.execute("SELECT count(*) FROM public.users")
            except psycopg.OperationalError:
                thrown_out.set()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        restore(saved, shop.url, trail=trail)
    finally:
        stop.set()
        thread.join()
    assert thrown_out.is_set()
    assert ask(shop.url, "SELECT count(*) FROM public.users") == 5


def test_a_database_that_is_gone_is_made_again(shop: Database, saved: Backup, trail: Trail) -> None:
    drop_database(on_database(shop.url, "postgres"), shop.name)
    assert restore(saved, shop.url, trail=trail).kept is None
    assert ask(shop.url, "SELECT count(*) FROM public.users") == 5


def test_a_dump_that_cannot_be_brought_back_leaves_no_database(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    snapshot = saved.manifest.snapshot
    objects = {**snapshot.objects, "enum elsewhere.odd": "a"}
    claims = snapshot.model_copy(update={"objects": objects})
    lying = Backup(saved.path, saved.manifest.model_copy(update={"snapshot": claims}))
    with (
        pytest.raises(BackupFault, match=r"enum elsewhere\.odd: was a, is not there"),
        proven(lying, shop.url, trail=trail),
    ):
        pass
    with pytest.raises(BackupFault, match="the restored copy is wrong"):
        restore(lying, shop.url, trail=trail)
    assert related(shop) == set()
    assert saved.tested is None


def test_an_old_fault_does_not_keep_a_backup_from_being_proven(
    shop: Database, tmp_path: Path, trail: Trail
) -> None:
    execute(
        shop.url,
        "SET session_replication_role = replica",
        "INSERT INTO public.addresses (user_id, country) VALUES (gen_random_uuid(), 'US')",
    )
    made = backup(shop.url, tmp_path, "broken", trail=trail)
    with proven(made, shop.url, trail=trail) as copy:
        said = "\n".join(map(str, copy.differences))
    assert said == (
        "old fault: constraint public.addresses.fk_addresses_user_id: cannot be restored:"
        " 1 rows break FOREIGN KEY (user_id) REFERENCES public.users(id)"
    )


def test_scratch_databases_of_killed_runs_go_and_those_in_use_stay(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    left = f"farebox_scratch_{secrets.token_hex(4)}"
    with psycopg.connect(shop.url, autocommit=True) as connection:
        properties.create_like(connection, shop.name, left)
    with proven(saved, shop.url, trail=trail) as first:
        assert not exists(shop.url, left)
        with proven(saved, shop.url, trail=trail) as second:
            assert first.database != second.database
            assert exists(shop.url, first.database)
    assert not exists(shop.url, first.database)


@pytest.mark.parametrize(
    "name",
    ["farebox_scratch_{}", "farebox_scratch_of_{}", "{shop}_restored_20240229_120000_{short}"],
)
def test_somebody_elses_database_stays_whatever_its_name(
    shop: Database, saved: Backup, trail: Trail, name: str
) -> None:
    token = secrets.token_hex(4)
    theirs = name.format(token, shop=shop.name, short=token[:4])
    execute_alone(shop.url, f'CREATE DATABASE "{theirs}"')
    try:
        with proven(saved, shop.url, trail=trail):
            assert exists(shop.url, theirs)
        made = restore(saved, shop.url, trail=trail)
        assert exists(shop.url, theirs)
        assert made.kept is not None
        with psycopg.connect(shop.url) as connection:
            # What is live now is no copy any more.
            assert properties.comment_of(connection, shop.name) is None
    finally:
        execute_alone(on_database(shop.url, "postgres"), f'DROP DATABASE "{theirs}"')


def test_a_leftover_of_another_owner_stops_nobody(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    role, left = (f"{each}_{secrets.token_hex(4)}" for each in ("t_owner", "farebox_scratch"))
    execute_alone(shop.url, f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'x'")
    with psycopg.connect(shop.url, autocommit=True) as connection:
        properties.create_like(connection, shop.name, left)
        try:
            connection.execute(f"SET ROLE {role}".encode())
            properties.sweep(connection, re.compile(left))
            assert exists(shop.url, left)
            connection.execute("RESET ROLE")
            properties.sweep(connection, re.compile(left))
            assert not exists(shop.url, left)
        finally:
            connection.execute("RESET ROLE")
            properties.drop(connection, left)
            connection.execute(f"DROP ROLE {role}".encode())


def test_roles_that_the_server_has_not_are_named_before_anything_is_made(
    empty_database: Database, tmp_path: Path, trail: Trail
) -> None:
    roles = [f'"T {each} {secrets.token_hex(4)}"' for each in ("a", "b")]
    execute(
        empty_database.url,
        "CREATE TABLE public.t (id int)",
        *(f"CREATE ROLE {each}" for each in roles),
        *(f"GRANT SELECT ON public.t TO {each}" for each in roles),
    )
    made = backup(empty_database.url, tmp_path / "b", "x", trail=trail)
    execute(empty_database.url, *(f"DROP OWNED BY {each}; DROP ROLE {each}" for each in roles))
    with pytest.raises(BackupFault) as refused:
        restore(made, empty_database.url, trail=trail)
    wanted = "; ".join(f"CREATE ROLE {each}" for each in sorted(roles))
    assert str(refused.value).endswith(wanted)
    assert related(empty_database) == set()


def execute_alone(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def exists(url: str, database: str) -> bool:
    with psycopg.connect(url) as connection:
        return properties.exists(connection, database)


def test_a_server_that_is_away_is_said_so(saved: Backup, trail: Trail) -> None:
    with pytest.raises(CannotReach, match="cannot reach the database"):
        restore(saved, "postgresql://nobody@127.0.0.1:1/nothing", trail=trail)


def test_a_database_whose_every_row_was_written_is_counted_and_some_are_shown(
    shop: Database, saved: Backup
) -> None:
    plain = "CREATE TABLE public.plain AS SELECT n % 3 AS n FROM generate_series(1, 7) n"
    copy = f"{shop.name}_copy"
    execute_alone(
        on_database(shop.url, "postgres"), f'CREATE DATABASE "{copy}" TEMPLATE "{shop.name}"'
    )
    execute(on_database(shop.url, copy), plain)
    execute(
        shop.url,
        plain,
        "INSERT INTO public.plain VALUES (2), (2), (9)",
        "INSERT INTO public.users (email) SELECT generate_series(1, 3000)::text",
        "UPDATE public.products SET name = name || '!'",
    )
    with psycopg.connect(shop.url) as live, psycopg.connect(on_database(shop.url, copy)) as other:
        lost = lost_writes(live, other)
        back = lost_writes(other, live)
    assert phrase(lost) == (
        "2 rows in public.plain, 5 rows in public.products, 3000 rows in public.users"
    )
    assert phrase(back) == phrase(lost)
    assert [len(each.examples) for each in lost] == [2, 5, 20]


def test_a_database_left_closed_by_a_killed_restore_is_named_with_the_remedy(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    elsewhere = on_database(shop.url, "postgres")
    allow = f'ALTER DATABASE "{shop.name}" ALLOW_CONNECTIONS'
    execute_alone(elsewhere, f"{allow} false")
    with pytest.raises(BackupFault, match=f'ALTER DATABASE "{shop.name}" ALLOW_CONNECTIONS true'):
        restore(saved, shop.url, trail=trail)
    execute_alone(elsewhere, f"{allow} true")
    assert restore(saved, shop.url, trail=trail).kept
