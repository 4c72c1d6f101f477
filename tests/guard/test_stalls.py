"""Nobody waits behind a step for longer than the limit: however many locks it waits for, and however long it works."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from migrations.guard.apply import Applier, TableBusy
from migrations.guard.statements import PlannedStep
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT

Look = Callable[[str], object]
PARTS = 5
LIMIT_MS = 400
PATIENT = replace(
    IMPATIENT,
    stall_lock_timeout_ms=LIMIT_MS,
    stall_limit_ms=LIMIT_MS,
    batch_stall_limit_ms=LIMIT_MS,
)
# Of a machine that does other things too; without the limit, each wait below is longer than both together.
SLOWNESS_MS = 350
ADDED = (
    "SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.parted'::regclass AND attname = 'x'"
)


@contextmanager
def writing(url: str, statement: str) -> Iterator[list[float]]:
    """The milliseconds that each write took."""
    took: list[float] = []
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                started = time.monotonic()
                connection.execute(statement.encode())
                took.append((time.monotonic() - started) * 1000)
                stop.wait(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield took
    finally:
        stop.set()
        writer.join()


@contextmanager
def held_in_turn(url: str, seconds: float) -> Iterator[None]:
    """All parts but the first; each for `seconds` longer than the one before."""
    holders = [psycopg.connect(url, application_name="report") for _ in range(1, PARTS)]
    for part, holder in enumerate(holders, 1):
        holder.execute(f"LOCK TABLE public.part_{part} IN ROW EXCLUSIVE MODE".encode())

    def release() -> None:
        for holder in holders:
            time.sleep(seconds)
            holder.close()

    thread = threading.Thread(target=release)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def parted(database: Database, look: Look) -> str:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.parted (id int, part int) PARTITION BY LIST (part)")
        for part in range(PARTS):
            make = (
                f"CREATE TABLE public.part_{part} PARTITION OF public.parted FOR VALUES IN ({part})"
            )
            connection.execute(make.encode())
        connection.execute("INSERT INTO public.parted SELECT 1, 0")
    return database.url


def test_waits_for_one_lock_after_another_do_not_add_up_for_those_behind(
    parted: str, applier: Applier, said: list[str], look: Look
) -> None:
    applier.policy = replace(PATIENT, attempts=30)
    add = PlannedStep("x01", "", 1, ("ALTER TABLE public.parted ADD COLUMN x int",), True)
    with (
        writing(parted, "INSERT INTO public.part_0 (id, part) VALUES (1, 0)") as took,
        held_in_turn(parted, LIMIT_MS * 0.8 / 1000),
    ):
        applier.apply([add])
    assert max(took) < LIMIT_MS + SLOWNESS_MS
    cancelled = [each for each in said if "cancelled: others had waited 0.4 s behind it" in each]
    assert cancelled
    assert "in the way: process" in cancelled[0]
    assert look(ADDED) == 1


WORKS = {
    "a transaction": ("ALTER TABLE public.parted ADD COLUMN x int", "SELECT pg_sleep(1.5)"),
    "many short statements": (
        "ALTER TABLE public.parted ADD COLUMN x int",
        *["SELECT pg_sleep(0.03)"] * 50,
    ),
    "a write by itself": ("UPDATE public.parted SET id = 2 RETURNING pg_sleep(1.5)",),
    "a batch": (
        "/* farebox: repeat */ UPDATE public.parted SET id = 2 WHERE id = 1 RETURNING pg_sleep(1.5)",
    ),
}


@pytest.mark.parametrize("kind", WORKS)
def test_what_works_too_long_for_those_behind_is_cancelled_and_says_so(
    parted: str, applier: Applier, look: Look, kind: str
) -> None:
    applier.policy = replace(PATIENT, attempts=2)
    step = PlannedStep("x01", "", 1, WORKS[kind], kind in list(WORKS)[:2])
    with (
        writing(parted, "UPDATE public.part_0 SET part = 0") as took,
        pytest.raises(
            TableBusy, match=r"cancelled in 2 attempts, as others had waited 0\.\d s behind"
        ),
    ):
        applier.apply([step])
    assert LIMIT_MS * 0.8 < max(took) < LIMIT_MS + SLOWNESS_MS
    assert look(ADDED) == 0
    assert look("SELECT max(id) FROM public.parted") == 1


def test_where_nobody_waits_it_may_work_for_longer(
    parted: str, applier: Applier, look: Look
) -> None:
    applier.policy = replace(PATIENT, attempts=1)
    work = ("ALTER TABLE public.parted ADD COLUMN x int", "SELECT pg_sleep(0.8)")
    applier.apply([PlannedStep("x01", "", 1, work, True)])
    assert look(ADDED) == 1
