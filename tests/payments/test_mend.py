"""Rows that an earlier release folded are put right: rows, revisions and facts, and nothing is said that was said."""

import asyncio
from random import Random
from typing import Any

import orjson
import pytest

from services.payments import fold, mend, rebuild, reread
from services.payments.gateway import StripeClient
from services.payments.mend import HOLD_FOLD, Mended
from services.payments.reread import Passed
from shared.db import create_engine, create_sessions
from shared.events import PaymentChanged
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import played
from tests.payments.proof.test_killed import DONE, MOST_AWAITS, Killer, killer
from tests.payments.test_fold import assert_announced
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["killer", "sandbox"]

# A chunk has some 30 awaits: some deaths before, within and after each.  One is every await.
EVERY_AWAIT = 7
LIVES = ("full_refund", "card_success", "dispute_won", "review_refunded", "partial_refunds")
FACTS = "SELECT payload::text AS payload, headers::text AS headers FROM outbox ORDER BY position"
# As a release leaves them that did not know what was paid with.
OLDER = """
UPDATE payment_intents SET payment_method_type = NULL, fold = fold - 'method'
WHERE stripe_id IN (SELECT stripe_id FROM payment_intents ORDER BY stripe_id LIMIT 3)
"""
UNTOLD = "UPDATE outbox SET payload = payload - 'payment_method_type'"


@pytest.fixture
async def lived(service: Service) -> Service:
    lives = played(5, LIVES)
    events = list(lives.events)
    Random(5).shuffle(events)
    await service.receive(events)
    while await service.fold_all():
        pass
    return service


async def mended(service: Service) -> Mended:
    return await mend.mend(service.pool, service.clock)


async def proven(database: Database) -> rebuild.Rebuilt:
    engine = create_engine(database.url_for("payments"), "payments")
    try:
        async with create_sessions(engine)() as session:
            return await rebuild.rebuild(session)
    finally:
        await engine.dispose()


async def facts(service: Service) -> list[PaymentChanged]:
    return [
        PaymentChanged.model_validate_json(str(row["payload"])) for row in await service.rows(FACTS)
    ]


async def test_where_all_agree_nothing_is_written(lived: Service) -> None:
    before = await lived.payments(), await facts(lived)
    done = await mended(lived)
    assert (done.agreed, done.mended, done.given_back, done.left) == (len(LIVES), 0, 0, [])
    assert (await lived.payments(), await facts(lived)) == before


async def test_a_row_that_differs_is_written_and_what_nobody_was_told_is_announced(
    lived: Service, database: Database
) -> None:
    before = await lived.payments()
    said = len(await facts(lived))
    await lived.rows(OLDER)
    await lived.rows(UNTOLD)
    assert len((await proven(database)).differed) == 3
    done = await mended(lived)
    assert (done.agreed, done.mended, done.announced, done.ok) == (len(LIVES) - 3, 3, 3, True)
    assert done.columns["fold"] == 3
    assert (await proven(database)).ok
    after = await lived.payments()
    for change in done.changes:
        row = before[change.stripe_id]
        assert after[change.stripe_id] == {**row, "revision": change.revision}
        assert change.revision == int(str(row["revision"])) + 1
        assert change.columns["payment_method_type"] == (None, "card")
    await assert_announced(lived)
    assert len(await facts(lived)) == said + 3
    [cause] = {
        orjson.loads(str(row["headers"]))["ce_causationid"]
        for row in (await lived.rows(FACTS))[said:]
    }
    assert cause == "mend:payments"
    again = await mended(lived)
    assert (again.agreed, again.mended) == (len(LIVES), 0)


async def test_what_others_know_already_is_not_announced_again(
    lived: Service, database: Database
) -> None:
    before = await lived.payments()
    said = await facts(lived)
    await lived.rows(
        "UPDATE payment_intents SET review = NULL, three_d_secure = 'x', net_minor = 1"
    )
    done = await mended(lived)
    assert (done.mended, done.announced) == (len(LIVES), 0)
    assert done.columns == {"review": 1, "three_d_secure": len(LIVES), "net_minor": len(LIVES)}
    assert (await lived.payments(), await facts(lived)) == (before, said)


async def test_a_fold_that_lacks_what_no_event_told_is_no_difference(
    lived: Service, database: Database
) -> None:
    await lived.rows("UPDATE payment_intents SET fold = fold - 'denied' - 'saved'")
    assert (await proven(database)).ok
    await lived.rows("UPDATE payment_intents SET fold = fold || '{\"unheard_of\": 1}'")
    assert len((await proven(database)).differed) == len(LIVES)


async def test_a_row_that_was_lost_comes_back_at_the_revision_that_was_told_last(
    lived: Service, database: Database
) -> None:
    before = await lived.payments()
    lost = min(before)
    await lived.rows("DELETE FROM payment_intents WHERE stripe_id = $1", lost)
    assert (await proven(database)).differed == [(lost, "applied to no row")]
    done = await mended(lived)
    assert [(each.stripe_id, each.why, each.announced) for each in done.changes] == [
        (lost, "applied to no row", False)
    ]
    assert await lived.payments() == before
    await lived.rows("DELETE FROM payment_intents WHERE stripe_id = $1", lost)
    await lived.rows("DELETE FROM outbox")
    assert [each.revision for each in (await mended(lived)).changes] == [1]


async def test_an_event_of_another_payment_is_given_back_to_the_fold(
    lived: Service, database: Database
) -> None:
    before = await lived.payments()
    one, other = sorted(before)[:2]
    await lived.rows(
        "UPDATE stripe_events SET stripe_payment_id = $1 WHERE id = (SELECT min(id) FROM stripe_events"
        " WHERE stripe_payment_id = $2 AND type = 'payment_intent.succeeded')",
        one,
        other,
    )
    done = await mended(lived)
    assert (done.given_back, done.left) == (1, [])
    assert await lived.fold_all() == 1
    assert (await proven(database)).ok
    after = await lived.payments()
    assert {n: {**row, "revision": 0} for n, row in after.items()} == {
        n: {**row, "revision": 0} for n, row in before.items()
    }
    await assert_announced(lived)


async def test_an_event_of_another_mode_is_not_joined(lived: Service, database: Database) -> None:
    [row] = await lived.rows(
        "UPDATE stripe_events SET body = convert_to(replace(convert_from(body, 'UTF8'),"
        " '\"livemode\":false', '\"livemode\":true'), 'UTF8') WHERE position = ("
        "  SELECT max(position) FROM stripe_events WHERE type LIKE 'refund.%') RETURNING id"
    )
    assert (await mended(lived)).given_back == 1
    await lived.fold_all()
    status, detail = await lived.fate(row["id"])
    assert status == "parked"
    assert "another mode or account" in str(detail)
    assert (await proven(database)).ok


async def test_what_cannot_be_said_is_left_as_it_is_and_named(lived: Service) -> None:
    before = await lived.payments()
    dumb, nameless = sorted(before)[:2]
    await lived.rows("UPDATE stripe_events SET body = 'null' WHERE stripe_payment_id = $1", dumb)
    await lived.rows("DELETE FROM stripe_events WHERE stripe_payment_id = $1", nameless)
    done = await mended(lived)
    assert done.left == [
        (dumb, "an event is not understood: the event is no JSON object"),
        (nameless, "no event says what it is"),
    ]
    assert not done.ok
    assert await lived.payments() == before


async def test_what_an_earlier_release_ignored_is_read_again(
    lived: Service, database: Database
) -> None:
    before = await lived.payments()
    [row] = await lived.rows(
        "UPDATE payment_intents SET review = NULL, fold = fold || '{\"reviews\": {}}'"
        " WHERE review IS NOT NULL RETURNING stripe_id"
    )
    ignored = await lived.rows(
        "UPDATE stripe_events SET status = 'ignored', stripe_payment_id = NULL,"
        " detail = 'a review says nothing of a payment''s money'"
        " WHERE type LIKE 'review.%' RETURNING id"
    )
    assert ignored
    assert (await proven(database)).ok
    assert await reread.count(lived.pool, lived.clock) == Passed(len(ignored), 0)
    assert await reread.give_all_back(lived.pool, lived.clock) == Passed(len(ignored), 0)
    assert await lived.fold_all() == len(ignored)
    assert await reread.count(lived.pool, lived.clock) == Passed(0, 0)
    assert (await lived.payments())[str(row["stripe_id"])] == before[str(row["stripe_id"])]


async def test_what_is_ignored_for_good_stays_so(
    lived: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "CHUNK_EVENTS", 1)  # a refund and the charge that it names apart
    lives = played(9, ["full_refund"])
    [charge] = {e["data"]["object"]["id"] for e in lives.events if e["type"] == "charge.succeeded"}
    lonely = [e for e in lives.events if e["data"]["object"]["object"] in ("charge", "refund")]
    for event in lonely:
        event["data"]["object"]["payment_intent"] = None
        event["data"]["object"].setdefault("charge", charge)
    odd = {**lonely[0], "id": "evt_payout", "data": {"object": {"object": "payout", "id": "po_1"}}}
    await lived.receive([*lonely, odd])
    await lived.fold_all()
    lived.livemode = True
    await lived.receive(played(10, ["card_success"]).events)
    await lived.fold_all()
    assert {row["status"] for row in await lived.rows("SELECT status FROM stripe_events")} == {
        "applied",
        "ignored",
    }
    assert await reread.give_all_back(lived.pool, lived.clock) == Passed(0, 0)


async def test_what_was_redacted_before_it_could_be_read_is_counted_and_left(
    lived: Service,
) -> None:
    await lived.rows(
        "UPDATE stripe_events SET status = 'ignored', redacted_at = now(), body = convert_to(("
        "  jsonb_build_object('object', 'event', 'id', id, 'type', type, 'created', 1, 'data',"
        "  jsonb_build_object('object', jsonb_build_object('object', 'review', 'id', 'prv_1'))))::text, 'UTF8')"
        " WHERE type = 'review.opened'"
    )
    assert await reread.give_all_back(lived.pool, lived.clock) == Passed(0, 1)
    await lived.rows("UPDATE stripe_events SET redacted_at = NULL")
    assert await reread.give_all_back(lived.pool, lived.clock) == Passed(1, 0)
    await lived.fold_all()
    [row] = await lived.rows("SELECT status FROM stripe_events WHERE type = 'review.opened'")
    assert row["status"] == "parked"


async def test_a_mend_and_the_fold_wait_for_each_other(lived: Service, database: Database) -> None:
    """What was folded while it waited is no difference any more."""
    whole = await lived.payments()
    await lived.rows(OLDER)
    first = min(whole)
    async with lived.pool.acquire() as connection, connection.transaction():
        await connection.execute(HOLD_FOLD, fold.LEASE)
        waiting = asyncio.create_task(mended(lived))
        await until_somebody_waits(lived)
        await connection.execute(
            "UPDATE payment_intents SET payment_method_type = 'card', fold = $2::jsonb WHERE stripe_id = $1",
            first,
            whole[first]["fold"],
        )
    done = await waiting
    assert (done.agreed, done.mended, done.left) == (len(LIVES) - 2, 2, [])
    assert (await proven(database)).ok


# For a row's lock pg_locks names no database, and other tests wait in theirs.
WAITING = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def until_somebody_waits(service: Service) -> None:
    async with asyncio.timeout(10):
        while not await service.rows(WAITING):
            await asyncio.sleep(0.005)


async def test_a_mend_that_is_killed_leaves_whole_chunks_and_the_next_one_goes_on(
    lived: Service, database: Database, killer: Killer
) -> None:
    before = await lived.payments()
    said = len(await facts(lived))
    await lived.rows(OLDER.replace("LIMIT 3", "LIMIT 5"))
    await lived.rows(UNTOLD)
    done: list[int] = []
    for at in range(0, MOST_AWAITS, EVERY_AWAIT):
        ended = killer.run("mend", database.url_for("payments"), at)
        done.append(len(await facts(lived)) - said)
        await assert_announced(lived)
        if ended == DONE:
            break
    assert done[0] == 0
    assert {2, 4} < set(done)
    assert done[-1] == 5
    assert (await proven(database)).ok
    assert {n: row["revision"] for n, row in (await lived.payments()).items()} == {
        name: int(str(row["revision"])) + 1 for name, row in before.items()
    }


async def test_a_charges_event_under_a_wrong_payment_goes_to_its_own(
    service: Service, sandbox: RunningSandbox, hands: Hands, database: Database
) -> None:
    one, other = sandbox.play("full_refund", "card_success", spread_seconds=60)
    listed = StripeClient("sk_test_mend", sandbox.url)
    page = await listed.page("/v1/events", None, {"limit": "100"})
    events = [e for e in (each.model_dump() for each in page.data) if about(e) in (one, other)]
    for event in events:
        if event["data"]["object"]["object"] == "refund":
            event["data"]["object"]["payment_intent"] = None
    await service.receive(reversed(events))
    while await service.fold_all():
        pass
    before = await service.payments()
    assert before[one]["refunded_minor"] == 9_000
    await service.rows(
        "UPDATE stripe_events SET stripe_payment_id = $1 WHERE type LIKE 'refund%'", other
    )
    await service.rows("UPDATE stripe_charges SET stripe_payment_id = $1", other)
    found = dict((await proven(database)).differed)
    assert "which is not known as its charge" in found[other]
    assert (await mended(service)).given_back > 0
    await service.fold_all()
    hands.later(61)
    await service.ask_all(listed)
    await listed.close()
    assert (await proven(database)).ok
    after = await service.payments()
    for name in (one, other):
        assert after[name]["refunded_minor"] == before[name]["refunded_minor"]


def about(event: dict[str, Any]) -> object:
    told = event["data"]["object"]
    return told["id"] if told["object"] == "payment_intent" else told.get("payment_intent")
