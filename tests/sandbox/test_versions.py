"""One event in many shapes: older API versions at their own endpoints, and thin ones that must be fetched."""

from typing import Any

import pytest
import stripe

from embedded.stripe_sandbox import LIFECYCLES, PaymentSpec, Played, play
from tests.sandbox.conftest import START, Receiver, RunningSandbox

VERSIONS = (
    "2017-05-25",
    "2018-02-28",
    "2020-08-27",
    "2022-08-01",
    "2022-11-15",
    "2025-03-31.basil",
)


def lives(version: str, *lifecycles: str) -> Played:
    specs = [PaymentSpec("u", "s", 9_000, "EUR", each) for each in lifecycles]
    return play(6, specs, START, 0.0, version)


def told(played: Played, type_: str) -> dict[str, Any]:
    return next(event["data"]["object"] for event in played.events if event["type"] == type_)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_life_can_be_told_in_every_version_and_is_the_same_life(version: str) -> None:
    today = lives("2026-08-26.dahlia", *sorted(LIFECYCLES))
    then = lives(version, *sorted(LIFECYCLES))
    assert (then.truth, then.details) == (today.truth, today.details)
    assert [each["id"] for each in then.events] == [each["id"] for each in today.events]
    assert {each["api_version"] for each in then.events} == {version}
    assert then.events != today.events


@pytest.mark.parametrize(
    ("version", "has_charges", "has_invoice"),
    [
        ("2020-08-27", True, True),
        ("2022-08-01", True, True),
        ("2022-11-15", False, True),
        ("2025-03-31.basil", False, False),
    ],
)
def test_charges_and_invoice_left_the_payment_with_their_versions(
    version: str, has_charges: bool, has_invoice: bool
) -> None:
    played = lives(version, "invoiced")
    paid = told(played, "payment_intent.succeeded")
    assert ("charges" in paid, "invoice" in paid) == (has_charges, has_invoice)
    if has_charges:
        assert paid["charges"]["data"][0]["id"] == paid["latest_charge"]
        assert "refunds" in paid["charges"]["data"][0]
    invoice = told(played, "invoice.paid")
    assert ("payment_intent" in invoice) == has_invoice
    if has_invoice:
        assert invoice["payment_intent"] == paid["id"]
        assert paid["invoice"] == invoice["id"]
        assert invoice["subscription_details"]["metadata"]["user_id"] == "u"


def test_a_charge_of_before_2022_11_15_carries_its_refunds() -> None:
    refunded = told(lives("2022-08-01", "full_refund"), "charge.refunded")
    assert [each["amount"] for each in refunded["refunds"]["data"]] == [9_000]


def test_before_2019_methods_were_sources_and_refunds_named_only_their_charge() -> None:
    played = lives("2017-05-25", "three_ds_failed", "dispute_lost", "full_refund")
    waiting = told(played, "payment_intent.requires_action")
    failed = told(played, "payment_intent.payment_failed")
    assert (waiting["status"], failed["status"]) == ("requires_source_action", "requires_source")
    assert failed["last_payment_error"]["source"]["type"] == "card"
    assert "payment_method" not in failed
    for type_ in ("charge.dispute.created", "refund.created"):
        about = told(played, type_)
        assert "payment_intent" not in about
        assert about["charge"].startswith("ch_")


def test_three_d_secure_was_two_answers_until_2020() -> None:
    secured = [
        told(lives(version, "three_ds_success"), "charge.succeeded")["payment_method_details"]
        for version in ("2019-12-03", "2020-08-27")
    ]
    assert secured[0]["card"]["three_d_secure"]["succeeded"] is True
    assert secured[1]["card"]["three_d_secure"]["result"] == "authenticated"


def test_two_endpoints_get_one_event_in_two_versions(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoints = [
        {"url": receiver.url, "secrets": [f"whsec_{version}"], "api_version": version}
        for version in ("2020-08-27", "2025-03-31.basil")
    ]
    sandbox.control("PUT", "endpoints", {"endpoints": endpoints})
    sandbox.play("card_success", seed=41)
    sandbox.control("POST", "drain", {"timeout_seconds": 20})
    paid = {
        event["api_version"]: event["data"]["object"]
        for event in receiver.events
        if event["type"] == "payment_intent.succeeded"
    }
    assert "charges" in paid["2020-08-27"]
    assert "charges" not in paid["2025-03-31.basil"]


def test_a_thin_event_names_an_object_that_can_be_fetched(
    sandbox: RunningSandbox, receiver: Receiver
) -> None:
    endpoint = {"url": receiver.url, "secrets": ["whsec_thin"], "thin": True}
    sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
    sandbox.play("review_open", "dispute_prevented", "full_refund", "invoiced", seed=42)
    sandbox.control("POST", "drain", {"timeout_seconds": 20})

    kinds = set()
    for body, signature in zip(receiver.bodies, receiver.signatures, strict=True):
        stripe.WebhookSignature.verify_header(body.decode(), signature, "whsec_thin", 300)
    for event in receiver.events:
        assert event["object"] == "v2.core.event"
        assert "data" not in event
        related = event["related_object"]
        kinds.add(related["type"])
        fetched = sandbox.client().raw_request("get", related["url"])
        assert f'"id": "{related["id"]}"' in fetched.body
    assert kinds == {
        "payment_intent", "charge", "refund", "dispute", "review", "invoice", "invoice_payment",
    }  # fmt: skip


def test_an_account_and_live_mode_are_told_with_every_event() -> None:
    spec = PaymentSpec("u", "s", 500, "USD", "dispute_lost", account="acct_1", livemode=True)
    played = play(7, [spec], START)
    assert {(each["account"], each["livemode"]) for each in played.events} == {("acct_1", True)}
    assert {each["data"]["object"].get("livemode", True) for each in played.events} == {True}
    [details] = played.details.values()
    assert (details["account"], details["livemode"]) == ("acct_1", True)


def test_an_account_sees_only_what_is_its_own(sandbox: RunningSandbox) -> None:
    intents = sandbox.client().v1.payment_intents
    ours = intents.create({"amount": 500, "currency": "usd"})
    theirs = intents.create({"amount": 500, "currency": "usd"}, {"stripe_account": "acct_7"})
    assert intents.retrieve(theirs.id, None, {"stripe_account": "acct_7"}).id == theirs.id
    with pytest.raises(stripe.InvalidRequestError) as unseen:
        intents.retrieve(theirs.id)
    assert unseen.value.http_status == 404
    listed = intents.list({"limit": 100}, {"stripe_account": "acct_7"}).data
    assert [each.id for each in listed] == [theirs.id]
    events = sandbox.client().v1.events
    own = events.list({"limit": 100}, {"stripe_account": "acct_7"}).data
    assert {each.account for each in own} == {"acct_7"}
    told = {each.data.object.to_dict()["id"] for each in events.list({"limit": 100}).data}
    assert ours.id in told
    assert theirs.id not in told
    with pytest.raises(stripe.InvalidRequestError):
        events.retrieve(own[0].id)
