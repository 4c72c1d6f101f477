"""A payments service on a real database: events in, the fold turned by hand, rows out."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest

from services.payments import asking, fold
from services.payments.gateway import StripeClient, open_envelope
from services.payments.store import Arrival, insert
from shared.clock import Clock
from shared.db import raw_pool
from tests.conftest import Database

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass
class Hands:
    """A clock that a test turns."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Service:
    pool: asyncpg.Pool
    clock: Clock
    livemode: bool | None = None

    async def receive(self, events: Iterable[Mapping[str, object]]) -> None:
        """As the webhook does, one after the other."""
        bodies = [orjson.dumps(event) for event in events]
        async with self.pool.acquire() as connection:
            await insert(connection, [Arrival(open_envelope(b), b, None) for b in bodies])

    async def fold_all(self) -> int:
        """Until nothing is left; how many events were taken."""
        taken = 0
        while done := await fold.run_once(self.pool, "test", self.clock, self.livemode):
            taken += done
        return taken

    async def ask_all(self, client: StripeClient) -> int:
        answered = 0
        while done := await asking.run_once(self.pool, client, "test", self.clock):
            answered += done
            await self.fold_all()
        return answered

    async def rows(self, statement: str, *values: object) -> list[dict[str, object]]:
        return [dict(row) for row in await self.pool.fetch(statement, *values)]

    async def payments(self) -> dict[str, dict[str, object]]:
        return {str(p["stripe_id"]): p for p in await self.rows("SELECT * FROM payment_intents")}

    async def fate(self, event_id: object) -> tuple[object, object]:
        [row] = await self.rows("SELECT status, detail FROM stripe_events WHERE id = $1", event_id)
        return row["status"], row["detail"]


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
async def service(database: Database, hands: Hands) -> AsyncIterator[Service]:
    async with raw_pool(database.url_for("payments"), "payments", size=3) as pool:
        yield Service(pool, hands)
