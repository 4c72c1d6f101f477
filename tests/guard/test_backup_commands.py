"""The runbook's commands, as it types them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard import runbook
from migrations.guard.backup import backup
from migrations.guard.trail import Trail, verify
from tests.conftest import Database
from tests.guard.test_backup_faults import dumps, until
from tests.guard.test_restore import related
from tests.migrations.storefront import fill
from tests.migrations.typed import typed
from tests.servers import drop_database, url_of

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "s3cret-and-long"

Utils = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def shop(database: Database, folder: Path) -> Iterator[Database]:
    folder.mkdir()
    with psycopg.connect(database.url) as connection:
        fill(connection, 3)
    yield database
    for name in related(database):
        drop_database(url_of(database.url, "postgres"), name)


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "migration_utils.py"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.fixture
def utils(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Utils:
    """As `run`, without a process."""
    folder.mkdir(exist_ok=True)

    def say(*arguments: str) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as own:
            own.chdir(folder)
            return typed(runbook.main, arguments, {}, capsys)

    return say


def test_the_runbook_from_backup_to_restore(shop: Database, folder: Path) -> None:
    url = shop.url.replace("@", f":{SECRET}@", 1)
    made = run(folder, "--database-url", url, "backup", "--name", "pre_migration_manual")
    assert made.returncode == 0, made.stderr
    assert "restored and compared" in made.stdout
    path = made.stdout.split()[0]
    assert path.startswith("backups/pre_migration_manual-")

    whole = run(folder, "--database-url", url, "validate")
    assert whole.returncode == 0, whole.stderr
    listed = run(folder, "--database-url", url, "list")
    assert listed.stdout == made.stdout

    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO public.users (email) VALUES ('new@example.org')")
    refused = run(folder, "--database-url", url, "restore", path)
    assert refused.returncode == 20
    assert "added: " in refused.stderr
    assert '--give-up-writes "1 row in public.users"' in refused.stderr
    typed = ("--give-up-writes", "1 row in public.users")
    done = run(folder, "--database-url", url, "restore", f"{path}/manifest.json", *typed)
    assert done.returncode == 0, done.stderr
    assert f"is kept as {shop.name}_before_restore_" in done.stdout
    with psycopg.connect(shop.url) as connection:
        assert connection.execute("SELECT count(*) FROM public.users").fetchone() == (3,)

    said = "".join(each.stdout + each.stderr for each in (made, whole, listed, refused, done))
    trail = folder / "migration-audit" / "trail.jsonl"
    assert SECRET not in said + trail.read_text()
    assert verify(trail).problems == ()


def test_a_script_reads_what_would_be_lost(
    shop: Database, folder: Path, tmp_path: Path, utils: Utils
) -> None:
    made = backup(shop.url, folder, "x", trail=Trail(tmp_path / "trail"))
    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO public.users (email) VALUES ('a'), ('b')")
    refused = utils("--json", "--database-url", shop.url, "restore", str(made.path))
    told = json.loads(refused.stdout)
    assert told["phrase"] == "2 rows in public.users"
    assert (told["writes"][0]["table"], told["writes"][0]["rows"]) == ("public.users", 2)


def test_backups_are_listed_pinned_and_pruned(
    shop: Database, folder: Path, tmp_path: Path, utils: Utils
) -> None:
    trail = Trail(tmp_path / "trail")
    paths = [backup(shop.url, folder / "b", f"n{n}", trail=trail).path for n in range(3)]
    common = ("--folder", str(folder / "b"))
    assert utils(*common, "pin", str(paths[0]), "--reason", "look").returncode == 0
    pruned = utils(*common, "prune", "--keep", "1", "--json")
    assert json.loads(pruned.stdout) == [str(paths[1])]
    rows = json.loads(utils(*common, "list", "--json").stdout)
    assert [(each["name"], each["pinned"]) for each in rows] == [("n0", "look"), ("n2", None)]
    assert utils(*common, "unpin", str(paths[0])).returncode == 0
    assert "; pinned: " not in utils(*common, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("validate",), 2, "say --database-url URL or set DATABASE_URL"),
        (("--database-url", f"host=x password={SECRET}", "validate"), 2, "not a database URL"),
        (("--database-url", "postgresql://x@127.0.0.1:1/x", "validate"), 3, "cannot reach"),
        (("--database-url", "postgresql://x@y/z", "restore", "gone"), 22, "gone is not there"),
        (("--database-url", "postgresql://x@y/z", "restore", "a.sql"), 22, "not made by `backup`"),
        (("--database-url", "postgresql://x@y/z", "restore", "bad"), 22, "it is damaged"),
        (
            ("--database-url", "postgresql://x@y/z", "restore", "."),
            22,
            "folder of backups: name one",
        ),
        (
            ("--database-url", "postgresql://x@y/z", "backup", "--name", "a/b"),
            2,
            "is no name for a",
        ),
        (("prune", "--keep", "0"), 2, "keep at least 1"),
        (("reopen",), 2, "say --database-url URL or set DATABASE_URL"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    folder: Path, arguments: tuple[str, ...], code: int, words: str, utils: Utils
) -> None:
    (folder / "a.sql").write_text("SELECT 1")
    (folder / "bad").mkdir(exist_ok=True)
    (folder / "bad" / "manifest.json").write_text('{"version": 1, "na')
    done = utils(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr


def test_as_a_program_too_it_says_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "validate")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "say --database-url URL or set DATABASE_URL" in done.stderr


def test_a_damaged_backup_is_told_and_hides_no_other(
    shop: Database, folder: Path, tmp_path: Path, utils: Utils
) -> None:
    common = ("--folder", str(folder / "b"))
    assert "there is none in" in utils(*common, "list").stdout
    trail = Trail(tmp_path / "trail")
    paths = [backup(shop.url, folder / "b", f"n{n}", trail=trail).path for n in range(3)]
    (paths[1] / "manifest.json").write_bytes(b'{"version": 1, "na\xff')
    next((paths[2] / "data").glob("*.gz")).write_bytes(b"")
    listed = utils(*common, "list")
    assert listed.returncode == 22
    first, second, third = listed.stdout.splitlines()
    assert first.startswith(f"{paths[0]}  ")
    assert second == f"DAMAGED: {paths[1]}/manifest.json cannot be read: it is damaged"
    assert third.startswith(f"DAMAGED: {paths[2]} is damaged: ")
    assert "has 0 bytes instead of" in third
    told = json.loads(utils(*common, "list", "--json").stdout)
    assert [each.get("damaged") is None for each in told] == [True, False, False]
    # What is damaged does not count as the newest that are kept.
    assert json.loads(utils(*common, "prune", "--keep", "1", "--json").stdout) == []
    assert all(each.exists() for each in paths)


def test_a_database_that_was_left_shut_is_opened(
    shop: Database, folder: Path, utils: Utils
) -> None:
    with psycopg.connect(url_of(shop.url, "postgres"), autocommit=True) as control:
        control.execute(f'ALTER DATABASE "{shop.name}" ALLOW_CONNECTIONS false'.encode())
    shut = utils("--database-url", shop.url, "validate")
    assert shut.returncode == 3
    assert "migration_utils.py reopen" in shut.stderr
    opened = utils("--database-url", shop.url, "reopen")
    assert (opened.returncode, opened.stdout) == (0, f"{shop.name} takes connections\n")
    assert utils("--database-url", shop.url, "validate").returncode == 0
    again = utils("--database-url", shop.url, "reopen", "--json")
    assert json.loads(again.stdout) == {"reopened": False}


def test_a_stopped_backup_leaves_nothing(shop: Database, folder: Path) -> None:
    """SIGTERM, as from a container that is taken away."""
    with (
        psycopg.connect(shop.url, autocommit=True) as watcher,
        psycopg.connect(shop.url) as blocker,
    ):
        blocker.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
        with subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "migration_utils.py"),
                "--database-url",
                shop.url,
                "backup",
            ],
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            stderr=subprocess.PIPE,
            text=True,
        ) as job:
            until(lambda: dumps(watcher, shop.name) > 0)
            job.terminate()
            _, said = job.communicate(timeout=30)
    assert job.returncode == 130
    assert said.splitlines()[-1] == "migration_utils.py: interrupted; nothing half made was kept"
    assert list((folder / "backups").iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("migration_utils.py", "--database-url", "{}", "validate"),
        ("run_migration.py", "--database-url={}"),
        ("-m", "cli", "migrate", "lint", "a.sql", "--database-url", "{}"),
    ],
    ids=["utils", "run", "lint"],
)
def test_a_typed_password_is_not_in_the_list_of_processes(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "a.sql").write_text("SELECT 1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/d"
        program = [str(ROOT / each) if each.endswith(".py") else each for each in command]
        with subprocess.Popen(
            [sys.executable, *(each.format(url) for each in program)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            # It knows the password, for it asks for the server.
            silent.settimeout(30)
            asking, _ = silent.accept()
            shown = subprocess.run(
                ["ps", "-ww", "-o", "args=", "-p", str(process.pid)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            asking.close()
            _, said = process.communicate(timeout=30)
    assert "postgresql://u:***@127.0.0.1:" in shown
    assert SECRET not in shown + said
    assert process.returncode == 3
    assert "cannot reach the database" in said
