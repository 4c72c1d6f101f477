"""The worker's unhurried loop does what the settings ask for, and nothing of what they do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.payments import upkeep
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import played
from tests.payments.test_redaction import lives_heard

PATIENCE_SECONDS = 20.0
REDACTED = "SELECT count(*) AS count FROM stripe_events WHERE redacted_at IS NOT NULL"
ASKED = "SELECT count(*) AS count FROM stripe_questions"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(upkeep.loop(settings)(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until(found: Callable[[], Awaitable[int]]) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (count := await found()):
            await asyncio.sleep(0.05)
    return count


def counting(service: Service, statement: str) -> Callable[[], Awaitable[int]]:
    async def count() -> int:
        [row] = await service.rows(statement)
        assert isinstance(row["count"], int)
        return row["count"]

    return count


@pytest.fixture
async def old(service: Service) -> Service:
    """Everything was folded two days ago; the payments began when the sandbox's lives do."""
    await lives_heard(service, 11)
    await service.receive(played(3, ["card_success"]).events)
    await service.fold_all()
    await service.pool.execute(
        "UPDATE stripe_events SET received_at = now() - interval '2 days',"
        " processed_at = now() - interval '2 days'"
    )
    await service.pool.execute("UPDATE payment_intents SET created_at = now() - interval '2 days'")
    return service


def settings_of(database: Database, **more: object) -> Settings:
    return Settings.model_validate({"database_url": database.url, **more})


async def test_old_bodies_are_redacted_and_fees_asked_for(old: Service, database: Database) -> None:
    settings = settings_of(database, farebox_raw_body_days=1, stripe_api_key="sk_test_x")
    async with running(settings):
        assert await until(counting(old, REDACTED))
        assert await until(counting(old, ASKED)) <= 10


@pytest.mark.parametrize(
    ("more", "still"),
    [
        ({"farebox_raw_body_days": 0, "stripe_api_key": "sk_test_x"}, REDACTED),
        ({"farebox_raw_body_days": 3, "stripe_api_key": "sk_test_x"}, REDACTED),
        (
            {
                "farebox_raw_body_days": 1,
                "farebox_ask_fees": False,
                "stripe_api_key": "sk_test_x",
            },
            ASKED,
        ),
        ({"farebox_raw_body_days": 1}, ASKED),
    ],
)
async def test_what_is_not_asked_for_is_not_done(
    old: Service, database: Database, more: dict[str, object], still: str
) -> None:
    other = ASKED if still == REDACTED else REDACTED
    async with running(settings_of(database, **more)):
        await until(counting(old, other))
        assert await counting(old, still)() == 0
