from uuid import uuid4

import psycopg
import pytest

from services.loyalty.audit import checks
from services.loyalty.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions
from tests.conftest import Database
from tests.loyalty.conftest import paid


async def failed(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return [check.id for check in await checks(session) if not check.ok]


async def test_an_empty_loyalty_is_right(sessions: Sessions) -> None:
    async with sessions() as session:
        assert [(c.ok, c.counted) for c in await checks(session)] == [(True, 0)] * 5


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE loyalty_accounts SET balance_points = balance_points + 1", ["S8"]),
        ("UPDATE points_lots SET points = points - 1", ["S8", "S8"]),
        ("UPDATE points_lots SET rule = '2026-01:gold'", ["S8"]),
        ("UPDATE points_lots SET payment_revision = 0", ["S8"]),
        ("UPDATE points_transactions SET points = points + 1", ["S8", "S8", "S2"]),
        ("DELETE FROM points_transactions", ["S8", "S8", "S2"]),
        ("UPDATE outbox SET headers = headers - 'ce_causationid'", ["S2", "S2"]),
        ("DELETE FROM outbox WHERE type = 'loyalty.points_changed'", ["S2", "S2"]),
        ("UPDATE loyalty_accounts SET revision = revision + 1", ["S2"]),
        (
            """UPDATE outbox SET payload = payload || '{"revision": 1}'
            WHERE type = 'loyalty.tier_changed'""",
            ["S2"],
        ),
    ],
)
async def test_damage_is_found(
    sessions: Sessions, database: Database, damage: str, found: list[str]
) -> None:
    await deliver(sessions, "loyalty", HANDLERS, [paid(customer_id=uuid4(), received_minor=50_000)])
    assert await failed(sessions) == []

    with psycopg.connect(database.url) as owner:
        owner.execute("SET search_path = loyalty")
        owner.execute(damage)

    assert await failed(sessions) == found
