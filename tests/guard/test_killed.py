"""SIGKILL at every line of the trail, which is at every step and between all statements; then the job runs again."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migrations.guard.trail import verify
from migrations.steps import ROOT
from tests.conftest import own_database
from tests.guard.conftest import Write
from tests.migrations import storefront
from tests.migrations.test_003 import Writer
from tests.servers import Servers

UP = """
op.execute("CREATE TABLE public.x (id int)")
op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
op.execute("ALTER TABLE public.subscriptions ADD CONSTRAINT ck_x CHECK (x > 0) NOT VALID")
with op.get_context().autocommit_block():
    op.execute("ALTER TABLE public.subscriptions VALIDATE CONSTRAINT ck_x")
    op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.subscriptions (x)")
    op.execute("/* farebox: repeat */ UPDATE public.users SET email = 'x' || email WHERE id IN"
               " (SELECT id FROM public.users WHERE email NOT LIKE 'x%' LIMIT 15)")
op.execute("COMMENT ON TABLE public.x IS 'whole'")
"""
WHOLE = """
SELECT (SELECT version_num FROM public.alembic_version) = 'x01'
    AND obj_description('public.x'::regclass) = 'whole'
    AND (SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.ix_x'::regclass)
    AND (SELECT convalidated FROM pg_constraint WHERE conname = 'ck_x')
    AND NOT EXISTS (SELECT FROM public.users WHERE email LIKE 'xx%')
    AND NOT EXISTS (SELECT FROM farebox_migration.ledger WHERE closed_at IS NULL)
    AND NOT EXISTS (SELECT FROM pg_index WHERE NOT indisvalid)
"""


@pytest.fixture
def driver(on_top: Write, versions: Path) -> "Iterator[subprocess.Popen[str]]":
    on_top(UP)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.guard.killed", str(versions)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def ask(driver: "subprocess.Popen[str]", *words: object) -> int:
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(" ".join(map(str, words)) + "\n")
    driver.stdin.flush()
    return int(driver.stdout.readline())


def test_whenever_it_is_killed_the_next_run_finishes_and_no_write_is_lost(
    servers: Servers,
    unique: Iterator[str],
    driver: "subprocess.Popen[str]",
    tmp_path: Path,
) -> None:
    for at in range(1, 200):
        name, audit = f"fbx_{next(unique)}", tmp_path / f"audit{at}"
        for database in own_database(servers.ask("postgres"), servers.ask("template"), name):
            with psycopg.connect(database.url) as connection:
                storefront.fill(connection, 20)
            writer = Writer(database.url)
            thread = threading.Thread(target=writer.run)
            thread.start()
            try:
                first = ask(driver, database.url, audit, at)
                again = ask(driver, database.url, audit, 0)
            finally:
                writer.stop.set()
                thread.join()
            assert writer.errors == []
            assert again == 0, f"after a kill at line {at}"
            with psycopg.connect(database.url) as connection:
                query = "SELECT id, status FROM public.subscriptions"
                found = set(connection.execute(query).fetchall())
                assert set(writer.acknowledged.items()) <= found
                assert connection.execute(WHOLE).fetchone() == (True,), f"at line {at}"
            assert verify(audit / "trail.jsonl").problems == ()
        if first == 0:
            break
        assert first == -signal.SIGKILL
    assert at > 25
