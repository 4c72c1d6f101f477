"""The renewals' worker dies at each of its awaits: every period is charged once all the same."""

import os
from datetime import timedelta
from uuid import UUID

import pytest

from tests.payments.renewals.conftest import World
from tests.payments.renewals.dying import Died, Lives

# The third step of a world is the renewals' own, see World.steps.
RENEWALS = 3
MOST_AWAITS = 1_000
# Each death takes a second or so; FAREBOX_EVERY_AWAIT=1 leaves none out.
STRIDE = 1 if os.environ.get("FAREBOX_EVERY_AWAIT") else 25


async def due_now(world: World, *card: str) -> UUID:
    """A subscription whose period has just ended."""
    subscription = await world.subscribe(await world.customer(*card), interval="year")
    await world.by_storefront(
        subscription, f"period_end = '{(world.now + timedelta(minutes=1)).isoformat()}'"
    )
    await world.settle()
    world.clock.later(60)
    return subscription


async def rest_unless_it_dies(world: World, lives: Lives) -> bool:
    """False where the renewals died before the world came to rest."""
    done = [1]
    while any(done):
        done = []
        for number, step in enumerate(world.steps()):
            try:
                done.append(await (lives.run(step()) if number == RENEWALS else step()))
            except Died:
                return False
    return True


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (("success",), ["paid"]),
        (("insufficient_funds", "success"), ["past_due", "recovered"]),
        (("lost_card",), ["given_up"]),
    ],
)
async def test_killed_at_each_await_a_period_is_charged_and_told_once(
    world: World, card: tuple[str, ...], told: list[str]
) -> None:
    survived = False
    tried = 0
    while not survived:
        assert tried * STRIDE < MOST_AWAITS
        subscription = await due_now(world, *card)
        survived = await rest_unless_it_dies(world, Lives(tried * STRIDE))
        await world.settle()
        tried += 1
        if "recovered" in told:
            # A day later; those before are paid for a year.
            await world.pass_(days=1)
        assert [fact["status"] for fact in await world.told(subscription)] == told
        [renewal] = await world.renewals(subscription)
        own = [intent["status"] for intent in await world.intents_of(renewal["user_id"])]
        assert own.count("succeeded") == (0 if told[-1] == "given_up" else 1)
        assert len(own) == renewal["attempts"] == len(card)
        assert set(own) <= {"succeeded", "canceled"}
    assert tried > 5
