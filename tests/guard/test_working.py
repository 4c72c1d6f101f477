"""Whoever waits for an index or a backfill sees how far it is; the trail tells it now and then."""

import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from rich.console import Console

from migrations.guard.apply import Applier
from migrations.guard.progress import shown
from migrations.guard.trail import Trail, entries
from migrations.guard.watch import Watcher
from migrations.guard.working import Told, rows_of
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.guard.test_apply import BACKFILL, HEAD, fill

Look = Callable[[str], object]
Line = tuple[str, str, int, int]
# Large enough to be looked at several times while it is read.
ROWS = 300_000
BUILD = """
with op.get_context().autocommit_block():
    op.execute("CREATE INDEX CONCURRENTLY ix_boxes ON public.boxes (md5(id::text || note))")
"""


@pytest.fixture
def told() -> list[Line]:
    return []


@pytest.fixture
def telling(
    database: Database, job: Connection, trail: Trail, said: list[str], told: list[Line]
) -> Iterator[Applier]:
    def tell(what: str, phase: str, done: int, expected: int) -> None:
        told.append((what, phase, done, expected))

    watcher = Watcher(database.url, tell)
    try:
        yield Applier(job, watcher, trail, IMPATIENT, said.append, progress=tell)
    finally:
        watcher.close()


def test_an_index_build_tells_whom_it_waits_for_and_what_it_has_read(
    database: Database, on_top: Write, telling: Applier, told: list[Line]
) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute(
            "CREATE TABLE public.boxes AS SELECT id, repeat('x', 100) AS note"
            f" FROM generate_series(1, {ROWS}) AS id".encode()
        )
    with psycopg.connect(database.url) as writer:
        writer.execute("INSERT INTO public.boxes VALUES (0, 'not yet committed')")

        def end_when_waited_for() -> None:
            deadline = time.monotonic() + 20
            while not told and time.monotonic() < deadline:
                time.sleep(0.01)
            writer.commit()

        thread = threading.Thread(target=end_when_waited_for)
        thread.start()
        telling.apply(on_top(BUILD).upgrade(HEAD))
        thread.join()
    assert {what for what, *_ in told} == {"index ix_boxes"}
    assert told[0][1:] == ("waiting for writers before build", 0, 1)
    built = [line for line in told if not line[1].startswith("waiting")]
    assert all(0 <= done <= expected for _, _, done, expected in built)
    assert any(0 < done < expected for _, _, done, expected in built)
    done = [done for _, phase, done, _ in built if phase == built[0][1]]
    assert done == sorted(done)


def test_a_backfill_tells_its_rows_also_when_it_goes_on(
    database: Database, on_top: Write, telling: Applier, told: list[Line], said: list[str]
) -> None:
    fill(database.url, 20)
    telling.connection.execute("ANALYZE public.subscriptions")
    steps = on_top(BACKFILL).upgrade(HEAD)
    batches = [0]

    def cut(seconds: float) -> None:
        batches[0] += 1
        if batches[0] == 2:
            raise KeyboardInterrupt

    telling.sleep = cut
    with pytest.raises(KeyboardInterrupt):
        telling.apply(steps)
    telling.sleep = lambda seconds: None
    telling.apply(steps)
    what = "backfill x01"
    assert told == [(what, "rows", n, 20) for n in (7, 14, 20)] + [(what, "all rows", 20, 20)]
    assert len([line for line in said if line.endswith(" rows")]) == 1


def test_what_a_statement_writes_to_is_counted_without_reading_it(
    database: Database, job: Connection
) -> None:
    fill(database.url, 20)
    job.execute("ANALYZE public.users")
    assert rows_of(job, "UPDATE ONLY public.users SET email = 1") == 20
    assert rows_of(job, "DELETE FROM public.users WHERE true") == 20
    assert rows_of(job, 'UPDATE public."not there" SET x = 1') == 0
    assert rows_of(job, "SELECT public.fill(100)") == 0
    assert not job.broken


def test_the_trail_tells_it_now_and_then(tmp_path: Path) -> None:
    trail, now, bars = Trail(tmp_path), [0.0], list[Line]()
    told = Told(trail, lambda *line: bars.append(line), clock=lambda: now[0])
    for second in range(0, 95, 5):
        now[0] = second
        told("index ix_x", "scanning table", second, 100)
    assert len(bars) == 19
    lines = [each for each in entries(trail.path) if each["kind"] == "working"]
    assert [each["done"] for each in lines] == [30, 60, 90]
    assert lines[0]["what"] == "index ix_x"


def test_a_bar_counts_on_a_terminal_and_is_quiet_elsewhere() -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    pipe = Console(file=StringIO())
    for console in (terminal, pipe):
        with shown(console) as bars:
            bars.count("index ix_x", "waiting for writers before build", 0, 0)
            bars.count("index ix_x", "scanning table", 1200, 4000)
    assert isinstance(terminal.file, StringIO)
    assert "index ix_x: scanning table" in terminal.file.getvalue()
    assert "1,200/4,000" in terminal.file.getvalue()
    assert isinstance(pipe.file, StringIO)
    assert pipe.file.getvalue() == ""
