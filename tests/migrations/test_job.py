"""`python run_migration.py`: what a person or a pipeline sees of it."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import make_url

from migrations import after
from migrations.faults import CannotReach
from migrations.guard.exits import ExitCode
from migrations.job import main
from migrations.run_lock import LOCK_KEY
from shared.events import TOPICS
from shared.schema import OLDER_REVISIONS, WANTED_REVISION
from shared.settings import Settings
from shared.topics import topic_name
from tests.conftest import Database, delete_topics
from tests.migrations.conftest import ROOT, upgrade
from tests.migrations.typed import typed

SECRET = "s3cret-and-long"
Job = Callable[..., "subprocess.CompletedProcess[str]"]
FOLDERS: dict[str, str] = {}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trail and backups of each test's own."""
    for name in ("FAREBOX_AUDIT_DIR", "FAREBOX_BACKUP_DIR"):
        monkeypatch.setitem(FOLDERS, name, str(tmp_path / name))


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command itself, in an environment of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run_migration.py"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "COLUMNS": "200"} | FOLDERS | environment,
    )


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str]) -> Job:
    """As `run`, without a process."""

    def say(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return typed(main, arguments, {"COLUMNS": "200"} | FOLDERS | environment, capsys)

    return say


def revision(url: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
    return row[0] if row else None


def test_it_brings_an_empty_database_to_head_and_may_be_run_again(
    fresh: Database, job: Job
) -> None:
    first = run("--database-url", fresh.url)
    assert first.returncode == 0, first.stderr
    assert revision(fresh.url) == WANTED_REVISION
    assert "default price version 1 created" in first.stderr
    assert "KAFKA_BOOTSTRAP_SERVERS is not set" in first.stderr
    assert "remove old backups: migrate prune --keep 3" in " ".join(first.stderr.split())
    again = run("--database-url", fresh.url)
    assert again.returncode == 0
    detailed = job("--database-url", fresh.url, "--detailed-exit-code")
    assert detailed.returncode == ExitCode.NOTHING_TO_DO
    assert "already" in again.stderr
    assert "next: deploy" not in again.stderr
    with psycopg.connect(fresh.url) as connection:
        found = connection.execute("SELECT count(*) FROM pricing.pricing_configs").fetchone()
    assert found == (1,)


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    empty_database: Database, job: Job
) -> None:
    said = job("--database-url", empty_database.url, "--dry-run")
    assert said.returncode == 0
    assert "would run d6d022bcff3b merge search and inventory heads" in said.stderr
    assert f"would run {WANTED_REVISION}" in said.stderr
    assert re.search(r"locks on new .*public\.subscriptions", said.stdout)
    with psycopg.connect(empty_database.url) as connection:
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(query).fetchone() == (0,)


def test_services_want_the_revision_that_is_head() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))
    known = {script.revision for script in scripts.walk_revisions()}
    assert scripts.get_heads() == [WANTED_REVISION]
    assert known - {WANTED_REVISION} == OLDER_REVISIONS


@pytest.fixture
async def prefix(kafka_servers: str, unique: Iterator[str]) -> AsyncIterator[str]:
    name = f"t{next(unique).replace('_', '-')}"
    yield name
    await delete_topics(kafka_servers, name)


async def test_it_creates_the_topics(database: Database, kafka_servers: str, prefix: str) -> None:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": prefix,
        "FAREBOX_TOPIC_PARTITIONS": "2",
    }
    done = run("--database-url", database.url, **environment)
    assert done.returncode == 0, done.stderr
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers)
    await admin.start()
    try:
        described = await admin.describe_topics([topic_name(prefix, topic) for topic in TOPICS])
    finally:
        await admin.close()
    assert [len(each["partitions"]) for each in described] == [2] * len(TOPICS)


def test_a_broker_that_is_away_is_named(database: Database) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{held.getsockname()[1]}"
        settings = Settings(database_url=database.url, kafka_bootstrap_servers=nowhere)
        with pytest.raises(CannotReach, match=nowhere):
            after.topics(settings, patience_seconds=2.0)


@pytest.fixture
def own_role(database: Database) -> Iterator[str]:
    """A role of this test's alone: the services' roles belong to the whole server."""
    role = f"{database.name}_app"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        yield role
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_role_gets_the_password_its_url_carries_and_nobody_sees_it(
    database: Database, own_role: str, job: Job
) -> None:
    url = make_url(database.url).set(username=own_role, password=SECRET)
    given = url.render_as_string(hide_password=False)
    done = job("--database-url", database.url, LOYALTY_DATABASE_URL=given)
    assert done.returncode == 0, done.stderr
    assert f"password of role {own_role} set" in done.stderr
    assert SECRET not in done.stderr + done.stdout
    with psycopg.connect(database.url) as connection:
        query = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"
        row = connection.execute(query, (own_role,)).fetchone()
    assert row is not None
    assert str(row[0]).startswith("SCRAM-SHA-256$")


def test_a_password_never_travels_in_a_statement(database: Database, own_role: str) -> None:
    url = make_url(database.url).set(username=own_role, password=SECRET)
    given = url.render_as_string(hide_password=False)
    settings = Settings(database_url=database.url, loyalty_database_url=given)
    with (
        psycopg.connect(database.url, autocommit=True) as job,
        psycopg.connect(database.url) as watcher,
    ):
        assert list(after.set_passwords(job, settings)) == [f"password of role {own_role} set"]
        query = "SELECT query FROM pg_stat_activity WHERE pid = %s"
        row = watcher.execute(query, (job.info.backend_pid,)).fetchone()
    assert row is not None
    assert "SCRAM-SHA-256$" in row[0]
    assert SECRET not in row[0]


def test_a_password_that_cannot_be_set_is_said_loudly(database: Database, job: Job) -> None:
    url = make_url(database.url).set(username="nobody_at_all", password=SECRET)
    given = url.render_as_string(hide_password=False)
    done = job("--database-url", database.url, LOYALTY_DATABASE_URL=given)
    assert "WARNING: the password of role nobody_at_all was not set" in done.stderr
    assert SECRET not in done.stderr


def test_a_second_job_names_the_first_and_leaves_with_the_retryable_code(
    database: Database, job: Job
) -> None:
    with psycopg.connect(database.url, autocommit=True, application_name="first") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        second = job("--database-url", database.url, "--lock-wait", "0")
        assert second.returncode == 4
        assert f"process {holder.info.backend_pid} of postgres (first)" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1


def test_a_second_job_waits_for_the_first(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        outcome: list[int] = []
        second = threading.Thread(
            target=lambda: outcome.append(run("--database-url", database.url).returncode)
        )
        second.start()
        waits_for(database.url)
        assert outcome == []
        holder.execute("SELECT pg_advisory_unlock(%s)", (LOCK_KEY,))
        second.join(60)
    assert outcome == [0]


def waits_for(url: str) -> None:
    """Until a second job has asked for the lock."""
    asked = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'farebox-migrate%' AND query LIKE '%advisory%'"
    )
    deadline = time.monotonic() + 30
    with psycopg.connect(url, autocommit=True) as watcher:
        while watcher.execute(asked).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_table_in_use_is_waited_for_in_turns(empty_database: Database) -> None:
    """The storefront's transaction ends between two attempts, and no statement of its waited behind us for long."""
    upgrade(empty_database.url, "d6d022bcff3b")
    with psycopg.connect(empty_database.url) as storefront:
        storefront.execute("LOCK TABLE public.subscriptions IN ROW EXCLUSIVE MODE")
        outcome: list[subprocess.CompletedProcess[str]] = []
        job = threading.Thread(
            target=lambda: outcome.append(run("--database-url", empty_database.url))
        )
        job.start()
        until_refused(empty_database.url)
        storefront.commit()
        job.join(90)
    assert outcome[0].returncode == 0, outcome[0].stderr
    assert "attempt 1 of" in outcome[0].stderr


def until_refused(url: str) -> None:
    """Until the job has queued for the table, and left the queue again."""
    # Other tests wait for tables of their own databases.
    queued = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as watcher:
        for wanted in (True, False):
            while bool((watcher.execute(queued).fetchone() or (0,))[0]) is not wanted:
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        ((), {}, 2, "say --database-url URL or set DATABASE_URL"),
        (("--database-url", f"pg//x:{SECRET}@h"), {}, 2, "this is not a database URL"),
        (("--database-url", f"mysql://u:{SECRET}@h/d"), {}, 2, "this is not a database URL"),
        (("--database-url", f"postgresql://u:{SECRET}@127.0.0.1:1/d"), {}, 3, "cannot reach"),
        (
            ("--database-url", "postgresql://u@127.0.0.1:1/d"),
            {"FAREBOX_TIME_ZONE": "Mars/Olympus"},
            2,
            "FAREBOX_TIME_ZONE",
        ),
    ],
    ids=["no url", "no scheme", "another database", "nobody listens", "bad environment"],
)
def test_what_is_wrong_is_one_line_and_a_code(
    arguments: tuple[str, ...], environment: dict[str, str], code: int, said: str, job: Job
) -> None:
    done = job(*arguments, **environment)
    assert done.returncode == code
    assert said in done.stderr
    assert SECRET not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_database_that_does_not_exist_is_named(postgres_url: str, job: Job) -> None:
    url = make_url(postgres_url).set(database="fbx_no_such_database")
    done = job("--database-url", url.render_as_string(hide_password=False))
    assert done.returncode == 3
    assert "fbx_no_such_database" in done.stderr


def test_a_name_in_the_way_is_told_before_anything_is_tried(
    empty_database: Database, job: Job
) -> None:
    upgrade(empty_database.url, "d6d022bcff3b")
    with psycopg.connect(empty_database.url) as connection:
        connection.execute("CREATE SCHEMA loyalty")
    done = job("--database-url", empty_database.url)
    assert done.returncode == ExitCode.REFUSED_BY_PREFLIGHT
    assert 'schema "loyalty" already exists' in done.stderr
    assert revision(empty_database.url) == "d6d022bcff3b"
    with psycopg.connect(empty_database.url) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pricing'"
        assert connection.execute(query).fetchone() == (0,)


def test_a_database_newer_than_this_release_is_left_alone(database: Database, job: Job) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("UPDATE public.alembic_version SET version_num = 'from_the_future'")
    done = job("--database-url", database.url)
    assert done.returncode == ExitCode.REFUSED_BY_PREFLIGHT
    assert "from_the_future" in done.stderr
