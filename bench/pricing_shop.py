"""A storefront with a million subscriptions, priced by a first version: the rows that price benchmarks move."""

import itertools
import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import psycopg
from psycopg import sql

from bench.ground import Ground
from services.pricing.domain import Box, Terms, cost
from shared.events import VariantLine, derived_id

ROWS = int(os.environ.get("FAREBOX_BENCH_SUBSCRIPTIONS", "1000000"))
BASKETS = 4_000  # different ones; each customer has one of them
VARIANTS = 200
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
RATES = {"DE": "0.19", "FR": "0.2", "US": "0", "US-CA": "0.0725", "US-NY": "0.08875", "JP": "0.1"}
DELIVERY = {
    "EUR": {"standard": 450, "express": 1_200},
    "USD": {"standard": 500, "express": 1_500},
    "JPY": {"standard": 600, "express": 1_400},
}
CURRENCY = {"DE": "EUR", "FR": "EUR", "US": "USD", "US-CA": "USD", "US-NY": "USD", "JP": "JPY"}

# Foreign keys would be looked up row by row, indexes grown at random: five times as long.
PREPARE = """
SET session_replication_role = replica;
SET maintenance_work_mem = '256MB';
CREATE TEMP TABLE baskets (number int PRIMARY KEY, currency text, place text, delivery_type text, old jsonb);
ALTER TABLE public.subscriptions DROP CONSTRAINT pk_subscriptions CASCADE;
DROP INDEX public.ix_subscriptions_user_id;
DROP INDEX public.ix_subscriptions_price_version;
INSERT INTO pricing.pricing_configs (status, admin_percentage, delivery_cost_minor, tax_rates, created_by,
    reason, published_by, published_at, effective_from, authors, approved_by, approved_at, approved_hash,
    preview_hash)
VALUES ('active', 10, {delivery}, {rates}, 'bench', 'first prices', 'bench', {since}, {since}, '{{bench}}',
    'another', {since}, '', '')
"""
FILL = """
INSERT INTO public.users (id, email, created_at)
SELECT md5('customer:' || n)::uuid, 'customer-' || n || '@example.invalid', {since}
FROM generate_series(1, {rows}) n;
INSERT INTO public.addresses (id, user_id, country, region)
SELECT md5('address:' || n)::uuid, md5('customer:' || n)::uuid, split_part(place, '-', 1),
    nullif(split_part(place, '-', 2), '')
FROM generate_series(1, {rows}) n JOIN baskets b ON b.number = n % {baskets};
INSERT INTO public.subscriptions (id, user_id, status, currency, billing_interval, period_start, period_end,
    created_at, variants, variants_changed_at, cost_breakdown, total_minor, admin_percentage_applied,
    tax_rate_applied, tax_minor, price_version, delivery_type, delivery_address_id, delivery_cost_minor,
    next_delivery_on)
SELECT md5('subscription:' || n)::uuid, md5('customer:' || n)::uuid,
    CASE WHEN n % 20 = 0 THEN 'paused' ELSE 'active' END, currency, 'month', began,
    began + interval '1 month', began, old -> 'variants', began, old, (old -> 'total_minor')::bigint, 10,
    (old ->> 'tax_rate')::numeric, (old -> 'tax_minor')::bigint, 1, delivery_type,
    md5('address:' || n)::uuid, (old -> 'delivery_minor')::bigint, '2026-03-05'
FROM generate_series(1, {rows}) n JOIN baskets b ON b.number = n % {baskets},
    LATERAL (SELECT {since} + n * interval '1 second' AS began) t;
ALTER TABLE public.subscriptions ADD CONSTRAINT pk_subscriptions PRIMARY KEY (id);
CREATE INDEX ix_subscriptions_user_id ON public.subscriptions (user_id);
CREATE INDEX ix_subscriptions_price_version ON public.subscriptions (price_version);
ALTER TABLE pricing.subscription_cost_history ADD CONSTRAINT fk_subscription_cost_history_subscription_id
    FOREIGN KEY (subscription_id) REFERENCES public.subscriptions (id);
INSERT INTO pricing.subscription_revisions (subscription_id, revision)
SELECT id, 2 FROM public.subscriptions ORDER BY id
"""


def make_shop(ground: Ground) -> str:
    """The owner's URL of a database with ROWS subscriptions, analysed and at rest; nobody is connected."""
    url = ground.database()
    with psycopg.connect(url) as connection:
        since = sql.Literal(SINCE)
        connection.execute(
            sql.SQL(PREPARE).format(
                delivery=sql.Literal(json.dumps(DELIVERY)),
                rates=sql.Literal(json.dumps(RATES)),
                since=since,
            )
        )
        with connection.cursor().copy("COPY baskets FROM STDIN") as copy:
            for row in baskets():
                copy.write_row(row)
        connection.execute(
            sql.SQL(FILL).format(rows=sql.Literal(ROWS), baskets=sql.Literal(BASKETS), since=since)
        )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")
    return url


def baskets() -> list[tuple[int, str, str, str, str]]:
    """One to three variants each, priced by the rule itself."""
    dice = Random(1)
    rates = {place: Decimal(rate) for place, rate in RATES.items()}
    terms = Terms(Decimal(10), DELIVERY, rates)
    made = []
    for number, place in zip(range(BASKETS), itertools.cycle(RATES), strict=False):
        currency, kind = CURRENCY[place], dice.choice(("standard", "express"))
        lines = tuple(
            VariantLine(
                variant_id=derived_id("bench-variant", dice.randrange(VARIANTS)),
                quantity=dice.randrange(1, 4),
                unit_price_minor=dice.randrange(400, 6_000),
            )
            for _ in range(dice.choice((1, 1, 2, 3)))
        )
        old = cost(terms, Box(currency, lines, kind, place), (1,))
        made.append((number, currency, place, kind, old.model_dump_json()))
    return made
