"""The migration's benchmark on few rows: it measures what it says, so that its figures can be believed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from bench.migrate import Answers, Bench, results, traffic
from bench.migrate_load import WRITES_PER_SECOND, WRITING_CONNECTIONS
from bench.subscriptions import copy_storefront, make_storefront
from tests.servers import drop_database

ROWS = 2_000
HELD_SECONDS = 2.0


@pytest.fixture
def bench(postgres_url: str, unique: Iterator[str], tmp_path: Path) -> Iterator[Bench]:
    made = Bench(postgres_url, tmp_path, ROWS, f"fbx_{next(unique)}", quiet_seconds=1.0)
    make_storefront(postgres_url, made.template, ROWS)
    try:
        yield made
    finally:
        for ending in ("", "_naive", "_guarded", "_locked"):
            drop_database(postgres_url, made.template + ending)


async def test_who_queues_up_behind_a_lock_is_counted_with_who_waits_for_it(bench: Bench) -> None:
    url = copy_storefront(bench.admin_url, bench.template, f"{bench.template}_locked")
    answers = Answers()
    async with traffic(url, ROWS, bench.folder / "answers.json", answers):
        await asyncio.sleep(0.5)
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE public.subscriptions")
            await asyncio.sleep(HELD_SECONDS)
        await connection.close()
    stalls = [ms for _, ms, _ in answers.writes.answers]
    assert max(stalls) >= HELD_SECONDS * 1000
    # Those due in the first half waited for the second; the connections alone would be far fewer.
    waited = len([ms for ms in stalls if ms >= HELD_SECONDS * 500])
    assert waited >= WRITES_PER_SECOND * HELD_SECONDS * 0.4 > WRITING_CONNECTIONS
    assert answers.writes.failed == 0
    assert answers.reads.worst_ms >= HELD_SECONDS * 500


async def test_the_job_and_plain_alembic_are_measured_with_the_same_traffic(bench: Bench) -> None:
    naive, guarded = await bench.naive(), await bench.guarded()
    for each in (naive, guarded):
        assert each.writes.failed == 0, each.writes.answers
        assert len(each.writes.answers) == pytest.approx(each.seconds * WRITES_PER_SECOND, rel=0.05)
    names = [each.name for each in guarded.stages]
    assert names[:3] == ["plan", "preflight", "lint"]
    assert {"backup", "restore test", "rehearsal", "apply", "validate"} <= set(names)
    assert 0 < guarded.own_seconds < guarded.seconds
    assert 0 < guarded.overhead < 1
    said = {each.name: each for each in results(ROWS, naive, guarded, guarded)}
    assert said["migrate_stall_max_ms"].bare == naive.writes.worst_ms
    assert said["migrate_overhead"].ours == guarded.overhead * 100
