"""The schema itself refuses what breaks a rule."""

import psycopg
import pytest

from tests.migrations import storefront

CONFIG = (
    "INSERT INTO pricing.pricing_configs (status, admin_percentage, delivery_cost_minor, tax_rates,"
    " created_by, reason, published_by, published_at, effective_from, effective_to, authors,"
    " approved_by, approved_at, approved_hash, preview_hash) VALUES"
)
NOBODY = "'{a}', NULL, NULL, NULL, NULL"
APPROVED = "'{a,e}', 'b', now(), 'h', 'h'"
PAYMENT = (
    "INSERT INTO payments.payment_intents (id, stripe_id, livemode, status, currency, amount_minor,"
    " capturable_minor, received_minor, refunded_minor, disputed_minor, created_at, revision, fold)"
    " VALUES"
)
ACCOUNT = "INSERT INTO loyalty.loyalty_accounts (user_id, balance_points, tier, opened_at) VALUES"
USER = "'11111111-1111-1111-1111-111111111111'"
COSTS = "(subscription_id, user_id, revision, currency, total_minor, price_version,"
COST = f"INSERT INTO payments.subscription_costs {COSTS} cost_history_id, effective_at, event_id)"
HISTORY = (
    "INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version, kind,"
    " currency, new_breakdown, new_total_minor, effective_at, reason, changed_by, cause_id)"
    " SELECT id, user_id, 1, {kind}, {currency}, '{{}}', {total}, now(), 'r', 'w', 'c'"
    " FROM public.subscriptions"
)
SET = "UPDATE public.subscriptions SET"
SET_CONFIG = "UPDATE pricing.pricing_configs SET"

FINE = (
    f"{CONFIG} ('draft', 10, '{{}}', '{{}}', 'a', NULL, NULL, NULL, NULL, NULL, {NOBODY})",
    f"{CONFIG} ('active', 50, '{{}}', '{{}}', 'a', 'r', 'p', now(), now(), NULL, {APPROVED})",
    f"{PAYMENT} (gen_random_uuid(), 'pi_1', false, 'succeeded', 'USD', 1, 0, 1, 0, 0, now(), 1, '{{}}')",
    f"{ACCOUNT} ({USER}, 0, 'gold', now())",
    f"{SET} total_minor = 0, tax_minor = 0, variants = '[]'",
    f"{SET} status = 'canceled', canceled_at = now()",
)


def refused(name: str, *statements: str) -> object:
    """The constraint that must refuse the last statement, by its name."""
    return pytest.param(name, statements, id=f"{name}: {statements[-1][-60:]}")


REFUSED = [
    refused("ck_pricing_configs_admin_percentage", FINE[0].replace("10", "0.09")),
    refused("ck_pricing_configs_admin_percentage", FINE[0].replace("10", "50.0001")),
    refused("ck_pricing_configs_status", FINE[1].replace("active", "open")),
    refused(
        "ck_pricing_configs_published",
        FINE[0].replace("draft", "active").replace(NOBODY, APPROVED),
    ),
    refused(
        "ck_pricing_configs_effective",
        FINE[1].replace("now(), NULL,", "now(), now() - interval '1 hour',"),
    ),
    refused("ex_pricing_configs_in_force", FINE[1], FINE[1]),
    refused("ck_pricing_configs_approved", FINE[1].replace(APPROVED, NOBODY)),
    refused("ck_pricing_configs_approved", FINE[1].replace("'b', now()", "'a', now()")),
    refused("ck_pricing_configs_approved", FINE[1].replace("'b', now()", "'e', now()")),
    refused("ck_pricing_configs_approved", FINE[1].replace("{a,e}", "{}")),
    refused("ck_pricing_configs_approved", FINE[1].replace("{a,e}", "{a,NULL}")),
    refused("ck_pricing_configs_approved", FINE[1].replace("'h', 'h'", "'h', 'i'")),
    refused("ck_pricing_configs_approved", FINE[1].replace("'h', 'h'", "'h', NULL")),
    refused("ck_pricing_configs_whole", FINE[0].replace("10", "NULL")),
    refused(
        "ck_pricing_configs_drift_limit_percent",
        FINE[0],
        f"{SET_CONFIG} drift_limit_percent = 101, draft_revision = 2",
    ),
    refused("ck_payment_intents_status", FINE[2].replace("succeeded", "paid")),
    refused("ck_payment_intents_currency", FINE[2].replace("USD", "usd")),
    refused("ck_payment_intents_amounts", FINE[2].replace("1, 0, 0, now()", "-1, 0, 0, now()")),
    refused("ck_payment_intents_revision", FINE[2].replace("now(), 1", "now(), 0")),
    refused("uq_payment_intents_stripe_id", FINE[2], FINE[2]),
    refused("ck_loyalty_accounts_balance", FINE[3].replace(" 0,", " -1,")),
    refused("ck_loyalty_accounts_tier", FINE[3].replace("gold", "iron")),
    refused("pk_loyalty_accounts", FINE[3], FINE[3]),
    refused(
        "ck_points_transactions_points",
        FINE[3],
        "INSERT INTO loyalty.points_transactions (user_id, payment_id, payment_revision, kind,"
        f" points, rule, event_id, occurred_at) VALUES ({USER}, {USER}, 1, 'earned', 0, 'r',"
        f" {USER}, now())",
    ),
    refused(
        "uq_points_transactions_payment_id_payment_revision",
        FINE[3],
        "INSERT INTO loyalty.points_transactions (user_id, payment_id, payment_revision, kind,"
        f" points, rule, event_id, occurred_at) SELECT {USER}, {USER}, 1, 'earned', 1, 'r',"
        f" {USER}, now() FROM generate_series(1, 2)",
    ),
    refused(
        "fk_points_transactions_user_id",
        "INSERT INTO loyalty.points_transactions (user_id, payment_id, payment_revision, kind,"
        f" points, rule, event_id, occurred_at) VALUES ({USER}, {USER}, 1, 'earned', 1, 'r',"
        f" {USER}, now())",
    ),
    refused("ck_subscriptions_amounts", f"{SET} total_minor = -1"),
    refused("ck_subscriptions_amounts", f"{SET} tax_minor = -1"),
    refused("ck_subscriptions_amounts", f"{SET} delivery_cost_minor = -1"),
    refused("ck_subscriptions_amounts", f"{SET} loyalty_discount_minor = -1"),
    refused("ck_subscriptions_variants", f"{SET} variants = '{{}}'"),
    refused("ck_subscriptions_status", f"{SET} status = 'asleep'"),
    refused("ck_subscriptions_canceled_at", f"{SET} status = 'canceled'"),
    refused("ck_subscriptions_currency", f"{SET} currency = 'dollar'"),
    refused("ck_subscriptions_billing_interval", f"{SET} billing_interval = 'fortnight'"),
    refused("ck_subscriptions_period", f"{SET} period_end = period_start"),
    refused("fk_subscriptions_price_version", f"{SET} price_version = 99"),
    refused("fk_subscriptions_delivery_address_id", f"{SET} delivery_address_id = {USER}"),
    refused(
        "ck_subscription_cost_history_kind",
        FINE[1],
        HISTORY.format(kind="'whim'", currency="'USD'", total="1"),
    ),
    refused(
        "ck_subscription_cost_history_amounts",
        FINE[1],
        HISTORY.format(kind="'config'", currency="'USD'", total="-1"),
    ),
    refused(
        "ck_subscription_cost_history_currency",
        FINE[1],
        HISTORY.format(kind="'config'", currency="'usd'", total="1"),
    ),
    refused(
        "fk_subscription_cost_history_price_version",
        HISTORY.format(kind="'config'", currency="'USD'", total="1"),
    ),
    refused(
        "ck_subscription_costs_total",
        f"{COST} VALUES ({USER}, {USER}, 1, 'USD', -1, 1, 1, now(), {USER})",
    ),
    refused(
        "ck_payment_analytics_currency",
        "INSERT INTO analytics.payment_analytics (day, currency) VALUES ('2026-01-01', 'us')",
    ),
    refused(
        "ck_subscription_analytics_currency",
        "INSERT INTO analytics.subscription_analytics (day, currency) VALUES ('2026-01-01', '$$$')",
    ),
    refused(
        "ck_parked_events_status",
        'INSERT INTO loyalty.parked_events (consumer, key, topic, partition, "offset", body, headers,'
        " error, attempts, status) VALUES ('c', 'k', 't', 0, 0, '', '[]', 'e', 1, 'lost')",
    ),
]


@pytest.fixture
def connection(owner: psycopg.Connection) -> psycopg.Connection:
    storefront.add_subscription(owner, storefront.add_customer(owner))
    # It lets nobody come as far as these rules; what it says itself is tested beside the life of a version.
    owner.execute("ALTER TABLE pricing.pricing_configs DISABLE TRIGGER farebox_guard_price_version")
    return owner


@pytest.mark.parametrize("statement", FINE, ids=lambda statement: statement[-60:])
def test_what_keeps_the_rules_is_taken(connection: psycopg.Connection, statement: str) -> None:
    assert connection.execute(statement.encode()).rowcount == 1


@pytest.mark.parametrize(("name", "statements"), REFUSED)
def test_what_breaks_a_rule_is_refused(
    connection: psycopg.Connection, name: str, statements: tuple[str, ...]
) -> None:
    for statement in statements[:-1]:
        connection.execute(statement.encode())
    with pytest.raises(psycopg.IntegrityError) as refusal:
        connection.execute(statements[-1].encode())
    assert refusal.value.diag.constraint_name == name
