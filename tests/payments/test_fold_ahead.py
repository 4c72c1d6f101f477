"""What the folder remembers and reads ahead costs nothing that is promised."""

from random import Random

import asyncpg
import orjson
import pytest

from services.payments import fold, fold_batch
from services.payments.fold import Folder
from services.payments.gateway import Understood, open_envelope, translate
from services.payments.store import Arrival, insert
from shared import lease
from shared.db import raw_connect
from shared.errors import Unavailable
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import every_life, played
from tests.payments.test_fold import assert_announced, assert_true

DONE = "SELECT id FROM stripe_events WHERE status <> 'received' ORDER BY position"


@pytest.fixture
def folder(service: Service) -> Folder:
    return Folder(service.pool, "test", service.clock)


async def test_batches_read_ahead_make_the_same_payments_as_one(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = every_life(7)
    events = list(lives.events)
    Random(7).shuffle(events)
    await service.receive(events)
    monkeypatch.setattr(fold, "BATCH_EVENTS", 11)
    assert await folder.run_once() == 11 * fold.BATCHES_AT_ONCE
    while await folder.run_once():
        pass
    await service.fold_all()  # what a charge was waited for since
    await assert_true(service, lives)
    await assert_announced(service)


async def test_what_another_owner_folded_since_it_was_read_ahead_is_not_folded_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = played(3, ["card_success", "full_refund", "card_success"])
    await service.receive(lives.events)
    monkeypatch.setattr(fold, "BATCH_EVENTS", 2)
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1)  # over at once: whoever asks next takes it

    class Stalled(Folder):
        turns = 0

        async def _owns(self, connection: asyncpg.Connection) -> bool:
            """Behind its first batch it stalls; another does all the rest, then it has the lease again."""
            self.turns += 1
            if self.turns == 2:
                while await fold.run_once(service.pool, "another", service.clock):
                    pass
            return await super()._owns(connection)

    monkeypatch.setattr(fold, "RENEW_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="another owner"):
        await Stalled(service.pool, "test", service.clock).run_once()
    await assert_true(service, lives)
    await assert_announced(service)


async def test_a_webhook_that_is_committed_behind_a_later_one_is_found_at_once(
    service: Service, folder: Folder, database: Database
) -> None:
    early, late = (played(seed, ["card_success"]).events for seed in (1, 2))
    bodies = [orjson.dumps(event) for event in early]
    slow = await raw_connect(database.url_for("payments"), "payments")
    try:
        transaction = slow.transaction()
        await transaction.start()
        await insert(slow, [Arrival(open_envelope(body), body, None) for body in bodies])
        await service.receive(late)
        assert await folder.run_once() == len(late)
        await transaction.commit()
    finally:
        await slow.close()
    assert await folder.run_once() == len(early)


async def test_whatever_lies_far_behind_is_found_by_the_next_look_at_everything(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.receive(played(1, ["card_success"]).events)
    await folder.run_once()
    await service.rows(
        "UPDATE stripe_events SET status = 'received'"
    )  # as a retry of all parked does
    monkeypatch.setattr(fold, "OVERLAP_POSITIONS", 0)
    assert await folder.run_once() == 0
    monkeypatch.setattr(folder, "_look_at", 0.0)
    assert await folder.run_once() == len(played(1, ["card_success"]).events)


async def test_what_waited_for_a_charge_is_folded_as_soon_as_that_is_known(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "OVERLAP_POSITIONS", 0)
    monkeypatch.setattr(fold, "LOOK_BACK_SECONDS", 3_600.0)
    monkeypatch.setattr(fold, "LOOK_BACK_PAUSES", 0)
    lives = played(1, ["full_refund"])
    refunds = [e for e in lives.events if e["data"]["object"]["object"] == "refund"]
    for event in refunds:
        event["data"]["object"]["payment_intent"] = None  # as in shapes that name the charge alone
    await service.receive(refunds)
    await folder.run_once()
    assert await service.rows(DONE) == []
    await service.receive(event for event in lives.events if event not in refunds)
    await folder.run_once()
    assert await folder.run_once() == len(refunds)
    assert len(await service.rows(DONE)) == len(lives.events)


async def test_bodies_that_are_large_are_folded_a_few_at_a_time(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = played(1, ["card_success"]).events
    await service.receive(events)
    monkeypatch.setattr(fold, "BATCHES_AT_ONCE", 1)
    monkeypatch.setattr(fold, "BATCH_BYTES", len(orjson.dumps(events[0])) + 1)
    assert await folder.run_once() == 1


async def test_a_lease_is_not_renewed_with_each_batch(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = 0
    take = lease.take

    async def counted(connection: asyncpg.Connection, name: str, holder: str) -> int | None:
        nonlocal renewed
        renewed += 1
        return await take(connection, name, holder)

    monkeypatch.setattr(lease, "take", counted)
    monkeypatch.setattr(fold, "BATCH_EVENTS", 1)
    await service.receive(played(1, ["full_refund"]).events)
    await folder.run_once()
    assert renewed == 1


async def test_what_cannot_be_understood_ahead_is_parked_alone_in_its_own_batch(
    service: Service, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = played(1, ["card_success", "card_success", "card_success"])
    culprit = lives.events[7]
    own = {e["id"] for e in lives.events} - {culprit["id"]}

    def stumbling(body: bytes) -> Understood:
        if orjson.loads(body)["id"] == culprit["id"]:
            raise RecursionError("too deep")
        return translate(body)

    monkeypatch.setattr(fold_batch, "translate", stumbling)
    monkeypatch.setattr(
        fold, "BATCH_EVENTS", 1
    )  # halving could not tell it from the event before it
    await service.receive(lives.events)
    while await folder.run_once():
        pass
    assert await service.fate(culprit["id"]) == ("parked", "RecursionError: too deep")
    assert {(await service.fate(event))[0] for event in own} == {"applied"}
