"""Revision 003 on a storefront in use: what it adds, what it leaves alone, and what it takes away again."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import pytest

from tests.conftest import Database
from tests.migrations import storefront
from tests.migrations.conftest import ROOT, upgrade

BEFORE = "d6d022bcff3b"
COLUMNS = {
    *("variants", "variants_changed_at"),
    *("cost_breakdown", "total_minor", "admin_percentage_applied", "tax_rate_applied"),
    *("tax_minor", "price_version"),
    *("delivery_type", "delivery_address_id", "delivery_cost_minor", "next_delivery_on"),
    *("loyalty_points_earned", "loyalty_discount_minor"),
}
TABLES = {
    *("pricing.pricing_configs", "pricing.subscription_cost_history"),
    *("payments.payment_intents", "analytics.subscription_analytics"),
    *("analytics.payment_analytics", "loyalty.loyalty_accounts", "loyalty.points_transactions"),
}
WRITERS = 2
WRITES_AROUND = 40  # of each writer, before the migration begins and after it has ended


def columns(connection: psycopg.Connection) -> set[str]:
    query = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = 'subscriptions'"
    )
    return {str(row[0]) for row in connection.execute(query).fetchall()}


def tables(connection: psycopg.Connection) -> set[str]:
    query = (
        "SELECT schemaname || '.' || tablename FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    return {str(row[0]) for row in connection.execute(query).fetchall()}


def downgrade(url: str) -> None:
    """The runbook's own command."""
    subprocess.run(
        [sys.executable, "-m", "alembic", "downgrade", BEFORE],
        check=True,
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
    )


def test_it_adds_seven_tables_and_exactly_these_14_columns(fresh: Database) -> None:
    upgrade(fresh.url, BEFORE)
    with psycopg.connect(fresh.url) as connection:
        columns_before, tables_before = columns(connection), tables(connection)
    upgrade(fresh.url, "003")
    with psycopg.connect(fresh.url) as connection:
        assert columns(connection) - columns_before == COLUMNS
        assert len(COLUMNS) == 14
        assert tables(connection) - tables_before == TABLES


def test_it_touches_no_row_and_comes_off_without_a_trace(fresh: Database) -> None:
    upgrade(fresh.url, BEFORE)
    with psycopg.connect(fresh.url) as connection:
        storefront.fill(connection, 60)
    with psycopg.connect(fresh.url) as connection:
        rows, places = storefront.rows(connection), storefront.places(connection)
        tables_before = tables(connection)
    upgrade(fresh.url, "003")
    with psycopg.connect(fresh.url) as connection:
        assert storefront.places(connection) == places
    downgrade(fresh.url)
    with psycopg.connect(fresh.url) as connection:
        assert storefront.rows(connection) == rows
        assert storefront.places(connection) == places
        assert tables(connection) == tables_before
        assert not columns(connection) & COLUMNS


def test_from_head_too_a_downgrade_leaves_the_storefront_its_rows(fresh: Database) -> None:
    upgrade(fresh.url)
    with psycopg.connect(fresh.url) as connection:
        storefront.fill(connection, 20)
        connection.execute("UPDATE public.subscriptions SET status = 'paused'")
    with psycopg.connect(fresh.url) as connection:
        count = len(storefront.rows(connection)["subscriptions"])
        others = {t: r for t, r in storefront.rows(connection).items() if t != "subscriptions"}
    downgrade(fresh.url)
    with psycopg.connect(fresh.url) as connection:
        left = storefront.rows(connection)
        assert len(left["subscriptions"]) == count == 20
        assert {t: r for t, r in left.items() if t != "subscriptions"} == others
        assert not columns(connection) & COLUMNS


@dataclass
class Writer:
    """A storefront process: writes until told to stop, and remembers what was acknowledged."""

    url: str
    acknowledged: dict[UUID, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    busy: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                user = storefront.add_customer(connection)
                while not self.stop.is_set():
                    self.write(connection, user)
        except psycopg.Error as error:
            self.errors.append(str(error))
        finally:
            self.busy.set()

    def write(self, connection: psycopg.Connection, user: UUID) -> None:
        subscription = storefront.add_subscription(connection, user)
        self.acknowledged[subscription] = "active"
        connection.execute(
            "UPDATE public.subscriptions SET status = 'paused' WHERE id = %s", (subscription,)
        )
        self.acknowledged[subscription] = "paused"
        if len(self.acknowledged) % WRITES_AROUND == 0:
            self.busy.set()

    def wait_for_writes(self) -> None:
        """Until it has written some more, or failed."""
        self.busy.clear()
        assert self.busy.wait(30)


@pytest.mark.parametrize("to", ["003", None], ids=["003", "head"])
def test_the_storefront_writes_on_while_it_runs(fresh: Database, to: str | None) -> None:
    upgrade(fresh.url, BEFORE)
    writers = [Writer(fresh.url) for _ in range(WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        for writer in writers:
            writer.wait_for_writes()
        upgrade(fresh.url, to)
        for writer in writers:
            writer.wait_for_writes()
    finally:
        for writer in writers:
            writer.stop.set()
        for thread in threads:
            thread.join()
    assert [writer.errors for writer in writers] == [[], []]
    acknowledged = {k: v for writer in writers for k, v in writer.acknowledged.items()}
    with psycopg.connect(fresh.url) as connection:
        found = connection.execute("SELECT id, status FROM public.subscriptions").fetchall()
    assert dict(found) == acknowledged


def test_a_003_cut_short_after_its_transaction_is_run_again(fresh: Database) -> None:
    upgrade(fresh.url, "003")
    with psycopg.connect(fresh.url) as connection:
        # As it stands when the job dies between the transaction and the concurrent index.
        connection.execute("DROP INDEX public.ix_subscriptions_price_version")
        connection.execute(f"UPDATE public.alembic_version SET version_num = '{BEFORE}'".encode())
    upgrade(fresh.url, "003")
    with psycopg.connect(fresh.url) as connection:
        query = (
            "SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = 'public.ix_subscriptions_price_version'::regclass"
        )
        assert connection.execute(query).fetchone() == (True,)
        unvalidated = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated"
        assert connection.execute(unvalidated).fetchone() == (0,)
