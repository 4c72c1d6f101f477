"""What Stripe knows and we do not is found and mended, once, whatever happens on the way."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from services.payments.gateway import Nothing, StripeAway, StripeBarred, translate
from services.payments.gateway import listing as gateway_listing
from services.payments.reconcile import work
from services.payments.reconcile.runs import Cursor
from tests.payments.reconcile.conftest import Stripe

LIVES = (
    "card_success",
    "full_refund",
    "declined_then_succeeded",
    "dispute_lost",
    "canceled_unpaid",
    "refund_failed_after_success",
    "multi_capture",
    "bank_debit_failed",
)


async def test_events_that_never_arrived_are_stored_and_folded(stripe: Stripe) -> None:
    payments = stripe.play(*LIVES)
    events = stripe.events()
    await stripe.deliver(events[::2])
    report = await stripe.walk()
    assert {gap.subject for gap in report.gaps} == {each["id"] for each in events[1::2]}
    assert report.ok
    assert report.looked["events"] == len(events)
    await stripe.assert_true(payments)


async def test_a_second_walk_finds_nothing(stripe: Stripe) -> None:
    stripe.play(*LIVES)
    assert (await stripe.walk()).found > 0
    again = await stripe.walk()
    assert again.gaps == []
    assert again.looked["payments"] == len(LIVES)


async def test_what_arrived_is_no_gap(stripe: Stripe) -> None:
    stripe.play(*LIVES)
    await stripe.deliver(stripe.events())
    assert (await stripe.walk()).gaps == []


async def test_payments_of_which_no_event_was_ever_made_are_found_by_their_objects(
    stripe: Stripe,
) -> None:
    payments = stripe.play(*LIVES, never_made=1.0)
    assert stripe.events() == []
    report = await stripe.walk()
    assert report.ok
    assert {gap.kind for gap in report.gaps} == {"object"}
    await stripe.assert_true(payments)
    assert (await stripe.walk()).gaps == []


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_was_lost_or_never_made_the_rows_are_true(stripe: Stripe, seed: int) -> None:
    payments = stripe.play(*LIVES, *LIVES, seed=seed, never_made=0.4)
    events = stripe.events()
    await stripe.deliver(events[:: seed + 1])
    await stripe.walk()
    await stripe.assert_true(payments)
    assert (await stripe.walk()).gaps == []


async def test_an_object_says_when_it_was_paid_not_when_it_was_found(stripe: Stripe) -> None:
    [payment] = stripe.play("card_success", never_made=1.0)
    await stripe.walk()
    row = (await stripe.service.payments())[payment]
    charge = stripe.get(f"/v1/payment_intents/{payment}")["latest_charge"]
    booked = stripe.get("/v1/balance_transactions", source=charge)["data"]
    paid_at = booked[0]["created"]
    succeeded_at = row["succeeded_at"]
    assert hasattr(succeeded_at, "timestamp")
    assert succeeded_at.timestamp() == paid_at


async def test_the_window_includes_both_its_edges(stripe: Stripe) -> None:
    stripe.play("card_success")
    first, last = stripe.events()[0], stripe.events()[-1]
    stripe.begin += timedelta(seconds=first["created"] - stripe.begin.timestamp())
    stripe.hands.now = stripe.begin + timedelta(seconds=last["created"] - first["created"])
    report = await stripe.walk(lag=timedelta(0))
    assert {first["id"], last["id"]} <= {gap.subject for gap in report.gaps}


async def test_one_second_beyond_the_window_is_left_alone(stripe: Stripe) -> None:
    stripe.play("full_refund")  # days, not a second
    first, last = stripe.events()[0], stripe.events()[-1]
    length = last["created"] - first["created"]
    stripe.begin += timedelta(seconds=first["created"] - stripe.begin.timestamp() + 1)
    stripe.hands.now = stripe.begin + timedelta(seconds=length - 2)
    report = await stripe.walk(lag=timedelta(0))
    assert not {first["id"], last["id"]} & {gap.subject for gap in report.gaps}


async def test_events_of_one_second_are_all_seen_across_pages(
    stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe.play(*LIVES, tie_seconds=1.0)
    monkeypatch.setattr(gateway_listing, "PAGE_ITEMS", 3)
    events = stripe.events()
    report = await stripe.walk()
    assert {g.subject for g in report.gaps if g.kind == "event"} == {e["id"] for e in events}


async def test_what_happens_while_it_walks_moves_nothing(
    stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe's lists begin with the newest: a page that moved would be read twice, or never."""
    stripe.play(*LIVES)
    monkeypatch.setattr(gateway_listing, "PAGE_ITEMS", 5)
    before = {each["id"] for each in stripe.events()}
    opened = await start(stripe)
    for _ in range(2):
        assert await work.run_once(stripe.walker, timedelta(hours=1))
    stripe.at(stripe.hands.now)
    stripe.sandbox.client().v1.payment_intents.create({"amount": 100, "currency": "usd"})
    report = await stripe.walk()
    assert report.id == opened
    assert before == {gap.subject for gap in report.gaps if gap.kind == "event"}


async def start(stripe: Stripe) -> object:
    """The first step of a run over all since `begin`; its id."""
    await stripe.service.pool.execute(
        "INSERT INTO reconcile_runs (id, since, objects_since, until, cursors)"
        " VALUES (gen_random_uuid(), $1, $1, $2, $3::jsonb)",
        stripe.begin,
        stripe.hands.now - timedelta(minutes=5),
        orjson.dumps(Cursor("events")).decode(),
    )
    [run] = await stripe.service.rows("SELECT id FROM reconcile_runs")
    return run["id"]


async def test_metadata_that_changes_without_an_event_is_noticed(stripe: Stripe) -> None:
    [payment] = stripe.play("card_success")
    await stripe.deliver(stripe.events())
    other = "33333333-3333-4333-8333-333333333333"
    stripe.sandbox.client().v1.payment_intents.update(payment, {"metadata": {"user_id": other}})
    report = await stripe.walk()
    assert [gap.subject for gap in report.gaps] == [f"/v1/payment_intents/{payment}"]
    assert str((await stripe.service.payments())[payment]["user_id"]) == other


def thin(event: dict[str, Any]) -> dict[str, Any]:
    about = event["data"]["object"]
    kind = {"payment_intent": "payment_intents", "charge": "charges", "refund": "refunds"}
    return {
        "id": f"{event['id']}_thin",
        "object": "v2.core.event",
        "type": f"v1.{event['type']}",
        "created": datetime.fromtimestamp(event["created"], UTC).isoformat(),
        "livemode": False,
        "related_object": {"id": about["id"], "url": f"/v1/{kind[about['object']]}/{about['id']}"},
    }


async def test_to_a_shop_of_thin_events_only_what_an_object_says_is_news(stripe: Stripe) -> None:
    told, untold = stripe.play("card_success", "full_refund")
    events = stripe.events()
    heard = [e for e in events if told in str(e["data"]["object"])]
    await stripe.deliver([thin(each) for each in heard])
    stripe.hands.later(60)
    await stripe.service.ask_all(stripe.walker.client)
    report = await stripe.walk()
    assert {gap.kind for gap in report.gaps} == {"object"}
    assert f"/v1/payment_intents/{told}" not in {gap.subject for gap in report.gaps}
    await stripe.assert_true([told, untold])


async def test_what_comes_by_itself_meanwhile_is_no_gap(stripe: Stripe) -> None:
    """A webhook that is on its way while the lists are walked."""
    [payment] = stripe.play("card_success", never_made=1.0)
    other = stripe.walker.pool
    seen: list[datetime] = []
    delivered: list[datetime] = []

    async def sleep(seconds: float) -> None:
        stripe.hands.later(seconds)
        if not seen and await other.fetchval("SELECT count(*) FROM reconcile_gaps"):
            seen.append(stripe.hands.now)
        if seen and not delivered and stripe.hands.now - seen[0] > timedelta(seconds=30):
            delivered.append(stripe.hands.now)
            await stripe.deliver([arriving(stripe, payment)])

    report = await stripe.walk(sleep=sleep)
    assert delivered
    assert report.gaps == []
    await stripe.assert_true([payment])
    # That event tells of no charge: how it was paid is learnt, and is no gap.
    assert (await stripe.service.payments())[payment]["payment_method_type"] == "card"


def arriving(stripe: Stripe, payment: str) -> dict[str, object]:
    intent = stripe.get(f"/v1/payment_intents/{payment}")
    return {
        "id": f"evt_late_{payment}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": intent["created"] + 5,
        "livemode": False,
        "data": {"object": intent},
    }


async def test_what_stripe_cannot_have_gone_back_to_is_left_to_an_operator(stripe: Stripe) -> None:
    """A payment that we were told had succeeded, and that Stripe says waits for a card."""
    [payment] = stripe.play("left_unpaid")
    events = stripe.events()
    told = arriving(stripe, payment)
    told["data"] = {
        "object": {**intent_of(events), "status": "succeeded", "amount_received": 9_000}
    }
    await stripe.deliver([*events, told])
    report = await stripe.walk()
    assert not report.ok
    [gap] = report.gaps
    assert gap.mended_at is None
    assert "succeeded here" in gap.detail
    assert (await stripe.service.payments())[payment]["status"] == "succeeded"


def intent_of(events: list[dict[str, object]]) -> dict[str, object]:
    data = events[-1]["data"]
    assert isinstance(data, dict)
    intent: dict[str, object] = data["object"]
    return intent


async def test_a_fold_that_has_not_caught_up_is_waited_for(stripe: Stripe) -> None:
    stripe.play(*LIVES)
    await stripe.service.receive(stripe.events())
    assert (await stripe.walk(grace=timedelta(0))).gaps == []


async def test_stripe_away_for_good_ends_the_command_and_leaves_the_run(stripe: Stripe) -> None:
    payments = stripe.play("card_success")
    stripe.sandbox.control("POST", "outage", {"status": 503, "count": 1_000})
    with pytest.raises(StripeAway, match=r"last: Stripe: .*; the run goes on from here"):
        await stripe.walk()
    stripe.sandbox.control("POST", "outage", {"status": 503, "count": 0})
    [run] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    assert run["failures"] == work.MOST_FAILURES
    stripe.hands.later(3_600)
    report = await stripe.walk()
    assert report.id == run["id"]
    await stripe.assert_true(payments)


async def test_a_key_that_stripe_refuses_ends_the_command_at_once(stripe: Stripe) -> None:
    stripe.sandbox.control("POST", "outage", {"status": 401, "count": 1})
    began = stripe.hands.now
    with pytest.raises(StripeBarred):
        await stripe.walk()
    assert stripe.hands.now - began < timedelta(seconds=1)
    [run] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    assert (run["failures"], run["ended_at"]) == (1, None)
    stripe.sandbox.control("POST", "outage", {"status": 401, "count": 1})
    stripe.hands.later(60)
    assert await work.run_once(stripe.walker, timedelta(minutes=60)) == 0
    stripe.hands.later(60)
    assert (await stripe.walk()).id == run["id"]


async def test_an_account_that_took_its_access_back_is_told_and_left(stripe: Stripe) -> None:
    stripe.sandbox.control("POST", "outage", {"status": 403, "count": 2})
    with pytest.raises(StripeBarred):
        await work.reconcile(stripe.walker, stripe.begin, "acct_gone")
    stripe.hands.later(86_401)
    with pytest.raises(StripeBarred):
        await work.reconcile(stripe.walker, None, "acct_gone")
    [run] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    assert run["ended_at"] == stripe.hands.now
    [gap] = await stripe.service.rows("SELECT * FROM reconcile_gaps")
    assert (gap["subject"], gap["mended_at"]) == ("/v1/accounts/acct_gone", None)
    assert str(gap["detail"]).startswith("no access: Stripe: ")
    # Access is back: what happened meanwhile was never looked for.
    await work.reconcile(stripe.walker, None, "acct_gone")
    [_, after] = await stripe.service.rows("SELECT since FROM reconcile_runs ORDER BY started_at")
    assert isinstance(after["since"], datetime)
    assert after["since"] <= stripe.begin


async def test_a_refused_key_of_ours_is_no_accounts_fault(stripe: Stripe) -> None:
    stripe.sandbox.control("POST", "outage", {"status": 401, "count": 2})
    for _ in range(2):
        with pytest.raises(StripeBarred):
            await work.reconcile(stripe.walker, stripe.begin, "acct_well")
        stripe.hands.later(86_401)
    [run] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    assert run["ended_at"] is None
    assert await stripe.service.rows("SELECT * FROM reconcile_gaps") == []


async def test_reviews_and_methods_that_no_event_tells_of_are_found(stripe: Stripe) -> None:
    lives = ("review_refunded", "review_open", "authorized_only", "declined", "three_ds_failed")
    payments = stripe.play(*lives, never_made=1.0)
    await stripe.walk()
    truth = stripe.sandbox.control("GET", "truth?details=true")
    rows = await stripe.service.payments()
    for each in payments:
        for name in ("review", "payment_method_type", "three_d_secure"):
            assert rows[each][name] == truth[each][name], (each, name)
    assert (await stripe.walk()).found == 0


async def test_an_invoice_that_no_event_tells_of_is_found(stripe: Stripe) -> None:
    [payment] = stripe.play("invoiced", never_made=1.0)
    assert (await stripe.walk()).looked["invoice_payments"] == 1
    [part] = stripe.get("/v1/invoice_payments")["data"]
    row = (await stripe.service.payments())[payment]
    assert row["invoice_id"] == part["invoice"]
    assert (await stripe.walk()).found == 0


async def test_an_invoice_alone_is_told_and_no_gap(stripe: Stripe) -> None:
    """No money hangs on it, and not every shop is subscribed to its events."""
    [payment] = stripe.play("invoiced", never_made=1.0)
    refused = {"status": 403, "count": 1, "path": "/v1/invoice_payments"}
    stripe.sandbox.control("POST", "outage", refused)
    assert (await stripe.walk()).ok
    assert (await stripe.service.payments())[payment]["invoice_id"] is None
    assert (await stripe.walk()).gaps == []
    assert (await stripe.service.payments())[payment]["invoice_id"]


async def test_what_says_nothing_of_a_payment_is_no_gap(stripe: Stripe) -> None:
    stripe.play("invoiced")
    events = stripe.events()
    silent = {e["id"] for e in events if isinstance(translate(orjson.dumps(e)), Nothing)}
    assert silent
    report = await stripe.walk()
    assert report.found == len(events) - len(silent)
    stored = await stripe.service.rows("SELECT id FROM stripe_events")
    assert not silent & {row["id"] for row in stored}


@pytest.mark.parametrize("garbage", ["html", "truncated", "empty", "array", "bytes"])
async def test_what_is_no_list_is_asked_for_again(stripe: Stripe, garbage: str) -> None:
    payments = stripe.play("card_success")
    stripe.sandbox.control(
        "POST", "outage", {"status": "garbage", "garbage": garbage, "count": 2, "path": "/v1/"}
    )
    assert (await stripe.walk()).ok
    await stripe.assert_true(payments)


async def test_a_429_is_waited_out_as_long_as_stripe_says(stripe: Stripe) -> None:
    stripe.play("card_success")
    stripe.sandbox.control("POST", "outage", {"status": 429, "count": 1, "retry_after_seconds": 50})
    assert await work.run_once(stripe.walker, timedelta(hours=1)) == 0
    [run] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    before = stripe.hands.now
    assert run["walk_after"] == before + timedelta(seconds=50)
    stripe.hands.later(49)
    calls = stripe.sandbox.control("GET", "calls")
    assert await work.run_once(stripe.walker, timedelta(hours=1)) == 0
    assert stripe.sandbox.control("GET", "calls") == calls
    stripe.hands.later(2)
    assert await work.run_once(stripe.walker, timedelta(hours=1)) == 1


async def test_no_more_pages_are_asked_for_in_a_second_than_is_set(stripe: Stripe) -> None:
    stripe.play("card_success")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        stripe.hands.later(seconds)

    await stripe.walk(sleep=sleep, pace_per_second=4)
    # Events, payments, refunds, disputes, invoice payments, payouts.
    assert slept.count(0.25) == 6
