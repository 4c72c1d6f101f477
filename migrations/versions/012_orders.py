"""What callers asked for, and what Stripe was asked to do about it.

Revision ID: 012
Revises: 011
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "012"
down_revision = "011"
branch_labels = None
depends_on = None

TABLES = ("api_requests", "stripe_orders")


def upgrade() -> None:
    _create_api_requests()
    _create_stripe_orders()
    _index_stripe_orders()
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON payments.{table} TO payments_app")


def _create_api_requests() -> None:
    op.create_table(
        "api_requests",
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("answer", postgresql.JSONB()),
        sa.CheckConstraint(
            "(status IS NULL) = (answer IS NULL)", name=op.f("ck_api_requests_answered")
        ),
        sa.PrimaryKeyConstraint("caller", "idempotency_key", name=op.f("pk_api_requests")),
        schema="payments",
    )
    op.create_index(
        op.f("ix_api_requests_created_at"), "api_requests", ["created_at"], schema="payments"
    )


def _create_stripe_orders() -> None:
    op.create_table(
        "stripe_orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("stripe_payment_id", sa.String()),
        sa.Column("stripe_object_id", sa.String()),
        sa.Column("payment_id", sa.Uuid()),
        sa.Column("account", sa.String()),
        sa.Column("user_id", sa.Uuid()),
        sa.Column("subscription_id", sa.Uuid()),
        sa.Column("renewal_id", sa.Uuid()),
        sa.Column("currency", sa.String()),
        sa.Column("amount_minor", sa.BigInteger()),
        sa.Column("parameters", postgresql.JSONB(), nullable=False),
        sa.Column("first_asked_at", sa.DateTime(timezone=True)),
        sa.Column("ask_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.String()),
        sa.Column("failure_code", sa.String()),
        sa.Column("refused_status", sa.Integer()),
        sa.Column("ordered_by", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("traceparent", sa.String()),
        sa.CheckConstraint(
            "(status = 'open') = (ended_at IS NULL)", name=op.f("ck_stripe_orders_ended")
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_stripe_orders_currency")),
        sa.CheckConstraint(
            "kind IN ('create', 'confirm', 'capture', 'cancel', 'refund')",
            name=op.f("ck_stripe_orders_kind"),
        ),
        sa.CheckConstraint(
            "status IN ('open', 'done', 'refused')", name=op.f("ck_stripe_orders_status")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_stripe_orders_amount")),
        sa.ForeignKeyConstraint(
            ["renewal_id"], ["payments.renewals.id"], name=op.f("fk_stripe_orders_renewal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_orders")),
        schema="payments",
    )


def _index_stripe_orders() -> None:
    op.create_index(
        "ix_stripe_orders_open",
        "stripe_orders",
        ["ask_after"],
        schema="payments",
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(
        "ix_stripe_orders_payment",
        "stripe_orders",
        ["stripe_payment_id"],
        schema="payments",
        postgresql_where=sa.text("stripe_payment_id IS NOT NULL"),
    )
    op.create_index(
        "ix_stripe_orders_subscription",
        "stripe_orders",
        ["subscription_id"],
        schema="payments",
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, schema="payments")
