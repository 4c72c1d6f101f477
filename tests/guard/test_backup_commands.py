"""The runbook's commands, as it types them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard.backup import backup
from migrations.guard.trail import Trail, verify
from tests.conftest import Database
from tests.guard.test_restore import related
from tests.migrations.storefront import fill
from tests.servers import drop_database, url_of

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "s3cret-and-long"


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


def test_a_script_reads_what_would_be_lost(shop: Database, folder: Path, tmp_path: Path) -> None:
    made = backup(shop.url, folder, "x", trail=Trail(tmp_path / "trail"))
    with psycopg.connect(shop.url) as connection:
        connection.execute("INSERT INTO public.users (email) VALUES ('a'), ('b')")
    refused = run(folder, "--json", "--database-url", shop.url, "restore", str(made.path))
    told = json.loads(refused.stdout)
    assert told["phrase"] == "2 rows in public.users"
    assert (told["writes"][0]["table"], told["writes"][0]["rows"]) == ("public.users", 2)


def test_backups_are_listed_pinned_and_pruned(shop: Database, folder: Path, tmp_path: Path) -> None:
    trail = Trail(tmp_path / "trail")
    paths = [backup(shop.url, folder / "b", f"n{n}", trail=trail).path for n in range(3)]
    common = ("--folder", str(folder / "b"))
    assert run(folder, *common, "pin", str(paths[0]), "--reason", "look").returncode == 0
    pruned = run(folder, *common, "prune", "--keep", "1", "--json")
    assert json.loads(pruned.stdout) == [str(paths[1])]
    rows = json.loads(run(folder, *common, "list", "--json").stdout)
    assert [(each["name"], each["pinned"]) for each in rows] == [("n0", "look"), ("n2", None)]
    assert run(folder, *common, "unpin", str(paths[0])).returncode == 0
    assert "; pinned: " not in run(folder, *common, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("validate",), 2, "say --database-url URL or set DATABASE_URL"),
        (("--database-url", f"host=x password={SECRET}", "validate"), 2, "not a database URL"),
        (("--database-url", "postgresql://x@127.0.0.1:1/x", "validate"), 3, "cannot reach"),
        (("--database-url", "postgresql://x@y/z", "restore", "gone"), 22, "gone is not there"),
        (("--database-url", "postgresql://x@y/z", "restore", "a.sql"), 22, "not made by `backup`"),
        (("--database-url", "postgresql://x@y/z", "restore", "bad"), 22, "it is damaged"),
        (("prune", "--keep", "0"), 22, "keep at least 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "a.sql").write_text("SELECT 1")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "manifest.json").write_text('{"version": 1, "na')
    done = run(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr


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
