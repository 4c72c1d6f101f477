"""Raw events become rows and facts: in any order, in any batches, whatever dies or does not make sense."""

import asyncio
from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg
import orjson
import pytest
from asyncpg import Connection
from structlog.testing import capture_logs

from embedded.stripe_sandbox import Played
from services.payments import fold, fold_records
from services.payments.gateway import mode_of
from shared import lease
from shared.errors import Unavailable
from shared.events import PaymentChanged, derived_id
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER, every_life, played

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
MONEY = (
    "status",
    "currency",
    "amount_minor",
    "capturable_minor",
    "received_minor",
    "refunded_minor",
    "disputed_minor",
    "failure_code",
)


async def assert_true(service: Service, lives: Played) -> None:
    payments = await service.payments()
    assert set(payments) == set(lives.truth)
    for stripe_id, truth in lives.truth.items():
        if stripe_id in lives.undecidable:
            continue
        row = payments[stripe_id]
        assert {name: row[name] for name in MONEY} == {name: truth[name] for name in MONEY}
        assert (row["user_id"], row["subscription_id"]) == (USER, SUBSCRIPTION)
        assert row["id"] == derived_id("payment", stripe_id)
        assert row["anomaly"] is None


async def outbox(service: Service) -> list[PaymentChanged]:
    rows = await service.rows("SELECT payload FROM outbox ORDER BY position")
    return [PaymentChanged.model_validate(orjson.loads(str(row["payload"]))) for row in rows]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_order_and_batches_the_rows_are_the_truth(
    service: Service, seed: int
) -> None:
    lives = every_life(seed, ties=0.3)
    dice = Random(seed)
    events = [*lives.events, *dice.choices(lives.events, k=200)]
    dice.shuffle(events)
    for start in range(0, len(events), 60):
        await service.receive(events[start : start + 60])
        await service.fold_all()
    await assert_true(service, lives)
    await assert_announced(service)
    unread = "SELECT type FROM stripe_events WHERE status <> 'applied'"
    # In today's shape an invoice names no payment; its invoice_payment does.
    assert {row["type"] for row in await service.rows(unread)} <= {"invoice.paid"}


async def assert_announced(service: Service) -> None:
    """Revisions 1..n, each once, and the last one says what the row says."""
    said: dict[UUID, list[PaymentChanged]] = {}
    for fact in await outbox(service):
        said.setdefault(fact.payment_id, []).append(fact)
    rows = {row["id"]: row for row in (await service.payments()).values()}
    assert set(said) == set(rows)
    for payment_id, facts in said.items():
        assert [fact.revision for fact in facts] == list(range(1, len(facts) + 1))
        last, row = facts[-1], rows[payment_id]
        assert {name: getattr(last, name) for name in MONEY} == {n: row[n] for n in MONEY}
        assert last.revision == row["revision"]
        assert last.customer_id == row["user_id"]
        assert sum(m.amount_minor for m in last.movements if m.kind == "refund") == (
            last.refunded_minor
        )


async def test_a_repeated_event_is_stored_and_announced_once(service: Service) -> None:
    lives = played(1, ["card_success"])
    for _ in range(3):
        await service.receive([*lives.events, *lives.events])
        await service.fold_all()
    assert len(await service.rows("SELECT id FROM stripe_events")) == len(lives.events)
    assert len(await outbox(service)) == 1


async def test_when_a_refund_came_back_is_corrected_by_an_earlier_word_that_comes_late(
    service: Service,
) -> None:
    lives = played(1, ["refund_failed_after_success"])
    late = [e for e in lives.events if e["data"]["object"].get("status") == "failed"]
    again = {**late[-1], "id": "evt_again", "created": int(late[0]["created"]) + 1_000}
    await service.receive([*(e for e in lives.events if e not in late), again])
    await service.fold_all()
    [before] = await outbox(service)
    await service.receive(late)
    await service.fold_all()
    [_, after] = await outbox(service)
    assert before.movements[-1].at - after.movements[-1].at == timedelta(seconds=1_000)


async def test_a_change_names_its_cause_and_keeps_its_id_for_ever(service: Service) -> None:
    lives = played(1, ["card_success"])
    await service.receive(lives.events)
    await service.fold_all()
    [row] = await service.rows("SELECT id, aggregateid, headers FROM outbox")
    payment_id = derived_id("payment", next(iter(lives.truth)))
    assert row["id"] == derived_id("payments.payment_changed", payment_id, 1)
    assert row["aggregateid"] == str(USER)
    headers = orjson.loads(str(row["headers"]))
    assert headers["ce_causationid"] in {f"stripe:{event['id']}" for event in lives.events}


async def test_a_crash_before_the_commit_leaves_no_trace_and_the_retry_counts(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = played(1, ["full_refund"])
    await service.receive(lives.events)

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    for step in ("learn_charges", "write", "stage", "mark", "release", "ask"):
        with monkeypatch.context() as patched:
            patched.setattr(fold_records, step, die)
            with pytest.raises(asyncio.CancelledError):
                await service.fold_all()
        assert await service.payments() == {}
        assert await outbox(service) == []
    await service.fold_all()
    await assert_true(service, lives)
    assert len(await outbox(service)) == 1


async def test_two_folders_that_take_the_lease_from_each_other_lose_and_repeat_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = every_life(4)
    events = list(lives.events)
    Random(4).shuffle(events)
    await service.receive(events)
    monkeypatch.setattr(fold, "BATCH_EVENTS", 40)
    # Over at once: whoever asks next takes it, also in the midst of the other's batch.
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1)
    lost = 0
    take, robbed = lease.take, False

    async def take_and_be_robbed(connection: Connection, name: str, holder: str) -> int | None:
        """The first folder's first lease is taken from it before its batch begins, not only by chance."""
        nonlocal robbed
        fence = await take(connection, name, holder)
        if holder == "first" and not robbed:
            robbed = True
            async with service.pool.acquire() as other:
                assert await take(other, name, "second") is not None
        return fence

    monkeypatch.setattr(lease, "take", take_and_be_robbed)

    async def fold_as(holder: str) -> None:
        nonlocal lost
        while await service.rows("SELECT id FROM stripe_events WHERE status = 'received' LIMIT 1"):
            try:
                await fold.run_once(service.pool, holder, service.clock)
            except Unavailable:
                lost += 1

    await asyncio.gather(fold_as("first"), fold_as("second"))
    assert lost > 0
    await assert_true(service, lives)
    await assert_announced(service)


async def test_a_culprit_stands_alone_and_the_others_flow_on(service: Service) -> None:
    lives = played(1, ["card_success"] * 5)
    poison = orjson.loads(orjson.dumps(lives.events[0]))
    poison["id"] = "evt_poison"
    poison["data"]["object"]["id"] = "pi_poison"
    # A number like any other to the translation, and no moment of any calendar.
    poison["data"]["object"]["created"] = 2**39
    await service.receive([*lives.events[:3], poison, *lives.events[3:]])
    await service.fold_all()
    await assert_true(service, lives)
    status, detail = await service.fate("evt_poison")
    assert status == "parked"
    assert detail


async def test_a_payment_whose_texts_no_column_takes_is_kept_and_reported(service: Service) -> None:
    lives = played(1, ["declined_then_succeeded"])
    for event in lives.events:
        content = event["data"]["object"]
        content["metadata"] = {
            "user_id": "a\x00b",
            "subscription_id": str(SUBSCRIPTION),
            "\x00": "x",
        }
        if content.get("last_payment_error"):
            content["last_payment_error"]["decline_code"] = "no\x00money"
    failed = next(e for e in lives.events if e["type"] == "payment_intent.payment_failed")
    await service.receive([e for e in lives.events if e["created"] <= failed["created"]])
    await service.fold_all()
    [row] = (await service.payments()).values()
    assert row["failure_code"] == "no\\x00money"
    assert (await outbox(service))[-1].failure_code == "no\\x00money"
    await service.receive(lives.events)
    await service.fold_all()
    [(stripe_id, row)] = (await service.payments()).items()
    assert row["received_minor"] == lives.truth[stripe_id]["received_minor"]
    assert (row["user_id"], row["subscription_id"]) == (None, SUBSCRIPTION)
    status, detail = await service.fate(failed["id"])
    assert status == "applied"
    assert "is no UUID" in str(detail)
    assert await service.rows("SELECT id FROM stripe_events WHERE status <> 'applied'") == []


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"currency": "zzz"}, "parked", "ISO 4217"),
        ({"status": "requires_prayer"}, "parked", "requires_prayer"),
        ({"amount": -5}, "parked", "amount"),
        ({"object": "customer"}, "ignored", "customer"),
        ({"metadata": {"user_id": "bob"}}, "applied", "user_id is no UUID"),
    ],
)
async def test_what_became_of_an_event_says_why(
    service: Service, change: dict[str, object], status: str, reason: str
) -> None:
    [event, *_] = played(1, ["left_unpaid"]).events
    event["data"]["object"] |= change
    await service.receive([event])
    await service.fold_all()
    assert (await service.fate(event["id"]))[0] == status
    assert reason in str((await service.fate(event["id"]))[1])


async def test_the_log_counts_each_batch_and_names_the_trace_of_what_was_parked(
    service: Service,
) -> None:
    lives = played(1, ["card_success"])
    unknown, impossible = (orjson.loads(orjson.dumps(lives.events[0])) for _ in range(2))
    unknown |= {"id": "evt_unknown"}
    unknown["data"]["object"]["currency"] = "zzz"
    impossible |= {"id": "evt_impossible"}
    impossible["data"]["object"] |= {"id": "pi_impossible", "created": 2**39}
    await service.receive([*lives.events, unknown, impossible])
    await service.pool.execute("UPDATE stripe_events SET traceparent = $1", TRACEPARENT)
    with capture_logs() as lines:
        await service.fold_all()
    folded = [line for line in lines if line["event"] == "folded"]
    assert sum(line["events"] for line in folded) == len(lives.events) + 1
    assert sum(line["payments_changed"] for line in folded) >= 1
    assert all(line["took_ms"] >= 0 for line in folded)
    parked = {line["event_id"]: line for line in lines if line["event"] == "stripe event parked"}
    assert parked["evt_impossible"]["trace_id"] == "a" * 32
    assert parked["evt_unknown"]["trace_id"] == "a" * 32


@pytest.mark.parametrize(
    ("api_key", "modes"),
    [
        ("sk_live_1", {True}),
        ("rk_live_1", {True}),
        ("sk_test_1", {False}),
        ("rk_test_1", {False}),
        ("", {True, False}),
        ("something", {True, False}),
    ],
)
async def test_events_of_the_keys_own_mode_alone_are_folded(
    service: Service, api_key: str, modes: set[bool]
) -> None:
    lives = played(1, ["card_success"] * 2)
    [live, _] = lives.truth
    for event in lives.events:
        event["livemode"] = live in str(event)
    await service.receive(lives.events)
    service.livemode = mode_of(api_key)
    await service.fold_all()
    assert {row["livemode"] for row in (await service.payments()).values()} == modes
    fates = await service.rows("SELECT livemode, status, detail FROM stripe_events")
    for fate in fates:
        assert fate["status"] == ("applied" if fate["livemode"] in modes else "ignored")
        assert fate["status"] == "applied" or "mode, and STRIPE_API_KEY" in str(fate["detail"])


async def test_a_refund_waits_for_the_charge_that_says_whose_it_is(service: Service) -> None:
    lives = played(1, ["full_refund"])
    stripped = [orjson.loads(orjson.dumps(event)) for event in lives.events]
    refunds = [e for e in stripped if e["data"]["object"]["object"] == "refund"]
    for event in refunds:
        event["data"]["object"]["payment_intent"] = None
    await service.receive(refunds)
    await service.fold_all()
    [charge] = {str(e["data"]["object"]["charge"]) for e in refunds}
    waiting = await service.rows("SELECT DISTINCT status, waiting_for FROM stripe_events")
    assert waiting == [{"status": "received", "waiting_for": charge}]

    await service.receive([e for e in stripped if e not in refunds])
    await service.fold_all()
    await assert_true(service, lives)
    assert await service.rows("SELECT id FROM stripe_events WHERE status <> 'applied'") == []


async def test_a_charge_without_a_payment_intent_is_ignored_with_its_refunds(
    service: Service,
) -> None:
    lives = played(1, ["full_refund"])
    lonely = [e for e in lives.events if not e["type"].startswith("payment_intent.")]
    for event in lonely:
        event["data"]["object"]["payment_intent"] = None
    refunds_first = sorted(lonely, key=lambda e: e["data"]["object"]["object"] == "charge")
    for event in refunds_first:
        await service.receive([event])
        await service.fold_all()
    fates = await service.rows("SELECT DISTINCT status FROM stripe_events")
    assert fates == [{"status": "ignored"}]


async def test_facts_wait_until_something_says_what_the_payment_is(service: Service) -> None:
    lives = played(1, ["card_success"])
    own = [e for e in lives.events if e["type"].startswith("payment_intent.")]
    await service.receive([e for e in lives.events if e not in own])
    await service.fold_all()
    assert await service.payments() == {}
    await service.receive(own)
    await service.fold_all()
    await assert_true(service, lives)


async def test_an_idle_fold_writes_nothing(service: Service, hands: Hands) -> None:
    assert await service.fold_all() == 0
    assert await service.rows("SELECT name FROM leases") == []


async def test_a_folder_without_the_lease_leaves_the_work(service: Service) -> None:
    await service.receive(played(1, ["card_success"]).events)
    async with service.pool.acquire() as connection:
        await lease.take(connection, fold.LEASE, "another")
    assert await fold.run_once(service.pool, "test", service.clock) == 0


async def test_a_database_that_goes_away_is_waited_for_not_parked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.receive(played(1, ["card_success"]).events)

    async def away(*_: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(fold_records, "write", away)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await service.fold_all()
    assert await service.rows("SELECT id FROM stripe_events WHERE status <> 'received'") == []
