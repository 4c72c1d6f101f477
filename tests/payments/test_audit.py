"""The audit holds after a shuffled life and says what is wrong with each kind of damage."""

from collections.abc import AsyncIterator
from random import Random

import pytest

from services.payments.audit import checks
from services.payments.rebuild import rebuild
from shared.audit import CheckResult
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import every_life


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def lived(service: Service) -> Service:
    events = list(every_life(6).events)
    Random(6).shuffle(events)
    for start in range(0, len(events), 80):
        await service.receive(events[start : start + 80])
        await service.fold_all()
    return service


async def audited(sessions: Sessions) -> dict[str, CheckResult]:
    async with sessions() as session:
        return {check.id: check for check in await checks(session)}


async def test_everything_holds_after_a_shuffled_life(lived: Service, sessions: Sessions) -> None:
    found = await audited(sessions)
    assert set(found) == {"S1", "S2", "S4", "S5", "S11", "S12"}
    assert all(check.ok for check in found.values()), found
    assert all(found[identity].counted for identity in ("S1", "S2", "S4", "S5"))
    payments = len(await lived.payments())
    assert f"{payments} payments refolded alike" in found["S4"].detail


@pytest.mark.parametrize(
    ("damage", "failing"),
    [
        ("UPDATE stripe_events SET body = 'null'::bytea WHERE position = 3", {"S1", "S4"}),
        (
            (
                "UPDATE stripe_events SET status = 'received', stripe_payment_id = NULL,"
                " received_at = now() - interval '1 hour' WHERE position = 3"
            ),
            {"S1"},
        ),
        (
            (
                "UPDATE stripe_events SET status = 'received', waiting_for = 'ch_1',"
                " stripe_payment_id = NULL, received_at = now() - interval '7 hours'"
                " WHERE position = 3"
            ),
            {"S1"},
        ),
        (
            (
                "UPDATE stripe_events SET status = 'parked', stripe_payment_id = NULL,"
                " processed_at = now() - interval '61 minutes' WHERE position = 3"
            ),
            {"S1"},
        ),
        ("DELETE FROM outbox WHERE position = 4", {"S2"}),
        ("UPDATE outbox SET headers = headers - 'ce_causationid' WHERE position = 4", {"S2"}),
        (
            "UPDATE outbox SET payload = payload || '{\"revision\": 77}' WHERE position = 4",
            {"S4"},
        ),
        (
            (
                'UPDATE outbox SET payload = payload || \'{"status": "succeeded"}\''
                " WHERE payload->>'revision' = '1' AND payload->>'payment_id' = ("
                "   SELECT id::text FROM payment_intents WHERE status = 'canceled' AND revision > 1"
                "   LIMIT 1)"
            ),
            {"S4"},
        ),
        ("UPDATE payment_intents SET received_minor = amount_minor + 1", {"S4", "S5"}),
        ("UPDATE payment_intents SET currency = 'XXQ'", {"S4", "S5"}),
        ("UPDATE payment_intents SET fold = fold || '{\"livemode\": true}'", {"S4"}),
        ("DELETE FROM payment_intents WHERE status = 'canceled'", {"S2", "S4"}),
    ],
)
async def test_damage_is_found(
    lived: Service, sessions: Sessions, damage: str, failing: set[str]
) -> None:
    assert await lived.pool.execute(damage) not in ("UPDATE 0", "DELETE 0")
    found = await audited(sessions)
    assert failing <= {check.id for check in found.values() if not check.ok}


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("status = 'parked', processed_at = now() - interval '59 minutes'", "1 parked, 0 of them"),
        (
            "status = 'received', waiting_for = 'x', received_at = now() - interval '5 hours'",
            "0 wait for more than 6 hours",
        ),
    ],
)
async def test_what_was_parked_or_waits_since_a_short_time_is_said_and_no_fault_yet(
    lived: Service, sessions: Sessions, left: str, said: str
) -> None:
    await lived.pool.execute(f"UPDATE stripe_events SET {left} WHERE position = 3")
    found = (await audited(sessions))["S1"]
    assert found.ok
    assert said in found.detail


async def test_rebuilding_names_the_payment_and_the_columns_that_differ(
    lived: Service, sessions: Sessions
) -> None:
    [row] = await lived.rows(
        "UPDATE payment_intents SET refunded_minor = refunded_minor + 1, failure_code = 'x'"
        " WHERE stripe_id = (SELECT min(stripe_id) FROM payment_intents) RETURNING stripe_id"
    )
    async with sessions() as session:
        rebuilt = await rebuild(session)
    assert rebuilt.differed == [(row["stripe_id"], "refunded_minor, failure_code")]
    assert rebuilt.agreed == len(await lived.payments()) - 1
