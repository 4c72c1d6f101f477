"""A storefront's database as it stands before farebox, with as many subscriptions as wanted, in minutes."""

import hashlib
from uuid import UUID

import psycopg
from psycopg import sql

from bench.facts import START
from migrations.steps import Migrations
from tests.servers import create_database, url_of

BEFORE = "d6d022bcff3b"
# Two boxes for each customer: more rows than that in `users` would only make the copy larger.
SUBSCRIPTIONS_PER_CUSTOMER = 2

# Foreign keys would be looked up row by row, indexes grown at random: five times as long.
FILL = f"""
SET LOCAL session_replication_role = replica;
SET LOCAL maintenance_work_mem = '256MB';
ALTER TABLE public.subscriptions DROP CONSTRAINT pk_subscriptions;
DROP INDEX public.ix_subscriptions_user_id;
INSERT INTO public.users (id, email, created_at)
SELECT md5('customer:' || n)::uuid, 'customer-' || n || '@example.invalid', began
FROM generate_series(1, {{customers}}) n, LATERAL (SELECT {{start}} - n * interval '1 second' began) t ORDER BY 1;
INSERT INTO public.subscriptions
    (id, user_id, status, currency, billing_interval, period_start, period_end, created_at, canceled_at)
SELECT md5('subscription:' || n)::uuid, md5('customer:' || 1 + n / {SUBSCRIPTIONS_PER_CUSTOMER})::uuid,
    CASE WHEN n % 20 = 0 THEN 'canceled' WHEN n % 20 = 1 THEN 'paused' ELSE 'active' END,
    CASE WHEN n % 7 = 0 THEN 'EUR' ELSE 'USD' END,
    CASE WHEN n % 10 = 0 THEN 'year' ELSE 'month' END,
    began, began + interval '1 month', began, CASE WHEN n % 20 = 0 THEN began + interval '1 day' END
FROM generate_series(1, {{rows}}) n, LATERAL (SELECT {{start}} - n * interval '1 second' began) t;
ALTER TABLE public.subscriptions ADD CONSTRAINT pk_subscriptions PRIMARY KEY (id);
CREATE INDEX ix_subscriptions_user_id ON public.subscriptions (user_id)
"""


def make_storefront(admin_url: str, name: str, rows: int) -> None:
    """Database `name` at revision d6d022bcff3b, closed to connections: a template."""
    create_database(admin_url, name, "template1")
    url = url_of(admin_url, name)
    migrations = Migrations(url)
    for step in migrations.pending():
        migrations.apply(step)
        if step.revision == BEFORE:
            break
    with psycopg.connect(url) as connection:
        customers = rows // SUBSCRIPTIONS_PER_CUSTOMER + 1
        connection.execute(
            sql.SQL(FILL).format(
                customers=sql.Literal(customers), rows=sql.Literal(rows), start=sql.Literal(START)
            )
        )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")


def copy_storefront(admin_url: str, template: str, name: str) -> str:
    """Its own database for one measurement, with nothing left for the disk to do."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        admin.execute("CHECKPOINT")
    return url_of(admin_url, name)


def subscription_id(number: int) -> UUID:
    """Of the generated ones, from 1."""
    return _md5(f"subscription:{number}")


def customer_id(number: int) -> UUID:
    return _md5(f"customer:{number}")


def _md5(text: str) -> UUID:
    return UUID(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
