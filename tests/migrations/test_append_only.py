"""The cost history and the catalogue's prices are only ever added to, whoever asks; moves and prices are noticed."""

import psycopg
import pytest
from psycopg.errors import RestrictViolation
from psycopg.types.json import Jsonb

from tests.conftest import Database

SAMPLE = {"total_minor": 5}


@pytest.fixture
def owner(database: Database) -> psycopg.Connection:
    return psycopg.connect(database.url, autocommit=True)


def first(connection: psycopg.Connection, query: str, *values: object) -> object:
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("table", ["subscription_cost_history", "catalogue_prices"])
@pytest.mark.parametrize("change", ["DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET id = id"])
def test_not_even_the_owner_rewrites_a_line(
    owner: psycopg.Connection, table: str, change: str
) -> None:
    with owner, pytest.raises(RestrictViolation, match="only ever added to"):
        owner.execute(change.format(f"pricing.{table}").replace("SET id = id", "SET id = DEFAULT"))


def test_a_line_hash_is_over_every_part_of_it_whatever_the_time_zone(
    owner: psycopg.Connection,
) -> None:
    call = (
        "SELECT pricing.cost_line_hash(%s, %s, %s, %s, %s, %s::timestamptz, %s, %s, %s, %s,"
        " '2026-03-01T00:00:00Z'::timestamptz)"
    )
    ids = ("11111111-1111-4111-8111-111111111111", "21111111-1111-4111-8111-111111111111")
    line = [None, *ids, 1, "config", "2026-03-01T12:00:00Z", Jsonb(SAMPLE), "why", "ada", "cause"]
    others = [b"x", ids[1], ids[0], 2, "created", "2026-03-01T12:00:01Z", Jsonb({}), "", "", ""]
    with owner:
        whole = first(owner, call, *line)
        for place, other in enumerate(others):
            changed = [*line[:place], other, *line[place + 1 :]]
            assert first(owner, call, *changed) != whole, place
        owner.execute("SET timezone = 'Pacific/Auckland'")
        assert first(owner, call, *line) == whole


def test_each_price_the_catalogue_ever_asked_is_kept(owner: psycopg.Connection) -> None:
    with owner:
        product = first(owner, "INSERT INTO public.products (name) VALUES ('box') RETURNING id")
        variant = first(
            owner,
            "INSERT INTO public.product_variants (product_id, name, price_minor, currency)"
            " VALUES (%s, 'v', 100, 'EUR') RETURNING id",
            product,
        )
        for change in ("price_minor = 90", "stock_quantity = 7", "price_minor = 120"):
            owner.execute(f"UPDATE public.product_variants SET {change} WHERE id = %s", [variant])
        with owner.transaction(force_rollback=True):
            owner.execute("UPDATE public.product_variants SET price_minor = 1")
        found = owner.execute(
            "SELECT price_minor FROM pricing.catalogue_prices WHERE variant_id = %s ORDER BY id",
            [variant],
        )
        assert [row[0] for row in found] == [100, 90, 120]


def test_whoever_is_delivered_to_an_address_that_moves_is_told_of(
    owner: psycopg.Connection,
) -> None:
    with owner:
        user = first(
            owner, "INSERT INTO public.users (email) VALUES (gen_random_uuid()) RETURNING id"
        )
        address = first(
            owner,
            "INSERT INTO public.addresses (user_id, country) VALUES (%s, 'DE') RETURNING id",
            user,
        )
        subscription = first(
            owner,
            "INSERT INTO public.subscriptions (user_id, currency, delivery_address_id)"
            " VALUES (%s, 'EUR', %s) RETURNING id",
            *(user, address),
        )
        gone = first(
            owner,
            "INSERT INTO public.subscriptions (user_id, currency, delivery_address_id, status,"
            " canceled_at) VALUES (%s, 'EUR', %s, 'canceled', now()) RETURNING id",
            *(user, address),
        )
        for change in ("city = 'Bonn'", "country = 'AT'"):
            owner.execute(f"UPDATE public.addresses SET {change} WHERE id = %s", [address])
        told = owner.execute(
            "SELECT payload ->> 'subscription_id', (payload ->> 'revision')::int"
            " FROM pricing.outbox WHERE type = 'pricing.subscription_changed' ORDER BY position"
        ).fetchall()
        revision = first(
            owner,
            "SELECT revision FROM pricing.subscription_revisions WHERE subscription_id = %s",
            subscription,
        )
    assert told == [(str(subscription), 1), (str(gone), 1), (str(subscription), 2)]
    assert revision == 2
