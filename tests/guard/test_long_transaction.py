"""Somebody holds the table for long: the run waits in short attempts, says who it is, and ends well once it may."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from migrations.guard.exits import ExitCode
from migrations.guard.policy import Policy
from migrations.guard.run import Options, Run, Show
from migrations.guard.trail import Trail, entries
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_apply import fill
from tests.guard.test_stalls import writing

Look = Callable[[str], object]
# The limits that are in force outside of tests, and shorter pauses between them.
POLICY = replace(Policy(), attempts=60, first_pause_seconds=0.2, longest_pause_seconds=0.3)
ATTEMPTS = 3
PROMISED_MS = POLICY.stall_lock_timeout_ms + 100
# What a busy machine adds for the client that writes; the server's own figures have none of it.
SLOWNESS_MS = 500
WAITS = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000), 0)::float
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND a.query LIKE 'UPDATE public.subscriptions SET status%'
"""


@contextmanager
def longest_wait(url: str) -> Iterator[list[float]]:
    """Milliseconds that the writer had stood in the queue whenever it was looked at; the last is the longest."""
    found, stop = [0.0], threading.Event()

    def look() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.wait(0.01):
                row = connection.execute(WAITS).fetchone()
                found.append(max(found[-1], row[0] if row else 0.0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def busy(trail: Trail) -> list[dict[str, object]]:
    return [each for each in entries(trail.path) if each["kind"] == "lock_busy"]


def test_who_holds_the_table_is_named_and_no_writer_waits_longer_than_promised(
    database: Database, on_top: Write, versions: Path, trail: Trail, tmp_path: Path, look: Look
) -> None:
    fill(database.url)
    on_top('op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")')
    options = Options(backup_folder=tmp_path / "backups", policy=POLICY, more_versions=versions)
    holder = psycopg.connect(database.url, application_name="year's report")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("rehearsed"):
            holder.execute("SELECT count(*) FROM public.subscriptions")
        if len(busy(trail)) == ATTEMPTS:
            holder.close()

    started = time.monotonic()
    with (
        longest_wait(database.url) as waited,
        writing(database.url, "UPDATE public.subscriptions SET status = status") as took,
    ):
        result = Run(database.url, options, trail, Show(say)).go()
    assert result.code is ExitCode.DONE
    assert look("SELECT count(*) FROM pg_attribute WHERE attname = 'x' AND attnum > 0") == 1
    tried = busy(trail)
    assert len(tried) == ATTEMPTS, time.monotonic() - started
    for each in tried:
        assert "(year's report), idle in transaction" in str(each["blockers"])
        assert "SELECT count(*) FROM public.subscriptions" in str(each["blockers"])
    assert len([text for text in said if "in the way: process" in text]) == ATTEMPTS
    # It did wait, each time almost as long as it may; and never longer.
    assert POLICY.stall_lock_timeout_ms * 0.6 < waited[-1] < PROMISED_MS
    assert max(took) < PROMISED_MS + SLOWNESS_MS
