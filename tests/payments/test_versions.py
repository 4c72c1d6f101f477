"""Every life in the shapes of every version, two endpoints at once, and thin events: the same payments."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import orjson
import pytest

from embedded.stripe_sandbox import LIFECYCLES, PaymentSpec, Played, play, sign
from services.payments.domain import Fold, StripeFact, encode, is_undecided, join, state
from services.payments.gateway import Nothing, StripeClient, redact, translate
from services.payments.rebuild import rebuild
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER, shuffled
from tests.payments.test_asking import client
from tests.payments.test_details import DETAILS
from tests.payments.test_webhook import NEW, OLD, door, post
from tests.sandbox.conftest import START, Receiver, RunningSandbox, sandbox

__all__ = ["client", "sandbox"]

VERSIONS = (
    "2017-05-25",
    "2018-02-28",
    "2019-12-03",
    "2020-08-27",
    "2022-08-01",
    "2022-11-15",
    "2025-03-31.basil",
    "2026-08-26.dahlia",
)
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
DAY = 86_400


def lives(version: str, seed: int = 3, *, account: str | None = None) -> Played:
    specs = [
        PaymentSpec(str(USER), str(SUBSCRIPTION), 9_000, currency, lifecycle, account)
        for lifecycle, currency in zip(sorted(LIFECYCLES), ("USD", "EUR", "JPY") * 99, strict=False)
    ]
    return play(seed, specs, START, 0.2, version)


def facts_of(lives: Played) -> dict[str, list[StripeFact]]:
    """What tells of only a charge is told, as the fold does, of the payment that the charge is known to be of."""
    said = [translate(orjson.dumps(each)) for each in lives.events]
    facts = [each for each in said if isinstance(each, StripeFact)]
    owners = {charge: each.payment for each in facts if each.payment for charge in each.charges}
    found: dict[str, list[StripeFact]] = defaultdict(list)
    for fact in facts:
        payment = fact.payment or owners.get(fact.charge or "")
        assert payment is not None, fact
        found[payment].append(fact)
    return found


def told(fold: Fold) -> dict[str, object]:
    read = state(fold)
    return {name: getattr(read, name) for name in (*MONEY, *DETAILS)}


def fold_all(facts: list[StripeFact]) -> Fold:
    result = Fold()
    for fact in facts:
        result = join(result, fact.tells)
    return result


@pytest.mark.parametrize("version", VERSIONS)
def test_every_life_is_the_truth_in_every_versions_shape(version: str) -> None:
    played, dice = lives(version), Random(version)
    facts = facts_of(played)
    assert set(facts) == set(played.truth)
    for payment, some in facts.items():
        fold = fold_all(shuffled(some, dice))
        assert encode(fold) == encode(fold_all(some))
        if is_undecided(fold):
            continue
        truth = {**played.truth[payment], **played.details[payment]}
        read = told(fold)
        if truth["payment_method_type"] is None:
            read["payment_method_type"] = None
        # An invoice of today does not name its payment; its invoice_payment does.
        assert read == {name: truth[name] for name in read}, (payment, version)
        assert state(fold).anomaly is None


@pytest.mark.parametrize(("older", "newer"), [(VERSIONS[0], VERSIONS[-1]), VERSIONS[3:5]])
def test_an_event_is_the_same_fact_in_whichever_shape_it_was_stored(older: str, newer: str) -> None:
    """Two endpoints tell of one event under one id: whichever came first is kept."""
    one, other = lives(older), lives(newer)
    shapes = {each["id"]: each for each in other.events}
    dice = Random(1)
    mixed = [shapes.get(each["id"], each) if dice.random() < 0.5 else each for each in one.events]
    facts = facts_of(Played(mixed, one.truth, one.lifecycles, one.undecidable, one.details))
    for payment, some in facts.items():
        fold = fold_all(some)
        if is_undecided(fold):
            continue
        truth = one.truth[payment]
        assert {n: getattr(state(fold), n) for n in MONEY} == {n: truth[n] for n in MONEY}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redacted_body_of_any_version_says_the_same(version: str) -> None:
    for each in lives(version, 4).events:
        body = orjson.dumps(each)
        assert translate(redact(body)) == translate(body)


async def test_two_endpoints_with_two_versions_and_secrets_at_once(
    service: Service, database: Database, hands: Hands
) -> None:
    """During an upgrade each event comes twice: in two shapes, signed with two secrets, under one id."""
    old, new = lives(VERSIONS[3]), lives(VERSIONS[-1])
    deliveries = [(each, OLD) for each in old.events] + [(each, NEW) for each in new.events]
    Random(2).shuffle(deliveries)
    now = int(hands().timestamp())
    async with door(database, hands) as web:
        for each, secret in deliveries:
            body = orjson.dumps(each)
            assert (await post(web, body, sign(body, [secret], now))).status_code == 200
    await service.fold_all()
    rows = await service.payments()
    for payment, truth in new.truth.items():
        if payment not in new.undecidable:
            assert {name: rows[payment][name] for name in MONEY} == {n: truth[n] for n in MONEY}
            assert rows[payment]["anomaly"] is None
    ids = {str(each["id"]) for each, _ in deliveries}
    stored = await service.rows("SELECT id, api_version FROM stripe_events")
    assert {row["id"] for row in stored} == ids
    assert {row["api_version"] for row in stored} == {VERSIONS[3], VERSIONS[-1]}


async def test_a_life_told_in_thin_events_alone_is_fetched(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    hands: Hands,
    database: Database,
) -> None:
    receiver = Receiver()
    names = ("card_success", "partial_refund", "dispute_lost", "declined", "refund_failed_after_success", "invoiced")  # fmt: skip
    with receiver.also_at(("127.0.0.1", 0)) as port:
        endpoint = {"url": f"http://127.0.0.1:{port}/", "secrets": ["whsec_x"], "thin": True}
        sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
        ids = sandbox.play(*names, seed=91, spread_seconds=DAY)
        assert sandbox.control("POST", "drain", {"timeout_seconds": 30})["drained"]
    assert {each["object"] for each in receiver.events} == {"v2.core.event"}
    await service.receive(receiver.events)
    await service.fold_all()
    assert await service.payments() == {}
    hands.now = max(hands.now, datetime.fromtimestamp(START, UTC) + timedelta(days=90))
    for _ in range(3):  # refunds are answered before the payment that they are of
        hands.later(61)
        await service.ask_all(client)
    rows = await service.payments()
    truth = sandbox.control("GET", "truth?details=true")
    told = (*MONEY, "invoice_id")
    for each in ids:
        assert {n: rows[each][n] for n in told} == {n: truth[each][n] for n in told}
    assert rows[ids[-1]]["invoice_id"]
    fates = await service.rows("SELECT DISTINCT status FROM stripe_events WHERE id LIKE 'evt%'")
    assert {row["status"] for row in fates} <= {"applied", "ignored"}
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine)() as session:
        assert (await rebuild(session)).differed == []
    await engine.dispose()


async def test_a_thin_event_of_a_connected_account_is_fetched_from_there(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    order = {"user_id": str(USER), "amount_minor": 9_000, "currency": "USD"}
    payment = {**order, "lifecycle": "card_success", "account": "acct_shop"}
    body = {"seed": 93, "start_at": START, "payments": [payment], "spread_seconds": DAY}
    [made] = sandbox.control("POST", "play", body)["payments"]
    thin: dict[str, Any] = {
        "id": "evt_thin_shop",
        "object": "v2.core.event",
        "type": "v1.payment_intent.succeeded",
        "livemode": False,
        "created": "2026-07-01T11:59:00.000Z",
        "context": "acct_shop",
        "related_object": {"url": f"/v1/payment_intents/{made['stripe_id']}"},
    }
    await service.receive([thin])
    await service.fold_all()
    hands.later(4)
    assert await service.ask_all(client) == 1
    [row] = (await service.payments()).values()
    assert (row["stripe_id"], row["account"]) == (made["stripe_id"], "acct_shop")
    [said] = await service.rows("SELECT payload->>'account' AS account FROM outbox")
    assert said["account"] == "acct_shop"
    assert row["status"] == "succeeded"


def test_an_account_of_its_own_is_told_in_every_event() -> None:
    for some in facts_of(lives(VERSIONS[-1], account="acct_shop")).values():
        assert {each.tells.account for each in some} == {"acct_shop"}


def test_of_thin_events_only_what_tells_of_a_payment_is_fetched() -> None:
    said = [translate(orjson.dumps(each)) for each in lives("thin").events]
    assert not any(isinstance(each, StripeFact) for each in said)
    left = [each for each in said if isinstance(each, Nothing)]
    assert len(left) < len(said) / 10
