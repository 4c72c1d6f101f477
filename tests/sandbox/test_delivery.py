"""Webhooks arrive signed, are sent again until taken, and go wrong only as asked."""

import base64
import socket
from collections import Counter
from random import Random

import httpx
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from embedded.stripe_sandbox import API_VERSION
from embedded.stripe_sandbox.faults import Faults, plan
from tests.sandbox.conftest import Receiver, RunningSandbox

QUICK = {"first_retry_after_seconds": 0.05, "longest_retry_after_seconds": 0.2}


def listen(sandbox: RunningSandbox, receiver: Receiver, **patience: object) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_old", "whsec_new"]}
    order = {"endpoints": [endpoint], "patience": {**QUICK, **patience}}
    sandbox.control("PUT", "endpoints", order)


def drain(sandbox: RunningSandbox) -> dict[str, object]:
    counts: dict[str, object] = sandbox.control("POST", "drain", {"timeout_seconds": 30})
    assert counts["drained"] is True
    return counts


def failed_so_far(sandbox: RunningSandbox) -> int:
    return int(sandbox.control("GET", "deliveries")["failed"])


@pytest.mark.parametrize("secret", ["whsec_old", "whsec_new"])
def test_stripes_client_accepts_the_signature_under_either_secret(
    sandbox: RunningSandbox, receiver: Receiver, secret: str
) -> None:
    listen(sandbox, receiver)
    sandbox.play("full_refund", seed=1)
    drain(sandbox)

    assert len(receiver.bodies) >= 5
    for body, signature in zip(receiver.bodies, receiver.signatures, strict=True):
        event = stripe.Webhook.construct_event(body.decode(), signature, secret)
        assert (event.api_version, event.livemode) == (API_VERSION, False)
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body.decode() + " ", signature, secret)


def test_one_at_a_time_everything_arrives_once_and_in_order(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver, concurrency=1)
    sandbox.play(*["partial_refunds", "dispute_won"] * 5, seed=2)
    drain(sandbox)
    listed = [
        event.id for event in sandbox.client().v1.events.list({"limit": 100}).auto_paging_iter()
    ]
    mine = set(receiver.ids)
    assert receiver.ids == [each for each in reversed(listed) if each in mine]
    assert len(mine) == len(receiver.ids)


def test_a_refused_event_is_sent_again_until_it_is_taken(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    receiver.refuse = [500, 429, 301, 400]
    listen(sandbox, receiver)
    sandbox.play("card_success", seed=3)
    drain(sandbox)
    again = Counter(receiver.ids)
    assert sum(again.values()) == len(again) + 4
    assert failed_so_far(sandbox) == 0


def test_an_endpoint_that_is_down_misses_nothing_once_it_is_up(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        down = {"url": f"http://127.0.0.1:{held.getsockname()[1]}/", "secrets": ["whsec_new"]}
        sandbox.control("PUT", "endpoints", {"endpoints": [down], "patience": QUICK})
        sandbox.play("card_success", seed=4)
        counts = sandbox.control("POST", "drain", {"timeout_seconds": 0.3})
        assert (counts["drained"], counts["pending"] >= 3) == (False, True)
        assert "Connect" in counts["last_error"]
        undelivered = sandbox.client().v1.events.list({"delivery_success": False, "limit": 100})
        awaited = {event.id for event in undelivered.data}
        assert len(awaited) >= 3
        address = held.getsockname()

    with receiver.also_at(address):
        drain(sandbox)
    assert set(receiver.ids) <= awaited
    assert len(receiver.ids) >= 3


def test_a_rolled_secret_signs_the_next_attempt(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    receiver.refuse = [500] * 1_000
    listen(sandbox, receiver, concurrency=1)
    sandbox.play("card_success", seed=14)
    rolled = {"url": receiver.url, "secrets": ["whsec_rolled"]}
    sandbox.control("PUT", "endpoints", {"endpoints": [rolled], "patience": QUICK})
    receiver.refuse.clear()
    drain(sandbox)
    body, signature = receiver.bodies[-1], receiver.signatures[-1]
    assert stripe.Webhook.construct_event(body.decode(), signature, "whsec_rolled").id


def test_a_removed_endpoint_gets_no_more(sandbox: RunningSandbox, receiver: Receiver) -> None:
    receiver.refuse = [500] * 1_000
    listen(sandbox, receiver)
    sandbox.play("card_success", seed=15)
    sandbox.control("PUT", "endpoints", {"endpoints": []})
    assert "removed" in str(drain(sandbox)["last_error"])


def test_after_a_bounded_time_it_is_given_up_and_listed_as_undelivered(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    receiver.refuse = [500] * 1_000
    listen(sandbox, receiver, give_up_after_seconds=0.3)
    before = failed_so_far(sandbox)
    sandbox.play("card_success", seed=5)
    sandbox.control("POST", "drain", {"timeout_seconds": 5})

    told = set(receiver.ids)
    assert failed_so_far(sandbox) - before == len(told)
    undelivered = sandbox.client().v1.events.list({"delivery_success": False, "limit": 100})
    assert told <= {event.id for event in undelivered.data}
    assert all(count > 1 for count in Counter(receiver.ids).values())

    receiver.refuse.clear()
    assert sandbox.control("POST", "redeliver", {"events": sorted(told)})["events"] == len(told)
    drain(sandbox)
    still = sandbox.client().v1.events.list({"delivery_success": False, "limit": 100})
    assert not told & {event.id for event in still.data}


def test_dropped_events_are_never_sent_but_stand_in_the_list(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver)
    [lost] = sandbox.play("full_refund", seed=6, faults={"drop": 1.0})
    drain(sandbox)
    assert receiver.ids == []
    undelivered = sandbox.client().v1.events.list({"delivery_success": False, "limit": 100})
    assert lost in {event.data.object.to_dict()["id"] for event in undelivered.data}
    assert sandbox.control("GET", f"truth?stripe_id={lost}")["refunded_minor"] == 9_000


def test_duplicates_reordering_and_delays_lose_nothing(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver)
    faults = {"duplicates": 0.5, "reorder": "all", "delay_ms": 200, "tie_seconds": 0.5}
    sandbox.play(*["dispute_lost_then_won"] * 10, seed=7, faults=faults)
    drain(sandbox)
    counted = Counter(receiver.ids)
    assert set(counted.values()) == {1, 2}
    created = [event["created"] for event in receiver.events]
    assert created != sorted(created)
    every = sandbox.client().v1.events.list({"limit": 100, "delivery_success": True})
    assert set(counted) <= {event.id for event in every.auto_paging_iter()}


def test_pending_webhooks_falls_as_endpoints_take_an_event(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver, concurrency=1)
    sandbox.play("card_success", seed=8, faults={"duplicates": 1.0})
    drain(sandbox)
    first: dict[str, int] = {}
    second: dict[str, int] = {}
    for event in receiver.events:
        (second if event["id"] in first else first)[event["id"]] = event["pending_webhooks"]
    assert set(first.values()) == {1}
    assert set(second.values()) == {0}


def test_an_endpoint_of_an_older_version_gets_its_older_shape(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_1"], "api_version": "2020-08-27"}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    sandbox.play("card_success", seed=9)
    drain(sandbox)
    [paid] = [each for each in receiver.events if each["type"] == "payment_intent.succeeded"]
    assert paid["api_version"] == "2020-08-27"
    [charge] = paid["data"]["object"]["charges"]["data"]
    assert charge["id"] == paid["data"]["object"]["latest_charge"]


def test_an_event_says_which_call_caused_it(sandbox: RunningSandbox, receiver: Receiver) -> None:
    listen(sandbox, receiver)
    [paid] = sandbox.play("card_success", seed=10)
    sandbox.client().v1.refunds.create({"payment_intent": paid}, {"idempotency_key": "our-row"})
    drain(sandbox)
    keys = {event["type"]: event["request"]["idempotency_key"] for event in receiver.events}
    assert keys["refund.created"] == "our-row"
    assert keys["payment_intent.succeeded"] is None


def test_anything_can_be_sent_raw_to_test_the_door(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver)
    receiver.refuse = [400]
    assert sandbox.control("POST", "send-raw", {"body": "not json"})["status"] == 400
    raw = {"body_base64": base64.b64encode(b"\xff\xfe").decode(), "timestamp": 1_000}
    assert sandbox.control("POST", "send-raw", raw)["status"] == 200
    sandbox.control("POST", "send-raw", {"body": "{}", "signature": ""})
    assert receiver.bodies == [b"not json", b"\xff\xfe", b"{}"]
    assert receiver.signatures[1].startswith("t=1000,v1=")
    assert receiver.signatures[2] == ""


def test_a_story_is_told_step_by_step_and_an_illegal_step_is_refused(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    listen(sandbox, receiver)
    [paid] = sandbox.play("card_success", seed=11)
    drain(sandbox)
    before = len(receiver.ids)
    refunded = sandbox.control("POST", "advance", {"stripe_id": paid, "action": "refund"})
    failed = sandbox.control("POST", "advance", {"stripe_id": paid, "action": "refund_fail"})
    assert refunded["truth"]["refunded_minor"] == 9_000
    assert failed["truth"]["refunded_minor"] == 0
    drain(sandbox)
    told = refunded["events"] + failed["events"]
    assert sorted(receiver.ids[before:]) == sorted(each["id"] for each in told)

    for action, status in (("refund_fail", 409), ("dispute_win", 409), ("pray", 404)):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            sandbox.control("POST", "advance", {"stripe_id": paid, "action": action})
        assert refused.value.response.status_code == status


def test_playing_a_seed_twice_makes_new_payments(sandbox: RunningSandbox) -> None:
    assert (
        set(sandbox.play("card_success", seed=12)) & set(sandbox.play("card_success", seed=12))
        == set()
    )


@pytest.mark.parametrize(
    "order",
    [
        {"seed": 1, "start_at": 1, "payments": [{"amount_minor": 0, "currency": "USD"}]},
        {"seed": 1, "start_at": "2026-01-01T00:00:00", "payments": []},
        {"seed": 1, "start_at": 1, "payments": [], "faults": {"duplicates": 2}},
        {"seed": 1, "start_at": 1, "payments": [], "weather": "bad"},
        {
            "seed": 1,
            "start_at": 1,
            "payments": [{"amount_minor": 1, "currency": "USD", "lifecycle": "telepathy"}],
        },
    ],
)
def test_a_play_that_makes_no_sense_is_refused(
    sandbox: RunningSandbox, order: dict[str, object]
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        sandbox.control("POST", "play", order)
    assert refused.value.response.status_code == 422


@given(
    count=st.integers(0, 60),
    reorder=st.one_of(st.integers(0, 20), st.just("all")),
    duplicates=st.floats(0, 1),
    drop=st.floats(0, 1),
    seed=st.integers(),
)
def test_every_event_is_either_sent_or_dropped(
    count: int, reorder: int | str, duplicates: float, drop: float, seed: int
) -> None:
    faults = Faults(duplicates=duplicates, reorder=reorder, drop=drop, delay_ms=50)
    fate = plan(count, faults, Random(seed))
    sent = [index for index, _ in fate.sent]
    assert sorted({*sent, *fate.dropped}) == list(range(count))
    assert not {*sent} & {*fate.dropped}
    assert max(Counter(sent).values(), default=1) <= 2
    assert all(0 <= delay_seconds <= 0.05 for _, delay_seconds in fate.sent)
    if isinstance(reorder, int):
        firsts = list(dict.fromkeys(sent))
        earlier = [max(firsts[: place + 1]) - index for place, index in enumerate(firsts)]
        assert max(earlier, default=0) <= max(reorder, 1)


def test_without_faults_the_order_is_kept() -> None:
    assert [index for index, _ in plan(50, Faults(), Random(1)).sent] == list(range(50))


def test_reordering_everything_is_a_shuffle_and_a_window_is_a_slip() -> None:
    shuffled = [index for index, _ in plan(200, Faults(reorder="all"), Random(1)).sent]
    slipped = [index for index, _ in plan(200, Faults(reorder=5), Random(1)).sent]
    assert sorted(shuffled) == sorted(slipped) == list(range(200))
    assert max(abs(index - place) for place, index in enumerate(shuffled)) > 100
    assert 1 <= max(abs(index - place) for place, index in enumerate(slipped)) <= 5
