"""What only a server of one's own can show: prepared transactions, standbys, replicas that lag, forgotten slots."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard import blockers
from migrations.guard.preflight import preflight
from migrations.guard.run import Options, Run, Show
from migrations.guard.statements import Chain
from migrations.guard.subject import PreflightRefused, Problem, Subject
from migrations.guard.trail import Trail
from migrations.run_lock import connect
from tests.guard.own_servers import Server, own_server, standby_of
from tests.guard.test_apply import HEAD
from tests.migrations.servers15 import installed_programs

PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module", params=["given", "15"])
def programs(request: pytest.FixtureRequest) -> Path | None:
    """None: the embedded server's."""
    if request.param == "given":
        return None
    found = installed_programs()
    if found is None:
        pytest.skip("PostgreSQL 15 is not installed on this machine")
    return found


@pytest.fixture(scope="module")
def primary(programs: Path | None) -> Iterator[Server]:
    more = {"max_prepared_transactions": "5", "wal_receiver_status_interval": "1s"}
    with own_server(programs, more) as server:
        yield server


@pytest.fixture
def standby(primary: Server, programs: Path | None) -> Iterator[Server]:
    with standby_of(primary, programs) as server:
        yield server


def found(url: str, folder: Path) -> list[Problem]:
    with connect(url) as connection:
        return preflight(Subject(connection, Chain(), HEAD, (), folder, bare=True))


def test_a_prepared_transaction_is_named_with_how_to_end_it(
    primary: Server, tmp_path: Path
) -> None:
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.held (id int)")
        connection.execute("BEGIN; LOCK TABLE public.held; PREPARE TRANSACTION 'forgotten'")
        options = Options(backup_folder=tmp_path / "b")
        with pytest.raises(PreflightRefused) as caught:
            Run(primary.url, options, Trail(tmp_path / "audit"), Show(print)).go()
        connection.execute("ROLLBACK PREPARED 'forgotten'")
        connection.execute("DROP TABLE public.held")
    assert caught.value.exit_code == 20
    [problem] = [p for p in caught.value.problems if p.check == "prepared"]
    assert "prepared transaction forgotten of postgres" in problem.cause
    assert "ROLLBACK PREPARED 'forgotten'" in problem.remedy


def test_a_transaction_that_is_prepared_and_committed_at_once_is_none(
    primary: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'busy'")

        def commit(seconds: float) -> None:
            connection.execute("COMMIT PREPARED 'busy'")

        monkeypatch.setattr("migrations.guard.blockers.time.sleep", commit)
        assert [p for p in found(primary.url, tmp_path) if p.check == "prepared"] == []


def test_a_standby_is_refused(primary: Server, standby: Server, tmp_path: Path) -> None:
    options = Options(backup_folder=tmp_path / "b")
    with pytest.raises(PreflightRefused) as caught:
        Run(standby.url, options, Trail(tmp_path / "audit"), Show(print)).go()
    assert caught.value.exit_code == 20
    assert str(caught.value) == "this is a standby, it only reads: give the URL of the primary"


def test_a_replica_that_keeps_up_is_no_problem_and_one_that_stands_still_is(
    primary: Server, standby: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
    with (
        psycopg.connect(primary.url, autocommit=True) as writer,
        psycopg.connect(standby.url, autocommit=True) as reader,
    ):
        until(lambda: writer.execute(streaming).fetchone() == (1,))
        assert of("replicas", primary.url, tmp_path) == []
        reader.execute("SELECT pg_wal_replay_pause()")
        writer.execute("CREATE TABLE public.much AS SELECT generate_series(1, 10000)")
        monkeypatch.setattr(blockers, "REPLICA_LAG_SECONDS", 2)
        until(lambda: bool(of("replicas", primary.url, tmp_path)))
        [problem] = of("replicas", primary.url, tmp_path)
        monkeypatch.setattr(blockers, "REPLICA_LAG_SECONDS", 3600)
        assert of("replicas", primary.url, tmp_path) == []
        # What it has not replayed counts too.
        monkeypatch.setattr(blockers, "UNREPLAYED_BYTES", 1000)
        assert len(of("replicas", primary.url, tmp_path)) == 1
        writer.execute("DROP TABLE public.much")
        reader.execute("SELECT pg_wal_replay_resume()")
    assert problem.severity == "refusal"
    assert problem.cause.startswith("replica walreceiver (streaming) is ")
    assert "pg_wal_replay_resume()" in problem.remedy


def test_a_forgotten_slot_is_a_warning(primary: Server, tmp_path: Path) -> None:
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('left', true)")
        [problem] = of("replicas", primary.url, tmp_path)
        connection.execute("SELECT pg_drop_replication_slot('left')")
    assert problem.severity == "warning"
    assert "nobody reads replication slot left" in problem.cause
    assert "pg_drop_replication_slot('left')" in problem.remedy


def of(check: str, url: str, folder: Path) -> list[Problem]:
    return [p for p in found(url, folder) if p.check == check]


def until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.2)
