"""Renewals: who is billed for which period, with what, and how that went.

Revision ID: 011
Revises: 010
"""

import sqlalchemy as sa
from alembic import op

revision = "011"
down_revision = "010"
branch_labels = None
depends_on = None

TABLES = ("billable_subscriptions", "told_costs", "payment_methods", "renewals")


# What was announced before there were renewals; the costs before the latest one are of periods that are paid.
REMEMBERED = """
INSERT INTO payments.told_costs (subscription_id, revision, currency, total_minor, price_version,
    cost_history_id, effective_at)
SELECT subscription_id, revision, currency, total_minor, price_version, cost_history_id, effective_at
FROM payments.subscription_costs
"""


def upgrade() -> None:
    _create_known()
    _create_renewals()
    _index_renewals()
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON payments.{table} TO payments_app")
    op.execute(REMEMBERED)


def _create_known() -> None:
    op.create_table(
        "billable_subscriptions",
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("billing_interval", sa.String(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True)),
        sa.Column("period_end", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("anchor_at", sa.DateTime(timezone=True)),
        sa.Column("resumed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'canceled')",
            name=op.f("ck_billable_subscriptions_status"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_billable_subscriptions")),
        schema="payments",
    )
    op.create_index(
        "ix_billable_subscriptions_due",
        "billable_subscriptions",
        ["period_end"],
        schema="payments",
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "told_costs",
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("cost_history_id", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_told_costs_currency")),
        sa.CheckConstraint("total_minor >= 0", name=op.f("ck_told_costs_total")),
        sa.PrimaryKeyConstraint("subscription_id", "revision", name=op.f("pk_told_costs")),
        schema="payments",
    )
    op.create_table(
        "payment_methods",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=False),
        sa.Column("stripe_payment_method_id", sa.String(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_payment_methods")),
        schema="payments",
    )


def _create_renewals() -> None:
    op.create_table(
        "renewals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'due'"), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("cost_history_id", sa.BigInteger(), nullable=False),
        sa.Column("stripe_payment_id", sa.String()),
        sa.Column("order_id", sa.Uuid()),
        sa.Column("method_revision", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("failure_code", sa.String()),
        sa.Column(
            "needs_new_method", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("past_due_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_renewals_currency")),
        sa.CheckConstraint(
            "status IN ('due', 'charging', 'past_due', 'paid', 'given_up', 'canceled')",
            name=op.f("ck_renewals_status"),
        ),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_renewals_period")),
        sa.CheckConstraint("total_minor >= 0", name=op.f("ck_renewals_total")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_renewals")),
        sa.UniqueConstraint(
            "subscription_id", "period_start", name=op.f("uq_renewals_subscription_id_period_start")
        ),
        schema="payments",
    )


def _index_renewals() -> None:
    op.create_index(
        "ix_renewals_next",
        "renewals",
        ["next_attempt_at"],
        schema="payments",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(
        "ix_renewals_stripe_payment", "renewals", ["stripe_payment_id"], schema="payments"
    )
    op.create_index(
        "ix_renewals_unpaid",
        "renewals",
        ["status", "ended_at"],
        schema="payments",
        postgresql_where=sa.text("status <> 'paid'"),
    )
    op.create_index(
        "ix_renewals_open",
        "renewals",
        ["user_id"],
        schema="payments",
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, schema="payments")
