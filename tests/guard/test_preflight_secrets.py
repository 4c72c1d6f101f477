"""Passwords: typed by a person, and nowhere afterwards.  Everything a whole run leaves and shows is searched."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from tests.conftest import Database
from tests.migrations import storefront
from tests.migrations.conftest import ROOT, upgrade
from tests.migrations.test_003 import BEFORE

# As a person would choose it: with what must be written percent-encoded in a URL.
PASSWORD = "c0rrect:horse/b@ttery#5%"
SPELLINGS = (
    PASSWORD,
    "c0rrect%3Ahorse%2Fb%40ttery%235%25",
    "c0rrect:horse",
    "ttery#5",
    "ttery%235",
)
ROLES_PASSWORD = "loyal-and-s3cret"


@pytest.fixture
def shop(empty_database: Database) -> Iterator[Database]:
    """As the storefront left it; `url` carries a password, and the password is the role's."""
    upgrade(empty_database.url, BEFORE)
    role = f"{empty_database.name}_owner"
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        storefront.fill(connection, 20)
        create = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}")
        connection.execute(create.format(sql.Identifier(role), sql.Literal(PASSWORD)))
        url = make_url(empty_database.url).set(username=role, password=PASSWORD)
        # What the server still shows of this session is our own doing.
        connection.execute("SELECT 1")
        yield Database(empty_database.name, url.render_as_string(hide_password=False))
        connection.execute(
            sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(role))
        )
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


class Eyes(threading.Thread):
    """Looks at every command line, and at what the server shows of its sessions, all the time."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.done = threading.Event()
        self.lines: dict[bytes, int] = {}
        self._watcher = psycopg.connect(url, autocommit=True)

    def run(self) -> None:
        own = os.getpid()
        while not self.done.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if int(path.parent.name) != own:
                    self.lines[line] = self.lines.get(line, 0) + 1
            for query, name in self._watcher.execute(
                "SELECT query, application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            ):
                self.lines[f"{query} {name}".encode()] = 1
        self._watcher.close()

    def saw(self, secret: str) -> list[bytes]:
        return [line for line in self.lines if secret.encode() in line]


def test_a_whole_run_shows_no_password_anywhere(
    shop: Database, empty_database: Database, tmp_path: Path
) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("this system has no /proc to read command lines from")
    folders = {name: str(tmp_path / name) for name in ("FAREBOX_AUDIT_DIR", "FAREBOX_BACKUP_DIR")}
    services = make_url(empty_database.url).set(username="loyalty_app", password=ROLES_PASSWORD)
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": shop.url,
        "LOYALTY_DATABASE_URL": services.render_as_string(hide_password=False),
        "FAREBOX_SCRATCH_DATABASE_URL": shop.url,
    }
    eyes = Eyes(empty_database.url)
    eyes.start()
    said: list[str] = []
    try:
        for command in (
            ("run_migration.py",),
            ("migration_utils.py", "backup", "--name", "after"),
            ("migration_utils.py", "list", "--json"),
            ("-m", "cli", "migrate", "history"),
        ):
            done = subprocess.run(
                [sys.executable, *command],
                check=False,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment | folders,
            )
            assert done.returncode == 0, done.stderr
            said += [done.stdout, done.stderr]
    finally:
        eyes.done.set()
        eyes.join()
    # They did look.
    assert eyes.saw("pg_dump")
    assert eyes.saw("pg_restore")
    assert eyes.saw("run_migration.py")
    with psycopg.connect(empty_database.url) as connection:
        tables = ("ledger", "runs")
        said += [
            str(row)
            for table in tables
            for row in connection.execute(
                sql.SQL("SELECT t::text FROM {} t").format(
                    sql.Identifier("farebox_migration", table)
                )
            )
        ]
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {"trail.jsonl", "migration.log", "manifest.json"} <= {each.name for each in files}
    for secret in (*SPELLINGS, ROLES_PASSWORD):
        assert eyes.saw(secret) == []
        assert [each for each in said if secret in each] == []
        assert [each for each in files if secret.encode() in each.read_bytes()] == []


def test_a_wrong_password_is_not_repeated_by_the_one_it_is_wrong_for(
    shop: Database, tmp_path: Path
) -> None:
    """Whatever the server says of it: the line, the trail and the log hold none."""
    for given in (
        shop.url.replace(make_url(shop.url).username or "", "nobody_at_all"),
        shop.url.replace("%40", "@"),
        f"{shop.url}?colour=red",
        f"{shop.url}?sslmode=require",
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_migration.py"), "--database-url", given],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode in (2, 3), done.stderr
        assert done.stderr.count("\n") == 1
        for secret in SPELLINGS:
            assert secret not in done.stdout + done.stderr
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert [s for s in SPELLINGS if s.encode() in file.read_bytes()] == []
