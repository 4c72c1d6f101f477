"""SIGKILL at any statement of preview and rollout: whoever comes after goes on to the very same rows and facts."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from uuid import UUID

import asyncpg
import psycopg
import pytest
from sqlalchemy import event

from services.pricing import preview, rollout
from shared.db import create_engine, create_sessions
from tests.conftest import Database, own_database
from tests.pricing.conftest import Shop, Ticking, publish_config
from tests.pricing.crowd import LONG_AGO, crowd, drafted, published, roll_out
from tests.servers import Servers

CUSTOMERS = 12
CHUNK = 5
STATE = (
    "SELECT id, total_minor, price_version, cost_breakdown FROM public.subscriptions ORDER BY id",
    """SELECT subscription_id, price_version, kind, old_breakdown, new_breakdown, effective_at, reason,
    cause_id FROM pricing.subscription_cost_history ORDER BY 1, 2""",
    """SELECT id, payload - 'cost_history_id' - 'history_hash', headers FROM pricing.outbox
    WHERE type = 'pricing.subscription_cost_changed' ORDER BY id""",
    "SELECT * FROM pricing.preview_items ORDER BY 1, 2",
    "SELECT status, counted, chain, hash, totals FROM pricing.previews ORDER BY id",
    "SELECT subscription_id, price_version, outcome, code FROM pricing.rollout_items ORDER BY 1, 2",
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
    asyncio.run(work(database.url_for("pricing")))
    deaths = 0
    for statement in range(2, 400, 3):  # each life gets a little further than the last
        life = multiprocessing.get_context("fork").Process(
            target=live, args=(twin.url_for("pricing"), statement)
        )
        life.start()
        life.join(60)
        assert life.exitcode in (0, -signal.SIGKILL)
        if life.exitcode == 0:
            break
        deaths += 1
    assert deaths > 8
    assert state(twin) == state(database)


async def prepare(database: Database) -> None:
    """Customers at version 1, and a draft whose preview is asked for."""
    owner = await asyncpg.connect(database.url)
    engine = create_engine(database.url_for("pricing"), "pricing")
    sessions, clock = create_sessions(engine), Ticking()
    await publish_config(sessions, LONG_AGO)
    await roll_out(sessions, clock)
    await crowd(Shop(owner), CUSTOMERS)
    await owner.execute(
        "UPDATE public.subscriptions SET variants = '[]' WHERE id = $1", UUID(int=4)
    )
    await drafted(sessions, clock, {"admin_percentage": "12.5"})
    await engine.dispose()
    await owner.close()


async def work(url: str, deadly: int | None = None) -> None:
    """Preview, approve, publish and roll out whatever is left of it; die before the statement of that number."""
    engine = create_engine(url, "pricing")
    sessions, clock = create_sessions(engine), Ticking()
    count = 0

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def _die(*_: object) -> None:
        nonlocal count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    walker = preview.Walker(rows=CHUNK, link_rows=CHUNK)
    while await preview.run_once(sessions, clock, walker):
        pass
    async with sessions() as session:
        state = await session.connection()
        found = await state.exec_driver_sql("SELECT status FROM pricing_configs WHERE version = 2")
        approved = found.scalar_one() in ("active", "approved")
    if not approved:
        await published(sessions, clock, 2)
    while await rollout.run_once(sessions, clock, CHUNK):
        pass
    await engine.dispose()


def live(url: str, deadly: int) -> None:
    asyncio.run(work(url, deadly))
    os._exit(0)


def state(database: Database) -> list[list[tuple[object, ...]]]:
    with psycopg.connect(database.url) as connection:
        return [connection.execute(query).fetchall() for query in STATE]
