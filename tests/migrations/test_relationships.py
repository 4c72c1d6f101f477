"""A command that sees every schema goes from a user to account and payments; nothing loads unasked."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import selectinload
from sqlalchemy.pool import NullPool

import migrations.models
from services.loyalty.models import LoyaltyAccount
from services.payments.models import PaymentIntent
from shared.db import create_sessions
from shared.storefront import User
from tests.conftest import Database

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def payment(user: User, stripe_id: str, day: int) -> PaymentIntent:
    amounts = dict.fromkeys(("capturable_minor", "refunded_minor", "disputed_minor"), 0)
    return PaymentIntent(
        **amounts,
        id=uuid4(),
        stripe_id=stripe_id,
        livemode=False,
        user_id=user.id,
        status="succeeded",
        currency="USD",
        amount_minor=900,
        received_minor=900,
        created_at=NOW.replace(day=day),
        revision=1,
        fold={},
    )


async def test_account_and_payments_load_when_asked_for(database: Database) -> None:
    assert migrations.models.target_metadata().tables
    url = database.url.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool)
    sessions = create_sessions(engine)
    user = User(id=uuid4(), email="a@example.org")
    async with sessions.begin() as session:
        session.add(user)
        session.add(LoyaltyAccount(user_id=user.id, tier="gold", opened_at=NOW))
        session.add_all([payment(user, "pi_2", 20), payment(user, "pi_1", 10)])
    relationships = inspect(User).relationships
    asked = select(User).options(
        selectinload(relationships["loyalty_account"].class_attribute),
        selectinload(relationships["payment_intents"].class_attribute),
    )
    async with sessions() as session:
        loaded = (await session.scalars(asked)).one()
        state = inspect(loaded).dict
        assert state["loyalty_account"].tier == "gold"
        assert [each.stripe_id for each in state["payment_intents"]] == ["pi_1", "pi_2"]
    async with sessions() as session:
        unasked = (await session.scalars(select(User))).one()
        with pytest.raises(InvalidRequestError):
            inspect(unasked).attrs["payment_intents"].value  # noqa: B018
    await engine.dispose()
