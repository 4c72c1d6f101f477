from uuid import uuid4

import psycopg
import pytest

from services.analytics import audit
from services.analytics.handlers import HANDLERS
from shared.consumer import deliver
from shared.db import Sessions
from tests.analytics.conftest import changed, payment, priced
from tests.conftest import Database


async def test_it_counts_all_facts_also_over_several_chunks(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CHUNK", 2)
    one, other = uuid4(), uuid4()
    facts = [payment() for _ in range(5)] + [changed(one, 1), changed(one, 2), changed(other, 1)]
    await deliver(sessions, "analytics", HANDLERS, facts)

    async with sessions() as session:
        found = await audit.checks(session)

    nines = [check for check in found if check.id == "S9"]
    assert [(check.ok, check.counted) for check in nines] == [(True, 5), (True, 3)]


@pytest.mark.parametrize(
    ("damage", "payments", "subscriptions"),
    [
        ("UPDATE payment_analytics SET gross_minor = gross_minor + 1", False, True),
        ("UPDATE payment_analytics SET failures = '{\"fraud\": 1}'", False, True),
        ("DELETE FROM payment_analytics", False, True),
        ("DELETE FROM payment_facts", False, True),
        ("UPDATE subscription_analytics SET new = new + 1", True, False),
        ("DELETE FROM subscription_facts WHERE revision = 2", True, False),
        ("INSERT INTO subscription_analytics (day, currency, paused) VALUES ('2020-1-1', 'USD', 1)", True, False),
        ("INSERT INTO subscription_analytics (day, currency) VALUES ('2020-1-1', 'USD')", True, True),
    ],
)  # fmt: skip
async def test_damage_is_found(
    sessions: Sessions, database: Database, damage: str, payments: bool, subscriptions: bool
) -> None:
    one = uuid4()
    facts = [payment(), changed(one, 1), priced(one, 2, (None, 1_000))]
    await deliver(sessions, "analytics", HANDLERS, facts)

    with psycopg.connect(database.url) as owner:
        owner.execute("SET search_path = analytics")
        owner.execute(damage)

    async with sessions() as session:
        found = await audit.checks(session)
    assert [check.ok for check in found if check.id == "S9"] == [payments, subscriptions]
