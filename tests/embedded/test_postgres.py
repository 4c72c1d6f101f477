"""PostgreSQL out of the wheel: started, found, started again after any death, and gone when told."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from embedded import postgres, unprivileged
from embedded.errors import DiskFull, FolderNotUsable, PortInUse
from embedded.ports import free_port, is_in_use
from embedded.postgres import EmbeddedPostgres, running_server
from tests.embedded.conftest import processes_in

WAIT_SECONDS = 20


def value_of(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def keep(url: str, number: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", (number,))


def pid_of(server: EmbeddedPostgres) -> int:
    running = running_server(server.data_dir)
    assert running is not None
    return running.mark.pid


def test_it_listens_on_loopback_and_keeps_what_is_committed(open_folder: Path) -> None:
    with EmbeddedPostgres(open_folder / "data") as server:
        assert str(value_of(server.url, "SHOW server_version")).startswith("18.")
        assert value_of(server.url, "SHOW listen_addresses") == "127.0.0.1"
        assert value_of(server.url, "SHOW fsync") == "on"
        assert value_of(server.url, "SHOW max_connections") == "200"
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        assert is_in_use(port)
    assert not is_in_use(port)
    assert processes_in(open_folder) == []


def test_data_is_there_after_a_stop_and_a_start(open_folder: Path) -> None:
    server = EmbeddedPostgres(open_folder / "data", durable=False)
    keep(server.start(), 1)
    server.stop()
    keep(server.start(), 2)
    assert value_of(server.url, "SELECT sum(number) FROM kept") == 3
    server.stop()


def test_a_server_that_runs_on_the_folder_is_used(open_folder: Path) -> None:
    with EmbeddedPostgres(open_folder / "data", durable=False) as first:
        second = EmbeddedPostgres(open_folder / "data", durable=False)
        assert second.start() == first.url
        assert pid_of(second) == pid_of(first)


def test_it_starts_after_a_sigkill_and_lost_nothing(open_folder: Path) -> None:
    server = EmbeddedPostgres(open_folder / "data")
    keep(server.start(), 7)
    os.kill(pid_of(server), signal.SIGKILL)
    with EmbeddedPostgres(open_folder / "data") as again:
        assert value_of(again.url, "SELECT number FROM kept") == 7
    server.stop()


def test_a_pid_file_with_another_process_number_is_not_believed(open_folder: Path) -> None:
    server = EmbeddedPostgres(open_folder / "data", durable=False)
    server.start()
    server.stop()
    pid_file = server.data_dir / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{server.data_dir}\n0\n1\n\n127.0.0.1\n\nready\n")
    assert running_server(server.data_dir) is None
    with EmbeddedPostgres(open_folder / "data", durable=False) as again:
        assert pid_of(again) != os.getpid()


def test_a_cluster_cut_short_while_being_made_is_made_anew(open_folder: Path) -> None:
    (open_folder / "data.new").mkdir()
    (open_folder / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(open_folder / "data", durable=False) as server:
        assert value_of(server.url, "SELECT 1") == 1
    assert not (open_folder / "data.new").exists()


def test_a_wanted_port_in_use_is_named_with_what_to_set(
    open_folder: Path, postgres_url: str
) -> None:
    taken = psycopg.conninfo.conninfo_to_dict(postgres_url)["port"]
    with pytest.raises(PortInUse, match=f"port {taken} .* FAREBOX_POSTGRES_PORT"):
        EmbeddedPostgres(open_folder / "data", port=int(str(taken))).start()
    assert processes_in(open_folder) == []


def test_it_takes_the_wanted_port(open_folder: Path) -> None:
    port = free_port()
    with EmbeddedPostgres(open_folder / "data", port=port) as server:
        assert f":{port}/" in server.url


def test_a_folder_that_cannot_be_made_is_named(open_folder: Path) -> None:
    (open_folder / "file").write_text("")
    with pytest.raises(FolderNotUsable, match="file"):
        EmbeddedPostgres(open_folder / "file" / "data").start()


def test_a_full_disk_is_said_before_anything_is_made(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "NEEDED_BYTES", 2**62)
    with pytest.raises(DiskFull, match="free some space"):
        EmbeddedPostgres(open_folder / "data", durable=False).start()
    assert list(open_folder.glob("data*")) == []


def test_a_killed_owner_takes_the_server_with_it(open_folder: Path) -> None:
    """The tether: no orphan even when nobody could clean up."""
    code = (
        "import sys, time; from pathlib import Path; from embedded.postgres import EmbeddedPostgres\n"
        "print(EmbeddedPostgres(Path(sys.argv[1]), durable=False).start(), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(open_folder / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith("postgresql://")
        owner.kill()
    deadline = time.monotonic() + WAIT_SECONDS
    while processes_in(open_folder) and time.monotonic() < deadline:
        psutil.wait_procs([], timeout=0.05)
        time.sleep(0.05)
    assert processes_in(open_folder) == []


as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root meets folders that its servers cannot enter"
)


@as_root
def test_programs_in_a_private_folder_are_copied_to_where_the_server_can_enter(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = postgres.client_programs().parent
    package = installed.parent
    private = tmp_path / "site-packages"
    shutil.copytree(installed, private / package.name / installed.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, private / libraries.name)
    private.chmod(0o700)
    programs = private / package.name / installed.name / "bin"
    monkeypatch.setattr(postgres, "client_programs", lambda: programs)
    monkeypatch.setattr(unprivileged, "ROOT_CACHE", open_folder / "cache")
    for _ in ("copied", "found"):
        with EmbeddedPostgres(open_folder / "data", durable=False) as server:
            assert server.server_programs().is_relative_to(open_folder / "cache")
            assert value_of(server.url, "SELECT 1") == 1
    assert len(list((open_folder / "cache").iterdir())) == 1


@as_root
def test_a_private_folder_is_replaced_by_one_the_server_can_enter(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unprivileged, "ROOT_STATE", open_folder / "elsewhere")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "data", durable=False)
    try:
        assert value_of(server.start(), "SELECT 1") == 1
        assert server.data_dir.is_relative_to(open_folder / "elsewhere")
    finally:
        server.remove()
    assert not server.data_dir.exists()
