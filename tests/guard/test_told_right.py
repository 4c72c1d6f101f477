"""What a run says of itself when it was cut short after all was well, or looks at one that was."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import Connection

from migrations.faults import CannotReach
from migrations.guard import pending, snapshot
from migrations.guard.backup import backup, list_backups, pin
from migrations.guard.exits import ExitCode
from migrations.guard.manifest import MANIFEST, write
from migrations.guard.pending import Pending
from migrations.guard.run import PINNED_FOR, Options, Run, Show
from migrations.guard.trail import Trail
from migrations.run_lock import connect
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(backup_folder=tmp_path / "backups", policy=IMPATIENT)


@pytest.fixture
def run(
    database: Database, options: Options, trail: Trail, said: list[str]
) -> Callable[[Options], Run]:
    return lambda options: Run(database.url, options, trail, Show(said.append))


def test_a_connection_lost_after_all_was_well_is_not_called_nothing(
    run: Callable[[Options], Run], options: Options
) -> None:
    def lose(connection: Connection) -> None:
        with connect(connection.info.dsn) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")

    with pytest.raises(CannotReach, match="found good, what follows it was cut short: run again"):
        run(replace(options, after=lose)).go()


@pytest.mark.parametrize(
    ("state", "said_then"),
    [("changing", "validates it"), ("undoing", "with its undo"), ("kept", "says so again")],
)
def test_a_dry_run_over_an_unfinished_run_says_what_is_to_be_done(
    run: Callable[[Options], Run],
    options: Options,
    job: Connection,
    said: list[str],
    state: pending.State,
    said_then: str,
) -> None:
    begun = Pending("1234", ("008",), frozenset(), snapshot.take(job))
    pending.begin(job, begun)
    pending.mark(job, begun, state, "a cent is gone")
    result = run(replace(options, dry_run=True)).go()
    assert result.code is ExitCode.DONE
    [line] = said
    assert line.startswith("run 1234 was not finished: ")
    assert line.endswith(said_then)
    assert pending.find(job) is not None


def test_the_backup_of_another_server_stays_pinned(
    run: Callable[[Options], Run], options: Options, database: Database, trail: Trail
) -> None:
    made = [backup(database.url, options.backup_folder, f"n{n}", trail=trail) for n in range(2)]
    for each in made:
        pin(each, PINNED_FOR)
    elsewhere = made[0].manifest.model_copy(update={"server": "elsewhere:5432"})
    write(made[0].path / MANIFEST, elsewhere.model_dump_json())
    run(options).go()
    pinned = [each.path for each in list_backups(options.backup_folder) if each.pinned]
    assert pinned == [made[0].path]
