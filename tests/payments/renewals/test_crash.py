"""The worker is killed (SIGKILL) at its awaits while it renews: every period is charged once and told once all the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from tests.conftest import Database
from tests.payments.renewals.conftest import World
from tests.payments.renewals.killed import Errand
from tests.servers import ROOT

KILLED = -9
DONE = 0
MOST_AWAITS = 3_000
# Each death takes half a second or so; FAREBOX_EVERY_AWAIT=1 leaves none out.
EVERY = bool(os.environ.get("FAREBOX_EVERY_AWAIT"))
STRIDE = 1 if EVERY else 89
STORIES = [
    (("insufficient_funds", "success"), ["past_due", "recovered"]),
    (("success",), ["paid"]),
    (("lost_card",), ["given_up"]),
]


class Workers:
    """Each killed at an await of its own, or, where it has fewer, done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def killed_at(self, at: int, world: World) -> bool:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(at, world.now.isoformat(), file=self._process.stdin, flush=True)
        ended = int(self._process.stdout.readline())
        assert ended in (KILLED, DONE)
        return ended == KILLED


@pytest.fixture
def workers(world: World, database: Database) -> Iterator[Workers]:
    errand = Errand(
        database_url=database.url_for("payments"),
        stripe_base=world.sandbox.url,
        dunning_days=world.rules.dunning_days,
    )
    command = [sys.executable, "-m", "tests.payments.renewals.killed"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        assert process.stdin is not None
        print(errand.model_dump_json(), file=process.stdin, flush=True)
        yield Workers(process)
    finally:
        process.kill()
        process.communicate()


async def due_now(world: World, *card: str) -> UUID:
    """A subscription whose period has just ended."""
    subscription = await world.subscribe(await world.customer(*card), interval="year")
    await world.by_storefront(
        subscription, f"period_end = '{(world.now + timedelta(minutes=1)).isoformat()}'"
    )
    await world.settle()
    world.clock.later(60)
    await leave_leases(world)
    return subscription


async def outlive(world: World) -> None:
    """The dead hold orders for a while; then others end what they left."""
    await leave_leases(world)
    await world.settle()
    world.clock.later(120)
    await world.settle()
    await leave_leases(world)


async def leave_leases(world: World) -> None:
    """As if their time had run out."""
    await world.owner.execute("DELETE FROM payments.leases")


@pytest.mark.parametrize(("card", "told"), STORIES if EVERY else STORIES[:1])
async def test_killed_at_each_await_a_period_is_charged_and_told_once(
    world: World, workers: Workers, card: tuple[str, ...], told: list[str]
) -> None:
    deaths = 0
    while True:
        at = deaths * STRIDE
        assert at < MOST_AWAITS
        subscription = await due_now(world, *card)
        killed = workers.killed_at(at, world)
        await outlive(world)
        if "recovered" in told:
            # A day later; those before are paid for a year.
            await world.pass_(days=1)
        assert [fact["status"] for fact in await world.told(subscription)] == told
        [renewal] = await world.renewals(subscription)
        own = [intent["status"] for intent in await world.intents_of(renewal["user_id"])]
        assert own.count("succeeded") == (0 if told[-1] == "given_up" else 1)
        assert len(own) == renewal["attempts"] == len(card)
        assert set(own) <= {"succeeded", "canceled"}
        if not killed:
            break
        deaths += 1
    print(f"{card}: killed {deaths} times, every {STRIDE}. await")
    assert deaths > 4
    orders = await world.owner.fetch("SELECT DISTINCT status FROM payments.stripe_orders")
    assert {row["status"] for row in orders} <= {"done", "refused"}
