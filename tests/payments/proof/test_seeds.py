"""Ten seeds of payments' lives, delivered badly or not at all: no row, fact or rebuilt payment differs from the truth at Stripe."""

import asyncpg
import pytest

from cli.prove import seed as proof
from cli.prove.judge import differences
from cli.prove.lives import Lives, play
from cli.prove.seed import Plan, prove
from tests.conftest import Database

SEEDS = range(1, 11)
# Some 250 deliveries each; `farebox payments prove` plays as many as one likes.
PAYMENTS = 25
# A row as it must not be, by the statement that makes it so, and the word that the verdict has for it.
WRONG = {
    "UPDATE payments.payment_intents SET received_minor = received_minor + 1": "received_minor is",
    "UPDATE payments.payment_intents SET decline_code = 'nobody_said_so'": "decline_code is",
    "UPDATE payments.payment_intents SET user_id = gen_random_uuid()": "user_id is",
    "DELETE FROM payments.payment_intents": "has no row",
    "DELETE FROM payments.outbox": "and told []",
    "UPDATE payments.outbox SET payload = payload || '{\"amount_minor\": 1}'": "was told as amount",
    "UPDATE payments.stripe_events SET status = 'parked'": "is parked",
    "DELETE FROM payments.stripe_events": "is not stored",
    "UPDATE payments.payment_intents SET anomaly = 'odd'": "contradict itself: odd",
}


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_delivered_however_the_rows_are_the_truth(
    database: Database, seed: int
) -> None:
    verdict = await prove(Plan(seed, PAYMENTS, losses=True), database.url)
    assert verdict.differences == [], f"farebox payments prove --seed {seed} --payments {PAYMENTS}"
    assert verdict.rebuilt == PAYMENTS
    if seed == SEEDS[0]:
        # An event that was never made is no dropped one, and is found by its object.
        assert min(verdict.mended, verdict.dropped) > 0


async def test_a_seed_plays_the_same_again() -> None:
    first, second = [await play(3, 20, losses=True) for _ in range(2)]
    assert _told(first) == _told(second)
    assert first.faults == second.faults
    assert first.dropped == second.dropped > 0
    assert _told(await play(4, 20, losses=True)) != _told(first)


def _told(lives: Lives) -> list[bytes]:
    return [delivery.body for delivery in lives.deliveries]


async def test_whatever_is_wrong_is_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge's own proof: each of these wrongs, alone, is a difference."""
    seen: list[Lives] = []

    async def keep(connection: asyncpg.Connection, lives: Lives) -> list[str]:
        seen.append(lives)
        return await differences(connection, lives)

    monkeypatch.setattr(proof, "differences", keep)
    assert (await prove(Plan(1, 5), database.url)).differences == []
    settings = {"search_path": "payments"}
    connection = await asyncpg.connect(database.url, server_settings=settings)
    try:
        for statement, word in WRONG.items():
            change = connection.transaction()
            await change.start()
            await connection.execute(statement)
            found = await differences(connection, seen[0])
            await change.rollback()
            assert [each for each in found if word in each], (statement, found[:3])
        assert await differences(connection, seen[0]) == []
    finally:
        await connection.close()
