"""Killed at every await of the fold and of the webhook's intake: nothing acknowledged is lost, nothing is booked twice."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from random import Random

import httpx
import orjson
import pytest

from embedded.ports import free_port
from embedded.stripe_sandbox import Played, sign
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import played
from tests.payments.proof.killed import SECRET
from tests.payments.test_fold import assert_announced, assert_true
from tests.servers import ROOT

KILLED = -9
DONE = 0
# Each kill leaves at least one batch open; a fold that never came to its end would go on for ever.
MOST_AWAITS = 400
LIVES = ("refund_failed_after_success", "dispute_won", "three_ds_success", "partial_refunds")
STARTS_WITHIN_SECONDS = 30.0


class Killer:
    """Children that die at the n-th await."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, kind: str, url: str, at: int, *more: object) -> None:
        assert self._process.stdin is not None
        print(kind, url, at, *more, file=self._process.stdin, flush=True)

    def ended(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def run(self, kind: str, url: str, at: int) -> int:
        self.start(kind, url, at)
        return self.ended()


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    command = [sys.executable, "-m", "tests.payments.proof.killed"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    try:
        yield Killer(process)
    finally:
        process.kill()
        process.communicate()


def badly_told(seed: int) -> tuple[Played, list[dict[str, object]]]:
    lives = played(seed, LIVES, ties=0.5)
    events = [*lives.events, *lives.events[::3]]
    Random(seed).shuffle(events)
    return lives, events


async def test_a_fold_killed_at_every_await_comes_to_the_truth(
    database: Database, service: Service, killer: Killer
) -> None:
    """One process dies at its first await, the next at its second, ...; new events come in between."""
    lives, events = badly_told(3)
    url = database.url_for("payments")
    kills = 0
    for at in range(MOST_AWAITS):
        # A few more each time: every death strikes a batch that is not empty.
        await service.receive(events[:3] or lives.events[:1])
        events = events[3:]
        if killer.run("fold", url, at) == DONE and not events:
            break
        kills += 1
        await take_the_lease_from_the_dead(service)
    assert kills > 20
    await service.fold_all()
    await assert_true(service, lives)
    await assert_announced(service)
    assert await service.rows("SELECT id FROM stripe_events WHERE status <> 'applied'") == []


async def take_the_lease_from_the_dead(service: Service) -> None:
    """As if its time had run out."""
    await service.pool.execute("UPDATE leases SET expires_at = now() - interval '1 second'")


async def test_a_whole_fold_killed_at_each_of_its_awaits_leaves_no_half_of_it(
    database: Database, service: Service, killer: Killer
) -> None:
    """The same batch again and again: until it commits there is nothing, then there is all of it, once."""
    lives, events = badly_told(4)
    await service.receive(events)
    seen: list[tuple[int, int]] = []
    for at in range(MOST_AWAITS):
        ended = killer.run("fold", database.url_for("payments"), at)
        seen.append(await rows_and_facts(service))
        if ended == DONE:
            break
        await take_the_lease_from_the_dead(service)
    whole = (len(lives.truth), len(lives.truth))
    assert seen[0] == (0, 0)
    assert set(seen) == {(0, 0), whole}
    assert seen.index(whole) > 10
    await assert_true(service, lives)
    await assert_announced(service)


async def rows_and_facts(service: Service) -> tuple[int, int]:
    [row] = await service.rows(
        "SELECT (SELECT count(*) FROM payment_intents) AS rows, (SELECT count(*) FROM outbox) AS facts"
    )
    return int(str(row["rows"])), int(str(row["facts"]))


# Each but the first dozen costs a server's start and tells little more: so some of them.  The last ones have answered
# on a busy machine too, where the server's own ticks are most of the awaits.
AWAITS_OF_INTAKE = (*range(12), 14, 17, 21, 26, 32, 40, 90, 400)


async def test_intake_killed_at_every_await_has_what_it_acknowledged(
    database: Database, service: Service, killer: Killer
) -> None:
    events = played(5, ["card_success"] * 12).events
    ids = {event["id"] for event in events}
    acknowledged: set[object] = set()
    kills = 0
    for at in AWAITS_OF_INTAKE:
        port = free_port()
        killer.start("web", database.url_for("payments"), at, port)
        fresh = [{**event, "id": f"{event['id']}_{at}"} for event in events[: 1 + at % 7]]
        ids |= {event["id"] for event in fresh}
        acknowledged |= await send(port, fresh)
        kills += killer.ended() == KILLED
    stored = {row["id"] for row in await service.rows("SELECT id FROM stripe_events")}
    assert acknowledged <= stored <= ids
    assert kills == len(AWAITS_OF_INTAKE)
    assert acknowledged


async def send(port: int, events: Sequence[dict[str, object]]) -> set[object]:
    """What was answered 200 before the process died; each is sent until there is nobody left."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        await until_it_serves(client)
        taken: set[object] = set()

        async def post(event: dict[str, object]) -> None:
            body = orjson.dumps(event)
            while True:
                headers = {"Stripe-Signature": sign(body, [SECRET], int(time.time()))}
                try:
                    answer = await client.post("/webhooks/stripe", content=body, headers=headers)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    taken.add(event["id"])

        await asyncio.gather(*map(post, events))
    return taken


async def until_it_serves(client: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            await client.get("/healthz")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        else:
            return
