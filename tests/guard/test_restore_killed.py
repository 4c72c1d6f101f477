"""A restore killed by SIGKILL at any of its steps: the database is as it was or the backup's, and opens again."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql

from migrations.faults import LockBusy
from migrations.guard import doors, properties, restore, writes
from migrations.guard.backup import backup
from migrations.guard.manifest import Backup, BackupFault
from migrations.guard.tools import on_database, stoppable
from migrations.guard.trail import Trail, entries
from migrations.run_lock import connect, run_lock
from tests.conftest import Database
from tests.guard.test_restore import ask, execute, execute_alone, related
from tests.servers import drop_database

PATIENCE_SECONDS = 30.0
# Where it dies: module, function, at which call, before or after it did its work.
SHUT = [
    (doors, "_put_out", 1, "before"),
    (writes, "look", 2, "before"),
    (doors, "swap", 1, "before"),
    (properties, "rename", 1, "after"),
    (properties, "rename", 2, "after"),
]
OPEN = [
    (properties, "create_like", 1, "before"),
    (properties, "create_like", 1, "after"),
    (restore, "run_tool", 1, "after"),
    (restore, "check_copy", 1, "after"),
    (writes, "look", 1, "after"),
]


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path / "trail")


@pytest.fixture
def shop(empty_database: Database) -> Iterator[Database]:
    """Small, for it is restored again and again; with writes that the backup has not."""
    execute(
        empty_database.url,
        "CREATE TABLE public.users (id int PRIMARY KEY)",
        "INSERT INTO public.users SELECT generate_series(1, 5)",
        f"COMMENT ON DATABASE \"{empty_database.name}\" IS 'the shop''s'",
    )
    try:
        yield empty_database
    finally:
        for name in related(empty_database):
            drop_database(on_database(empty_database.url, "postgres"), name)


@pytest.fixture
def saved(shop: Database, tmp_path: Path, trail: Trail) -> Backup:
    made = backup(shop.url, tmp_path / "b", "saved", trail=trail)
    execute(shop.url, "INSERT INTO public.users VALUES (6)")
    return made


GIVEN_UP = "1 row in public.users"


def killed(saved: Backup, url: str, trail: Trail, at: tuple[object, str, int, str]) -> None:
    """A restore in a child of ours that dies there."""
    module, function, nth, when = at
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            _die_at(module, function, nth, when)
            restore.restore(saved, url, trail=trail, give_up=GIVEN_UP)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, at


def _die_at(module: object, function: str, nth: int, when: str) -> None:
    real: Callable[..., object] = getattr(module, function)
    calls = [0]

    def dying(*given: object, **named: object) -> object:
        calls[0] += 1
        mine = calls[0] == nth
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*given, **named)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(module, function, dying)


def is_open(shop: Database) -> bool:
    with psycopg.connect(on_database(shop.url, "postgres"), autocommit=True) as control:
        return properties.is_open(control, shop.name)


def patiently(do: Callable[[], object]) -> object:
    """The server needs a moment to see that the killed one is gone."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return do()
        except LockBusy:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(0.1)


def users(url: str) -> object:
    return ask(url, "SELECT count(*) FROM public.users")


@pytest.mark.parametrize("at", OPEN, ids=lambda at: f"{at[3]}-{at[1]}")
def test_killed_while_the_doors_are_open_nobody_notices_and_the_next_clears_away(
    shop: Database, saved: Backup, trail: Trail, at: tuple[object, str, int, str]
) -> None:
    killed(saved, shop.url, trail, at)
    assert users(shop.url) == 6
    assert patiently(lambda: restore.reopen(shop.url, trail=trail)) is False
    assert users(shop.url) == 6
    assert related(shop) == set()


@pytest.mark.parametrize("at", SHUT, ids=lambda at: f"{at[3]}-{at[1]}-{at[2]}")
def test_killed_while_the_doors_are_shut_one_command_opens_them(
    shop: Database, saved: Backup, trail: Trail, at: tuple[object, str, int, str]
) -> None:
    killed(saved, shop.url, trail, at)
    assert not is_open(shop)
    assert patiently(lambda: restore.reopen(shop.url, trail=trail)) is True
    assert users(shop.url) == 6
    assert related(shop) == set()
    assert list(entries(trail.path))[-1]["kind"] == "reopened"


def test_killed_while_the_doors_are_shut_the_next_restore_goes_through(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    killed(saved, shop.url, trail, (writes, "look", 2, "after"))
    assert not is_open(shop)
    with pytest.raises(restore.WritesWouldBeLost):
        patiently(lambda: restore.restore(saved, shop.url, trail=trail))
    # Refused, and yet what the killed one left shut is open.
    assert users(shop.url) == 6
    killed(saved, shop.url, trail, (writes, "look", 2, "after"))
    done = patiently(lambda: restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP))
    assert isinstance(done, restore.Restored)
    assert done.reopened
    assert users(shop.url) == 5
    assert related(shop) == {done.kept}


def test_killed_after_the_swap_everything_is_in_its_place(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    killed(saved, shop.url, trail, (doors, "swap", 1, "after"))
    assert users(shop.url) == 5
    [kept] = related(shop)
    assert users(on_database(shop.url, kept)) == 6
    assert patiently(lambda: restore.reopen(shop.url, trail=trail)) is False
    assert related(shop) == {kept}
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert ask(shop.url, comment) == ask(on_database(shop.url, kept), comment) == "the shop's"


def test_a_server_that_drops_the_restore_at_shut_doors_opens_them_again(
    shop: Database, saved: Backup, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it restarts: the connection that shut them is no more."""
    look = writes.look

    def cut_off(live: Connection, copy: Connection, since: writes.Look | None = None) -> object:
        if since is not None:
            with psycopg.connect(on_database(shop.url, "postgres"), autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE starts_with(application_name, %s)",
                    (f"{shop.name}_restored_",),
                )
            assert not is_open(shop)
        return look(live, copy, since)

    monkeypatch.setattr(writes, "look", cut_off)
    with pytest.raises(BackupFault, match="nothing was restored"):
        restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP)
    assert users(shop.url) == 6


def test_one_that_is_at_work_is_not_disturbed(
    shop: Database, saved: Backup, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, seen = writes.look, list[str]()

    def disturbed(live: Connection, copy: Connection, since: writes.Look | None = None) -> object:
        with pytest.raises(LockBusy, match=r"another migration job runs|takes the place") as busy:
            restore.restore(saved, shop.url, trail=trail)
        seen.append(str(busy.value))
        return look(live, copy, since)

    monkeypatch.setattr(writes, "look", disturbed)
    done = restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP)
    assert "another migration job runs" in seen[0]
    assert f"takes the place of {shop.name} at this moment" in seen[1]
    assert related(shop) == {done.kept}


def test_a_migration_under_way_keeps_a_restore_out(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    with (
        run_lock(shop.url, wait_seconds=0, on_wait=lambda text: None),
        pytest.raises(LockBusy, match="another migration job runs"),
    ):
        restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP)
    assert users(shop.url) == 6


def test_what_was_shut_by_others_stays_shut_until_that_is_asked_for(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    execute_alone(
        on_database(shop.url, "postgres"), f'ALTER DATABASE "{shop.name}" ALLOW_CONNECTIONS false'
    )
    with pytest.raises(BackupFault, match=r"takes no connections; `migration_utils\.py reopen`"):
        restore.restore(saved, shop.url, trail=trail)
    assert not is_open(shop)
    assert restore.reopen(shop.url, trail=trail)
    assert users(shop.url) == 6


def test_databases_that_only_look_like_copies_are_left_alone(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    theirs = f"{shop.name}_restored_by_hand"
    execute_alone(on_database(shop.url, "postgres"), f'CREATE DATABASE "{theirs}"')
    restore.reopen(shop.url, trail=trail)
    assert related(shop) == {theirs}


@pytest.mark.parametrize("name", ["o\"dd {Shop} %s's", "x" * 60, "é" * 31])
def test_any_name_is_restored_and_cleared_away(
    shop: Database, saved: Backup, trail: Trail, name: str
) -> None:
    odd = f"{secrets.token_hex(3)}{name}".encode()[:63].decode(errors="ignore")
    names = doors.Names.of(odd, "20260101_000000_abcd")
    assert max(len(each.encode()) for each in (names.beside, names.kept)) <= 63
    assert doors.copies_of(odd).fullmatch(names.beside)
    assert not doors.copies_of(odd).fullmatch(names.kept)
    elsewhere = on_database(shop.url, "postgres")
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    made = set()
    with connect(elsewhere) as control:
        control.execute(create.format(sql.Identifier(odd), sql.Identifier(shop.name)))
        try:
            url = on_database(shop.url, odd)
            with pytest.raises(restore.WritesWouldBeLost, match=r"\(of fbx_.*, not of "):
                restore.restore(saved, url, trail=trail)
            killed(saved, url, trail, (doors, "swap", 1, "before"))
            done = patiently(lambda: restore.restore(saved, url, trail=trail, give_up=GIVEN_UP))
            assert isinstance(done, restore.Restored)
            assert (done.database, done.reopened) == (odd, True)
            made.add(str(done.kept))
            assert users(url) == 5
        finally:
            for each in (odd, *made):
                properties.drop(control, each)


def test_who_can_stand_nowhere_else_is_told_before_anything_is_made(
    shop: Database, saved: Backup, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "ELSEWHERE", ("no_such_database",))
    with pytest.raises(BackupFault, match="GRANT CONNECT ON DATABASE no_such_database TO postgres"):
        restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP)
    assert users(shop.url) == 6
    assert related(shop) == set()


def test_a_restore_that_is_told_to_stop_while_the_doors_are_shut_opens_them_itself(
    shop: Database, saved: Backup, trail: Trail
) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            look = writes.look

            def stopped(
                live: Connection, copy: Connection, since: writes.Look | None = None
            ) -> writes.Look:
                if since is not None:
                    os.kill(os.getpid(), signal.SIGTERM)
                return look(live, copy, since)

            writes.look = stopped
            # pytest's own handler would do what is to be tried here.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with stoppable():
                restore.restore(saved, shop.url, trail=trail, give_up=GIVEN_UP)
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert users(shop.url) == 6
    assert related(shop) == set()
