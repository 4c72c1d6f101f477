"""Seven tables and 14 columns: pricing, payments, analytics and loyalty beside the storefront.

Safe on a busy `subscriptions`: constant defaults, constraints NOT VALID then validated, the index built
concurrently.  The first part is one transaction; what follows can be run again.

Revision ID: 003
Revises: d6d022bcff3b
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlalchemy.schema import CreateColumn

revision = "003"
down_revision = "d6d022bcff3b"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
ZERO = sa.text("0")
EMPTY_OBJECT = sa.text("'{}'")
SCHEMAS = ("pricing", "payments", "loyalty", "analytics")

# Added NOT VALID (a moment's lock), validated afterwards (no lock that stops a write).
CONSTRAINTS = (
    (
        "public.subscriptions",
        "ck_subscriptions_amounts",
        (
            "CHECK (total_minor >= 0 AND tax_minor >= 0 AND delivery_cost_minor >= 0"
            " AND loyalty_discount_minor >= 0)"
        ),
    ),
    (
        "public.subscriptions",
        "ck_subscriptions_variants",
        "CHECK (jsonb_typeof(variants) = 'array')",
    ),
    (
        "public.subscriptions",
        "fk_subscriptions_price_version",
        "FOREIGN KEY (price_version) REFERENCES pricing.pricing_configs (version)",
    ),
    (
        "public.subscriptions",
        "fk_subscriptions_delivery_address_id",
        "FOREIGN KEY (delivery_address_id) REFERENCES public.addresses (id)",
    ),
    (
        "pricing.subscription_cost_history",
        "fk_subscription_cost_history_subscription_id",
        "FOREIGN KEY (subscription_id) REFERENCES public.subscriptions (id)",
    ),
)


def upgrade() -> None:
    online = not op.get_context().as_sql  # farebox: the same offline
    if not online or not sa.inspect(op.get_bind()).has_schema("pricing"):
        for schema in SCHEMAS:
            op.execute(f"CREATE SCHEMA {schema}")
        _create_pricing_configs()
        _create_cost_history()
        _create_payments()
        _create_loyalty()
        _create_analytics()
        _alter_subscriptions()
    with op.get_context().autocommit_block():
        for table, name, _ in CONSTRAINTS:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        # An earlier attempt may have left it invalid; IF NOT EXISTS would call that done.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS public.ix_subscriptions_price_version")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_subscriptions_price_version"
            " ON public.subscriptions (price_version)"
        )


def _alter_subscriptions() -> None:
    """One statement for all that `subscriptions` gains: its writers wait from the first one to COMMIT."""
    carrier = sa.Table("subscriptions", sa.MetaData(), *_columns(), schema="public")
    dialect = op.get_context().dialect
    parts = [f"ADD COLUMN {CreateColumn(c).compile(dialect=dialect)}" for c in carrier.columns]
    own = [(name, rule) for table, name, rule in CONSTRAINTS if table == "public.subscriptions"]
    parts += [f"ADD CONSTRAINT {name} {rule} NOT VALID" for name, rule in own]
    op.execute("ALTER TABLE public.subscriptions " + ", ".join(parts))
    table, name, rule = CONSTRAINTS[-1]
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule} NOT VALID")


def _columns() -> tuple[sa.Column[Any], ...]:
    """Pricing's 14 columns of `public.subscriptions`; defaults are constants, so no row is rewritten."""
    return (
        sa.Column("variants", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("variants_changed_at", sa.DateTime(timezone=True)),
        sa.Column("cost_breakdown", JSONB()),
        sa.Column("total_minor", sa.BigInteger()),
        sa.Column("admin_percentage_applied", sa.Numeric(7, 4)),
        sa.Column("tax_rate_applied", sa.Numeric(7, 6)),
        sa.Column("tax_minor", sa.BigInteger()),
        sa.Column("price_version", sa.Integer()),
        sa.Column("delivery_type", sa.String()),
        sa.Column("delivery_address_id", sa.Uuid()),
        sa.Column("delivery_cost_minor", sa.BigInteger()),
        sa.Column("next_delivery_on", sa.Date()),
        sa.Column("loyalty_points_earned", sa.BigInteger(), server_default=ZERO, nullable=False),
        sa.Column("loyalty_discount_minor", sa.BigInteger(), server_default=ZERO, nullable=False),
    )


def _create_pricing_configs() -> None:
    op.create_table(
        "pricing_configs",
        sa.Column("version", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("status", sa.String(), server_default=sa.text("'draft'"), nullable=False),
        sa.Column("admin_percentage", sa.Numeric(7, 4), nullable=False),
        sa.Column("delivery_cost_minor", JSONB(), nullable=False),
        sa.Column("tax_rates", JSONB(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("published_by", sa.String()),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("effective_from", sa.DateTime(timezone=True)),
        sa.Column("effective_to", sa.DateTime(timezone=True)),
        sa.CheckConstraint("admin_percentage BETWEEN 0.1 AND 50", name="admin_percentage"),
        sa.CheckConstraint(
            "status IN ('draft', 'scheduled', 'active', 'retired', 'withdrawn')", name="status"
        ),
        sa.CheckConstraint(
            "status IN ('draft', 'withdrawn') OR (effective_from IS NOT NULL"
            " AND published_by IS NOT NULL AND published_at IS NOT NULL AND reason IS NOT NULL)",
            name="published",
        ),
        sa.CheckConstraint("effective_to > effective_from", name="effective"),
        ExcludeConstraint(
            (sa.text("tstzrange(effective_from, effective_to)"), "&&"),
            name="ex_pricing_configs_in_force",
            using="gist",
            where=sa.text("status IN ('scheduled', 'active', 'retired')"),
        ),
        schema="pricing",
    )


def _create_cost_history() -> None:
    op.create_table(
        "subscription_cost_history",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "price_version",
            sa.Integer(),
            sa.ForeignKey("pricing.pricing_configs.version"),
            nullable=False,
        ),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("old_breakdown", JSONB()),
        sa.Column("new_breakdown", JSONB(), nullable=False),
        sa.Column("old_total_minor", sa.BigInteger()),
        sa.Column("new_total_minor", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sa.Column("cause_id", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "kind IN ('created', 'variants', 'delivery', 'config', 'discount')", name="kind"
        ),
        sa.CheckConstraint("new_total_minor >= 0 AND old_total_minor >= 0", name="amounts"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.Index(
            "ix_subscription_cost_history_subscription_id_effective_at",
            "subscription_id",
            "effective_at",
        ),
        sa.Index("ix_subscription_cost_history_price_version", "price_version"),
        schema="pricing",
    )


def _create_payments() -> None:
    def amount(name: str, nullable: bool = False) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger(), nullable=nullable)

    op.create_table(
        "payment_intents",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("stripe_id", sa.String(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("subscription_id", sa.Uuid()),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        amount("amount_minor"),
        amount("capturable_minor"),
        amount("received_minor"),
        amount("refunded_minor"),
        amount("disputed_minor"),
        amount("fee_minor", nullable=True),
        sa.Column("failure_code", sa.String()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True)),
        sa.Column("canceled_at", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("anomaly", sa.String()),
        sa.Column("fold", JSONB(), nullable=False),
        sa.UniqueConstraint("stripe_id"),
        sa.CheckConstraint(
            "status IN ('requires_payment_method', 'requires_confirmation', 'requires_action',"
            " 'processing', 'requires_capture', 'succeeded', 'canceled')",
            name="status",
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.CheckConstraint(
            "amount_minor >= 0 AND capturable_minor >= 0 AND received_minor >= 0"
            " AND refunded_minor >= 0 AND disputed_minor >= 0",
            name="amounts",
        ),
        sa.CheckConstraint("revision >= 1", name="revision"),
        sa.Index("ix_payment_intents_user_id", "user_id"),
        sa.Index("ix_payment_intents_subscription_id", "subscription_id"),
        sa.Index("ix_payment_intents_created_at", "created_at"),
        schema="payments",
    )


def _create_loyalty() -> None:
    op.create_table(
        "loyalty_accounts",
        sa.Column("user_id", sa.Uuid(), primary_key=True),
        sa.Column("balance_points", sa.BigInteger(), server_default=ZERO, nullable=False),
        sa.Column("tier", sa.String(), server_default=sa.text("'bronze'"), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=ZERO, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("balance_points >= 0", name="balance"),
        sa.CheckConstraint("tier IN ('bronze', 'silver', 'gold', 'platinum')", name="tier"),
        schema="loyalty",
    )
    op.create_table(
        "points_transactions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column(
            "user_id",
            sa.Uuid(),
            sa.ForeignKey("loyalty.loyalty_accounts.user_id"),
            nullable=False,
        ),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("payment_revision", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint("payment_id", "payment_revision"),
        sa.CheckConstraint("points <> 0", name="points"),
        sa.CheckConstraint("kind IN ('earned', 'reversed', 'restored')", name="kind"),
        sa.Index("ix_points_transactions_user_id_id", "user_id", "id"),
        schema="loyalty",
    )


def _create_analytics() -> None:
    def count(name: str) -> sa.Column[int]:
        return sa.Column(name, sa.BigInteger(), server_default=ZERO, nullable=False)

    op.create_table(
        "subscription_analytics",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("currency", sa.String(), primary_key=True),
        *map(count, ("new", "paused", "resumed", "canceled", "active_change", "mrr_change_minor")),
        *map(count, ("price_changes", "price_mrr_change_minor")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.Index("ix_subscription_analytics_currency_day", "currency", "day"),
        schema="analytics",
    )
    net = sa.Computed("gross_minor - refunded_minor - disputed_minor", persisted=True)
    op.create_table(
        "payment_analytics",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("currency", sa.String(), primary_key=True),
        *map(count, ("attempts", "attempts_succeeded", "attempts_failed")),
        sa.Column("failures", JSONB(), server_default=EMPTY_OBJECT, nullable=False),
        *map(count, ("received_count", "gross_minor", "refunded_minor", "disputed_minor")),
        sa.Column("net_minor", sa.BigInteger(), net, nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        schema="analytics",
    )


def downgrade() -> None:
    op.execute("ALTER TABLE pricing.subscription_cost_history DROP CONSTRAINT " + CONSTRAINTS[4][1])
    for column in _columns():
        op.drop_column("subscriptions", column.name, schema="public")
    for table in (
        "analytics.payment_analytics",
        "analytics.subscription_analytics",
        "loyalty.points_transactions",
        "loyalty.loyalty_accounts",
        "payments.payment_intents",
        "pricing.subscription_cost_history",
        "pricing.pricing_configs",
    ):
        schema, name = table.split(".")
        op.drop_table(name, schema=schema)
    for schema in SCHEMAS:
        op.execute(f"DROP SCHEMA {schema}")
