"""The storefront need not change: its own SQL stages the fact, in its own transaction."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from shared.events import SubscriptionChanged
from tests.conftest import Database
from tests.migrations import storefront


@pytest.fixture
def shop(migrated: Database, owner: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The storefront's own login: it may use its tables and knows no schema of farebox."""
    role = sql.Identifier(f"{migrated.name}_shop")
    owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    names = sql.SQL(", ").join(sql.Identifier("public", table) for table in storefront.TABLES)
    owner.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE ON {} TO {}").format(names, role))
    owner.commit()
    url = psycopg.conninfo.make_conninfo(migrated.url, user=f"{migrated.name}_shop")
    try:
        with psycopg.connect(url) as connection:
            yield connection
    finally:
        owner.rollback()
        owner.execute(sql.SQL("DROP OWNED BY {}").format(role))
        owner.execute(sql.SQL("DROP ROLE {}").format(role))
        owner.commit()


@pytest.fixture
def user(shop: psycopg.Connection) -> UUID:
    user = storefront.add_customer(shop)
    shop.commit()
    return user


def facts(owner: psycopg.Connection) -> list[SubscriptionChanged]:
    """What pricing's outbox holds, in order, each read as its readers will."""
    query = (
        "SELECT id, type, aggregatetype, aggregateid, payload FROM pricing.outbox ORDER BY position"
    )
    found = []
    for identity, kind, topic, key, payload in owner.execute(query):
        fact = SubscriptionChanged.model_validate(payload)
        assert (identity, kind, topic, key) == (fact.id, fact.type, fact.topic, fact.key)
        found.append(fact)
    owner.rollback()
    return found


def test_an_insert_and_an_update_stage_one_fact_each(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    subscription = storefront.add_subscription(shop, user)
    shop.commit()
    shop.execute("UPDATE public.subscriptions SET status = 'paused'")
    shop.commit()
    said = [(f.subscription_id, f.customer_id, f.revision, f.status) for f in facts(owner)]
    assert said == [(subscription, user, 1, "active"), (subscription, user, 2, "paused")]


def test_what_is_rolled_back_was_never_said(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    storefront.add_subscription(shop, user)
    shop.rollback()
    assert facts(owner) == []


def test_one_statement_over_many_rows_stages_a_fact_for_each(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    made = {storefront.add_subscription(shop, user) for _ in range(3)}
    shop.execute("UPDATE public.subscriptions SET billing_interval = 'year'")
    shop.commit()
    said = facts(owner)
    assert {f.subscription_id for f in said if f.revision == 2} == made
    assert len(said) == 6
    assert len({f.id for f in said}) == 6


def test_an_update_that_changes_nothing_says_nothing(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    storefront.add_subscription(shop, user)
    shop.execute("UPDATE public.subscriptions SET status = 'active'")
    shop.commit()
    assert [f.revision for f in facts(owner)] == [1]


def test_what_pricing_computes_is_not_said_here(
    shop: psycopg.Connection, owner: psycopg.Connection, migrated: Database, user: UUID
) -> None:
    storefront.add_subscription(shop, user)
    shop.commit()
    with psycopg.connect(migrated.url_for("pricing")) as pricing:
        pricing.execute("UPDATE public.subscriptions SET total_minor = 100, tax_minor = 7")
    assert [f.revision for f in facts(owner)] == [1]


def test_the_box_travels_with_the_fact(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    shop.execute(
        "INSERT INTO public.subscriptions (user_id, currency, variants, delivery_type,"
        " period_start, period_end) VALUES (%s, 'EUR', %s, 'express',"
        " '2026-03-29 01:30+01', '2026-04-29 01:30+02')",
        (user, f'[{{"variant_id": "{user}", "quantity": 2}}]'),
    )
    shop.commit()
    [fact] = facts(owner)
    assert [(line.variant_id, line.quantity) for line in fact.variants] == [(user, 2)]
    assert (fact.currency, fact.delivery_type) == ("EUR", "express")
    assert fact.period_start is not None
    assert fact.period_end is not None
    assert fact.period_end - fact.period_start == timedelta(days=31, hours=-1)


def test_a_cause_and_a_clock_set_by_the_writer_are_kept(
    shop: psycopg.Connection, owner: psycopg.Connection, user: UUID
) -> None:
    shop.execute("SELECT set_config('farebox.cause', 'request:r1', true)")
    shop.execute("SELECT set_config('farebox.now', '2026-01-02T03:04:05+00', true)")
    storefront.add_subscription(shop, user)
    shop.commit()
    storefront.add_subscription(shop, user)
    shop.commit()
    query = "SELECT headers ->> 'ce_causationid' FROM pricing.outbox ORDER BY position"
    causes = [row[0] for row in owner.execute(query)]
    assert causes[0] == "request:r1"
    assert causes[1].startswith("storefront:")
    first, second = facts(owner)
    assert first.occurred_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert second.occurred_at > first.occurred_at


def test_the_storefront_cannot_reach_the_outbox_itself(shop: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shop.execute("SELECT FROM pricing.outbox")
