"""Ownership is enforced: each role, logged in, reaches its own schema and nothing of its neighbours."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from shared.db import SERVICES
from tests.conftest import Database
from tests.migrations import storefront

SERVICE = pytest.mark.parametrize("service", SERVICES)
PRICING_READS = {"users", "addresses", "products", "product_variants", "subscriptions"}
PRICING_WRITES = {
    *("status", "canceled_at", "period_start", "period_end"),
    *("variants", "variants_changed_at", "cost_breakdown", "total_minor"),
    *("admin_percentage_applied", "tax_rate_applied", "tax_minor", "price_version"),
    *("delivery_type", "delivery_address_id", "delivery_cost_minor", "next_delivery_on"),
    *("loyalty_points_earned", "loyalty_discount_minor"),
}
APPEND_ONLY = {
    *(("pricing", "subscription_cost_history"), ("loyalty", "points_transactions")),
    *(("pricing", "scopes"), ("pricing", "decisions")),
}
# Changed, but never deleted; and written once, until nobody needs it.
KEPT = {("pricing", t) for t in ("pricing_configs", "previews", "rollouts", "rollout_items")}
UNCHANGED = {("pricing", "preview_items")}
WRITTEN_FOR_IT = {("pricing", "catalogue_prices")}  # by a trigger, in the storefront's transaction
# Each touches no row, so that nothing but a right can be missing.
READ = "SELECT FROM {table} LIMIT 0"
WRITES = ("DELETE FROM {table} WHERE false", "INSERT INTO {table} DEFAULT VALUES")


def tables(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Every table of the product's and the storefront's, as the server knows them."""
    query = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(%s) ORDER BY 1, 2"
    return [(str(s), str(t)) for s, t in connection.execute(query, ([*SERVICES, "public"],))]


def columns(connection: psycopg.Connection, schema: str, table: str) -> list[str]:
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' AND attidentity = ''"
    )
    return [str(row[0]) for row in connection.execute(query, (f"{schema}.{table}",))]


def allowed(connection: psycopg.Connection, statement: str, table: tuple[str, str]) -> bool:
    """Whether this role may run it; any other fault than a missing right is loud."""
    composed = sql.SQL(statement).format(table=sql.Identifier(*table))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(composed)
    except InsufficientPrivilege:
        return False
    except psycopg.IntegrityError:
        return True  # it was let in as far as the rules of the table
    return True


def updatable(connection: psycopg.Connection, table: tuple[str, str], column: str) -> bool:
    name = sql.Identifier(column).as_string(connection)
    return allowed(connection, f"UPDATE {{table}} SET {name} = NULL WHERE false", table)


@pytest.fixture
def role(migrated: Database, service: str) -> Iterator[psycopg.Connection]:
    """Logged in as the service's own role."""
    with psycopg.connect(migrated.url_for(service), autocommit=True) as connection:
        yield connection


@SERVICE
def test_a_role_reads_and_writes_nothing_of_its_neighbours(
    owner: psycopg.Connection, role: psycopg.Connection, service: str
) -> None:
    neighbours = [t for t in tables(owner) if t[0] not in (service, "public")]
    assert len({schema for schema, _ in neighbours}) == len(SERVICES) - 1
    for table in neighbours:
        assert not allowed(role, READ, table), table
        assert not any(allowed(role, write, table) for write in WRITES), table
        assert not any(updatable(role, table, c) for c in columns(owner, *table)), table


@SERVICE
def test_a_role_uses_its_own_tables_and_its_ledger_only_grows(
    owner: psycopg.Connection, role: psycopg.Connection, service: str
) -> None:
    own = [table for table in tables(owner) if table[0] == service]
    assert own
    for table in own:
        insertable = table not in WRITTEN_FOR_IT
        changeable = insertable and table not in APPEND_ONLY
        assert allowed(role, READ, table), table
        insert = "INSERT INTO {table} DEFAULT VALUES"
        assert allowed(role, insert, table) is insertable, table
        deletable = changeable and table not in KEPT
        assert allowed(role, "DELETE FROM {table} WHERE false", table) is deletable, table
        for column in columns(owner, *table):
            expected = changeable and table not in UNCHANGED
            assert updatable(role, table, column) is expected, (table, column)


@SERVICE
def test_of_the_storefront_only_pricing_reads_and_writes_exactly_its_columns(
    owner: psycopg.Connection, role: psycopg.Connection, service: str
) -> None:
    pricing = service == "pricing"
    for table in (t for t in tables(owner) if t[0] == "public"):
        name = table[1]
        reads = name == "alembic_version" or (pricing and name in PRICING_READS)
        assert allowed(role, READ, table) is reads, table
        inserts = pricing and name == "subscriptions"
        assert allowed(role, "INSERT INTO {table} DEFAULT VALUES", table) is inserts, table
        assert not allowed(role, "DELETE FROM {table} WHERE false", table), table
        writes = {c for c in columns(owner, *table) if updatable(role, table, c)}
        assert writes == (PRICING_WRITES if pricing and name == "subscriptions" else set()), table


@SERVICE
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE {schema}.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "ALTER TABLE {schema}.outbox ADD COLUMN mine int",
        "DROP TABLE {schema}.inbox",
        "TRUNCATE {schema}.inbox",
        "CREATE ROLE mine",
        "SET ROLE postgres",
    ],
)
def test_a_role_owns_nothing_and_makes_nothing(
    role: psycopg.Connection, service: str, statement: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        role.execute(sql.SQL(statement).format(schema=sql.Identifier(service)))


@pytest.mark.parametrize("service", ["pricing"])
def test_pricing_writes_a_price_and_the_storefront_keeps_the_rest(
    owner: psycopg.Connection, role: psycopg.Connection
) -> None:
    subscription = storefront.add_subscription(owner, storefront.add_customer(owner))
    owner.commit()
    priced = role.execute(
        "UPDATE public.subscriptions SET total_minor = 4200 WHERE id = %s", (subscription,)
    )
    assert priced.rowcount == 1
    with pytest.raises(InsufficientPrivilege):
        role.execute(
            "UPDATE public.subscriptions SET currency = 'EUR' WHERE id = %s", (subscription,)
        )
