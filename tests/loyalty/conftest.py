"""Loyalty's own role on a database of one's own, and payments to tell it about."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from shared.db import Sessions, create_engine, create_sessions
from shared.events import PaymentChanged, derived_id
from tests.conftest import Database

JANUARY = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("loyalty"), "loyalty")
    yield create_sessions(engine)
    await engine.dispose()


def paid(payment_id: UUID | None = None, revision: int = 1, **state: object) -> PaymentChanged:
    """A payment of 25 USD that succeeded, but for what `state` says."""
    payment_id = payment_id or uuid4()
    known: dict[str, object] = {
        "id": derived_id("test", payment_id, revision),
        "occurred_at": JANUARY,
        "payment_id": payment_id,
        "stripe_id": f"pi_{payment_id.hex}",
        "revision": revision,
        "status": "succeeded",
        "currency": "USD",
        "amount_minor": 2_500,
        "received_minor": 2_500,
        "created_at": JANUARY,
        "succeeded_at": state.get("occurred_at", JANUARY),
    }
    return PaymentChanged.model_validate(known | state)
