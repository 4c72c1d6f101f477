"""Somebody else's webhooks, of an older shape and signed by other code, come in through the same door."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import stripe

from embedded.ports import LOOPBACK, free_port
from tests.conftest import Database
from tests.payments.localstripe import Localstripe, localstripe, running, until

SECRET = "whsec_of_localstripe"
GOOD_CARD, CARD_DECLINED_WHEN_CHARGED = "4242424242424242", "4000000000000341"


@dataclass(frozen=True)
class Payments:
    url: str

    def all_of(self, stripe_id: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/payments", params={"stripe_id": stripe_id}, verify=False)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        return found

    def facts_of(self, payment: dict[str, Any]) -> list[tuple[str, str]]:
        answer = httpx.get(f"{self.url}/payments/{payment['id']}").raise_for_status().json()
        return [(fact["type"], fact["status"]) for fact in answer["stripe_facts"]]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Localstripe]:
    with localstripe() as started:
        yield started


@pytest.fixture
def payments(
    database: Database, kafka_servers: str, topics: str, elsewhere: Localstripe
) -> Iterator[Payments]:
    """The service as it runs in production, its web and its worker process, pointed at localstripe."""
    port = free_port()
    env = {
        "DATABASE_URL": database.url,
        "PAYMENTS_DATABASE_URL": database.url_for("payments"),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_servers,
        "FAREBOX_TOPIC_PREFIX": topics,
        "PAYMENTS_PORT": str(port),
        "STRIPE_API_KEY": "sk_test_local",
        "STRIPE_API_BASE": elsewhere.url,
        "STRIPE_WEBHOOK_SECRETS": f"whsec_of_the_sandbox,{SECRET}",
    }
    command = [sys.executable, "-m", "services.payments.app"]
    with running([*command, "web"], port, env), running([*command, "worker"], 0, env):
        url = f"http://{LOOPBACK}:{port}"
        elsewhere.register_webhook(f"{url}/webhooks/stripe", SECRET)
        yield Payments(url)


def test_a_payment_made_at_localstripe_becomes_a_payment_here(
    payments: Payments, elsewhere: Localstripe
) -> None:
    user, subscription = str(uuid4()), str(uuid4())
    customer, card = elsewhere.customer_with_card(GOOD_CARD)
    paid = elsewhere.client.payment_intents.create(
        {
            "amount": 4_200,
            "currency": "eur",
            "customer": customer,
            "payment_method": card,
            "metadata": {"user_id": user, "subscription_id": subscription},
            "confirm": True,
        }
    )

    until(lambda: payments.all_of(paid.id) != [])
    [payment] = payments.all_of(paid.id)
    assert (payment["status"], payment["currency"]) == ("succeeded", "EUR")
    # 2017 knew no amount_received: what succeeded was received in full.
    money = ("amount_minor", "received_minor", "refunded_minor", "disputed_minor")
    assert [payment[field] for field in money] == [4_200, 4_200, 0, 0]
    assert (payment["user_id"], payment["subscription_id"]) == (user, subscription)
    assert payments.facts_of(payment) == [("payment_intent.succeeded", "applied")]


def test_a_payment_declined_at_localstripe_has_received_nothing_here(
    payments: Payments, elsewhere: Localstripe
) -> None:
    customer, card = elsewhere.customer_with_card(CARD_DECLINED_WHEN_CHARGED)
    with pytest.raises(stripe.CardError):
        elsewhere.client.payment_intents.create(
            {
                "amount": 900,
                "currency": "usd",
                "customer": customer,
                "payment_method": card,
                "confirm": True,
            }
        )
    every = elsewhere.client.payment_intents.list().data
    [failed] = [each for each in every if each.customer == customer]

    until(lambda: payments.all_of(failed.id) != [])
    [payment] = payments.all_of(failed.id)
    assert (payment["status"], payment["received_minor"]) == ("requires_payment_method", 0)
    assert payment["failure_code"] == "card_declined"
    # It names neither: kept and reported, not dropped.
    assert (payment["user_id"], payment["subscription_id"]) == (None, None)
