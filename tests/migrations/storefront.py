"""The storefront's own SQL: what wrote these tables before farebox came."""

from uuid import UUID, uuid4

import psycopg

TABLES = ("users", "addresses", "products", "product_variants", "subscriptions")


def add_customer(connection: psycopg.Connection) -> UUID:
    user = uuid4()
    connection.execute(
        "INSERT INTO public.users (id, email) VALUES (%s, %s)", (user, f"{user}@example.org")
    )
    connection.execute(
        "INSERT INTO public.addresses (user_id, country, region) VALUES (%s, 'US', 'CA')", (user,)
    )
    return user


def add_subscription(connection: psycopg.Connection, user: UUID) -> UUID:
    subscription = uuid4()
    connection.execute(
        "INSERT INTO public.subscriptions (id, user_id, currency) VALUES (%s, %s, 'USD')",
        (subscription, user),
    )
    return subscription


def fill(connection: psycopg.Connection, customers: int) -> None:
    """Rows in every table of the storefront's."""
    for number in range(customers):
        user = add_customer(connection)
        product = uuid4()
        connection.execute(
            "INSERT INTO public.products (id, name) VALUES (%s, %s)", (product, f"Box {number}")
        )
        connection.execute(
            "INSERT INTO public.product_variants (product_id, name, price_minor, currency)"
            " VALUES (%s, 'large', %s, 'USD')",
            (product, 900 + number),
        )
        add_subscription(connection, user)


def rows(connection: psycopg.Connection) -> dict[str, list[str]]:
    """Every row of every table as PostgreSQL writes it."""
    return {table: _texts(connection, f"SELECT t::text FROM public.{table} t") for table in TABLES}


def places(connection: psycopg.Connection) -> dict[str, list[str]]:
    """Where each row lies and who wrote it: the same only if no row was touched."""
    query = "SELECT (t.ctid, t.xmin, pg_relation_filenode('public.{0}'))::text FROM public.{0} t"
    return {table: _texts(connection, query.format(table)) for table in TABLES}


def _texts(connection: psycopg.Connection, query: str) -> list[str]:
    return sorted(str(row[0]) for row in connection.execute(query.encode()).fetchall())
