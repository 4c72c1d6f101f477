"""The trail of one customer, payment or subscription, put together from four services."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from services.pricing.domain import Box, Terms, cost
from shared.events import VariantLine
from tests.cli.conftest import Farebox
from tests.conftest import Database
from tests.migrations import storefront

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Life:
    """One customer with a subscription, a cost, a payment with its Stripe fact, and points."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.user = storefront.add_customer(connection)
        self.subscription = storefront.add_subscription(connection, self.user)
        self.payment, self.stripe_id = uuid4(), "pi_told"
        self.price(connection)
        self.pay(connection)
        self.reward(connection)

    def price(self, connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO pricing.pricing_configs (status, admin_percentage, delivery_cost_minor,"
            " tax_rates, created_by) VALUES ('draft', 10, '{}', '{}', 'test')"
        )
        connection.execute(
            "INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version,"
            " kind, currency, new_breakdown, old_total_minor, new_total_minor, effective_at, reason,"
            " changed_by, cause_id) VALUES (%s, %s, 1, 'config', 'USD', '{}', 4000, 4300, %s,"
            " 'postage rose', 'finance', 'request:1')",
            (self.subscription, self.user, NOW),
        )

    def pay(self, connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO payments.payment_intents (id, stripe_id, livemode, user_id, subscription_id,"
            " status, currency, amount_minor, capturable_minor, received_minor, refunded_minor,"
            " disputed_minor, created_at, revision, fold)"
            " VALUES (%s, %s, false, %s, %s, 'succeeded', 'USD', 4300, 0, 4300, 1000, 0, %s, 3, '{}')",
            (self.payment, self.stripe_id, self.user, self.subscription, NOW),
        )
        connection.execute(
            "INSERT INTO payments.stripe_events (id, type, livemode, stripe_created_at, body, status,"
            " stripe_payment_id) VALUES ('evt_told', 'refund.created', false, %s, '', 'applied', %s)",
            (NOW, self.stripe_id),
        )

    def reward(self, connection: psycopg.Connection) -> None:
        connection.execute(
            "INSERT INTO loyalty.loyalty_accounts (user_id, balance_points, tier, opened_at, tier_as_of)"
            " VALUES (%s, 33, 'silver', %s, %s)",
            (self.user, NOW, NOW),
        )
        connection.execute(
            "INSERT INTO loyalty.points_transactions (user_id, payment_id, payment_revision, kind,"
            " points, rule, event_id, occurred_at)"
            " VALUES (%s, %s, 3, 'earned', 33, '2026-01:bronze', %s, %s)",
            (self.user, self.payment, uuid4(), NOW),
        )
        connection.execute(
            'INSERT INTO loyalty.parked_events (consumer, key, topic, partition, "offset", body,'
            " headers, error, attempts) VALUES ('loyalty', %s, 't', 0, 0, '', '[]', 'no JSON', 1)",
            (str(self.user),),
        )


@pytest.fixture
def life(database: Database) -> Life:
    with psycopg.connect(database.url) as connection:
        return Life(connection)


def test_a_customers_trail_holds_cost_payment_facts_points_and_what_is_parked(
    farebox: Farebox, life: Life
) -> None:
    outcome = farebox("explain", "customer", str(life.user), "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    [cost] = told["what they cost, since when and why"]
    assert (cost["was"], cost["is"], cost["reason"]) == ("40.00 USD", "43.00 USD", "postage rose")
    [payment] = told["payments"]
    assert (payment["received"], payment["refunded"]) == ("43.00 USD", "10.00 USD")
    assert [fact["event"] for fact in told["the Stripe facts they came from"]] == ["evt_told"]
    assert [line["points"] for line in told["points"]] == ["+33"]
    assert told["loyalty account"] == [{"balance": 33, "tier": "silver"}]
    assert told["facts parked or given up"][0]["error"] == "no JSON"


@pytest.mark.parametrize("by", ["pi_told", "our id"])
def test_a_payments_trail_is_found_by_either_id(farebox: Farebox, life: Life, by: str) -> None:
    identity = life.stripe_id if by == "pi_told" else str(life.payment)
    told = json.loads(farebox("explain", "payment", identity, "--json").out)
    assert [row["payment"] for row in told["payments"]] == [life.stripe_id]
    assert [UUID(line["payment"]) for line in told["points"]] == [life.payment]


def test_a_subscriptions_trail_is_printed_for_people(farebox: Farebox, life: Life) -> None:
    outcome = farebox("explain", "subscription", str(life.subscription))
    assert outcome.code == 0
    for text in ("postage rose", "43.00 USD", life.stripe_id, "refund.created"):
        assert text in outcome.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("customer", str(uuid4())), 1),
        (("payment", "pi_unknown"), 1),
        (("payment", "ch_1"), 2),
        (("customer", "ada"), 2),
    ],
)
def test_nobody_knows_them_is_said(farebox: Farebox, arguments: tuple[str, ...], code: int) -> None:
    outcome = farebox("explain", *arguments)
    assert outcome.code == code
    assert outcome.err


TERMS = Terms(Decimal(10), {"USD": {"standard": 500}}, {"US-CA": Decimal("0.0725")})
LINES = (VariantLine(variant_id=UUID(int=1), quantity=2, unit_price_minor=1_000),)


@pytest.fixture
def priced(database: Database) -> UUID:
    """A subscription whose cost was noted at NOW."""
    breakdown = cost(TERMS, Box("USD", LINES, "standard", "US-CA", 100), (1,))
    with psycopg.connect(database.url) as connection:
        user = storefront.add_customer(connection)
        subscription: UUID = storefront.add_subscription(connection, user)
        connection.execute(
            "ALTER TABLE pricing.pricing_configs DISABLE TRIGGER farebox_guard_price_version"
        )
        connection.execute(
            "INSERT INTO pricing.pricing_configs (status, admin_percentage, delivery_cost_minor,"
            " tax_rates, created_by, authors, reason, published_by, published_at, effective_from,"
            " approved_by, approved_at, approved_hash, preview_hash) VALUES ('active', 10, %s, %s,"
            " 'ada', '{ada}', 'first prices', 'ada', %s, %s, 'grace', %s, 'h', 'h')",
            (
                *(Jsonb({"USD": {"standard": 500}}), Jsonb({"US-CA": "0.0725"})),
                *(NOW, NOW, NOW),
            ),
        )
        connection.execute(
            "INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version,"
            " kind, currency, new_breakdown, new_total_minor, effective_at, reason, changed_by,"
            " cause_id, recorded_at) VALUES (%s, %s, 1, 'created', 'USD', %s, %s, %s, 'first',"
            " 'storefront', 'storefront:7', %s)",
            (
                *(subscription, user, Jsonb(breakdown.model_dump(mode="json"))),
                *(breakdown.total_minor, NOW, NOW),
            ),
        )
    return subscription


def test_a_days_cost_is_taken_apart(farebox: Farebox, priced: UUID) -> None:
    asked = ("explain", "subscription", str(priced), "--at", "2026-01-31")
    told = json.loads(farebox(*asked, "--json").out)
    [whole] = told["cost"]
    assert (whole["total"], whole["recomputed"]) == ("27.88 USD", "the same cents")
    parts = {
        part["component"]: (part["amount"], part["price version"]) for part in told["components"]
    }
    assert parts == {
        "variant": ("20.00 USD", None),
        "fee": ("2.00 USD", 1),
        "delivery": ("5.00 USD", 1),
        "discount": ("-1.00 USD", None),
        "tax": ("1.88 USD", 1),
        "total": ("27.88 USD", 1),
    }
    shown = farebox(*asked)
    assert (shown.code, "27.88 USD" in shown.out) == (0, True)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--at", "2026-01-30"), 1, "no cost"),
        (("--at", "2026-02-01", "--as-known-at", "2026-01-30"), 1, "no cost"),
        (("--at", "yesterday"), 2, "write a day such as"),
        (("--at", "2026-13-01"), 2, "write a day such as"),
        (("--as-known-at", "2026-01-30"), 2, "goes with --at"),
    ],
)
def test_a_day_without_a_cost_and_what_is_no_day_are_said(
    farebox: Farebox, priced: UUID, options: tuple[str, ...], code: int, says: str
) -> None:
    outcome = farebox("explain", "subscription", str(priced), *options)
    assert (outcome.code, says in outcome.err) == (code, True), outcome.err
