"""What a subscription costs is remembered by its highest revision, whatever order the facts come in."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from services.payments.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions, create_engine, create_sessions
from shared.events import CostBreakdown, SubscriptionCostChanged
from tests.conftest import Database
from tests.payments.conftest import Service

SUBSCRIPTION = UUID(int=7)
AT = datetime(2026, 7, 1, tzinfo=UTC)


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


def cost(revision: int, total_minor: int) -> SubscriptionCostChanged:
    breakdown = CostBreakdown(
        currency="EUR",
        variants=(),
        subtotal_minor=total_minor,
        admin_percentage="1",
        fee_minor=0,
        delivery_type="standard",
        delivery_minor=0,
        taxable_minor=total_minor,
        place="DE",
        tax_rate="0",
        tax_minor=0,
        total_minor=total_minor,
    )
    return SubscriptionCostChanged(
        id=uuid4(),
        occurred_at=AT,
        customer_id=UUID(int=3),
        subscription_id=SUBSCRIPTION,
        revision=revision,
        status="active",
        currency="EUR",
        billing_interval="month",
        price_version=revision,
        cost_history_id=revision,
        new_breakdown=breakdown,
        new_total_minor=total_minor,
        effective_at=AT,
        kind="config",
        reason="new prices",
        changed_by="admin",
    )


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
    assert (row["user_id"], row["price_version"]) == (UUID(int=3), 3)
