"""SIGKILL in every transaction of preview and rollout: whoever comes after goes on to the very same rows and facts.

Each life commits one transaction and dies in the next, at a statement or when it is to be committed: every boundary
is died at, and whatever comes after one is lost once with all that the worker remembered.
"""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from datetime import timedelta
from uuid import UUID

import asyncpg
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.pricing import preview, rollout
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database, own_database
from tests.pricing.conftest import START, Shop, Ticking, publish_config
from tests.pricing.crowd import LONG_AGO, crowd, drafted, published, roll_out
from tests.servers import Servers

CUSTOMERS = 9
CHUNK = 5
LATER = START + timedelta(days=4)
# One that is listed, told and carried out days later, and one that moves everybody at once.
CHANGES: Mapping[int, dict[str, object]] = {
    2: {"admin_percentage": "12.5", "timing": {"notice_days": 2, "notice_lead_days": 1}},
    3: {"admin_percentage": "15"},
}
STATE = (
    "SELECT id, total_minor, price_version, cost_breakdown FROM public.subscriptions ORDER BY id",
    """SELECT subscription_id, price_version, kind, old_breakdown, new_breakdown, effective_at, reason,
    cause_id FROM pricing.subscription_cost_history ORDER BY 1, 2""",
    """SELECT id, type, payload - 'cost_history_id' - 'history_hash', headers - 'traceparent'
    FROM pricing.outbox ORDER BY id""",
    """SELECT id, headers FROM pricing.outbox WHERE type = 'pricing.subscription_cost_changed'
    ORDER BY id""",
    "SELECT * FROM pricing.notices ORDER BY id",
    "SELECT * FROM pricing.preview_items ORDER BY 1, 2",
    "SELECT status, counted, chain, hash, totals FROM pricing.previews ORDER BY id",
    """SELECT subscription_id, price_version, outcome, code, due_at, effective_at, notice_id
    FROM pricing.rollout_items ORDER BY 1, 2""",
    "SELECT status, listed_to, drifted FROM pricing.rollouts ORDER BY price_version",
    "SELECT subscription_id, revision FROM pricing.subscription_revisions ORDER BY 1",
)


@pytest.fixture
def twin(database: Database, postgres_url: str, unique: Iterator[str]) -> Iterator[Database]:
    """A copy of the test's database, made when everything in it is prepared."""
    asyncio.run(prepare(database))
    yield from own_database(postgres_url, database.name, f"fbx_{next(unique)}")


def test_whoever_is_killed_wherever_the_rest_is_done_once(
    database: Database, twin: Database, servers: Servers
) -> None:
    transactions = asyncio.run(work(database.url_for("pricing"), Life()))
    deaths = 0
    while True:
        # By turns at the commit, and at the first statement, the second, …
        at = None if deaths % 2 else deaths // 2 + 1
        life = multiprocessing.get_context("fork").Process(
            target=live, args=(twin.url_for("pricing"), Life(mortal=True, statement=at))
        )
        life.start()
        life.join(60)
        assert life.exitcode in (0, -signal.SIGKILL)
        if life.exitcode == 0:
            break
        deaths += 1
        assert deaths <= transactions, "nothing is achieved in a life"
    assert deaths >= transactions - 1 > 15
    assert state(twin) == state(database)


class Life:
    """Counts the transactions that did something; a mortal one dies in the second."""

    def __init__(self, *, mortal: bool = False, statement: int | None = None) -> None:
        self.done, self._mortal, self._statement, self._statements = 0, mortal, statement, 0

    def watch(self, engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, "before_cursor_execute", self._executes)
        event.listen(engine.sync_engine, "commit", self._commits)

    def achieved(self, something: object) -> bool:
        self.done += bool(something)
        return bool(something)

    def _executes(self, *_: object) -> None:
        if self.done == 1:
            self._statements += 1
            if self._statements == self._statement:
                self._die()

    def _commits(self, *_: object) -> None:
        if self.done == 1:
            self._die()

    def _die(self) -> None:
        if self._mortal:
            os.kill(os.getpid(), signal.SIGKILL)


async def prepare(database: Database) -> None:
    """Customers at version 1, one of whom has nothing to be priced."""
    owner = await asyncpg.connect(database.url)
    engine = create_engine(database.url_for("pricing"), "pricing")
    sessions = create_sessions(engine)
    await publish_config(sessions, LONG_AGO)
    await roll_out(sessions, Ticking())
    await crowd(Shop(owner), CUSTOMERS)
    await owner.execute(
        "UPDATE public.subscriptions SET variants = '[]' WHERE id = $1", UUID(int=4)
    )
    await engine.dispose()
    await owner.close()


async def work(url: str, life: Life) -> int:
    """Draft, preview, approve, publish and roll out whatever is left of it.  How many transactions that took."""
    engine = create_engine(url, "pricing")
    life.watch(engine)
    sessions = create_sessions(engine)
    for version in CHANGES:
        if await status_of(sessions, version + 1) is None:  # else it is over
            await carry_through(sessions, version, life)
    await engine.dispose()
    return life.done


async def carry_through(sessions: Sessions, version: int, life: Life) -> None:
    clock = Ticking(START if version == 2 else LATER)
    if await status_of(sessions, version) is None:
        life.achieved(await drafted(sessions, clock, CHANGES[version]))
    walker, memory = preview.Walker(rows=CHUNK, link_rows=CHUNK), rollout.Memory()
    while life.achieved(await preview.run_once(sessions, clock, walker)):
        pass
    if await status_of(sessions, version) == "previewed":
        await published(sessions, clock, version)
        life.achieved(True)
    while life.achieved(await rollout.run_once(sessions, clock, CHUNK, memory)):
        pass
    async with sessions.begin() as session:
        told = await session.scalars(_TELL, {"at": START + timedelta(hours=1)})
        found = told.all()
    life.achieved(found)
    clock.now = LATER
    while life.achieved(await rollout.run_once(sessions, clock, CHUNK, memory)):
        pass


async def status_of(sessions: Sessions, version: int) -> str | None:
    async with sessions() as session:
        found: str | None = await session.scalar(_STATUS, {"version": version})
        return found


_STATUS = text("SELECT status FROM pricing_configs WHERE version = :version")
_TELL = text(
    "UPDATE notices SET told_at = :at, told_by = 'mail' WHERE told_at IS NULL RETURNING id"
)


def live(url: str, life: Life) -> None:
    asyncio.run(work(url, life))
    os._exit(0)


def state(database: Database) -> list[list[tuple[object, ...]]]:
    with psycopg.connect(database.url) as connection:
        return [connection.execute(query).fetchall() for query in STATE]
