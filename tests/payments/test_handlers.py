"""What a subscription costs is remembered by its highest revision, whatever order the facts come in."""

from collections.abc import AsyncIterator
from itertools import permutations

import pytest

from services.payments.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.costs import USER, cost


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("batched", [True, False])
async def test_the_highest_revision_wins(
    service: Service, sessions: Sessions, order: tuple[int, ...], batched: bool
) -> None:
    facts = [cost(revision, 1_000 * revision) for revision in order]
    for batch in [facts] if batched else [[fact] for fact in facts]:
        await deliver(sessions, "payments", HANDLERS, batch)
    [row] = await service.rows("SELECT * FROM subscription_costs")
    latest = next(fact for fact in facts if fact.revision == 3)
    assert (row["revision"], row["total_minor"], row["event_id"]) == (3, 3_000, latest.id)
    assert (row["user_id"], row["price_version"]) == (USER, 13)
