"""Raw Stripe events, charges, and what pricing says a subscription costs.

Revision ID: 005
Revises: 004
"""

import sqlalchemy as sa
from alembic import op

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None

# pglz takes longer over a body than everything else that a webhook's insert does.
COMPRESS_FAST = """
DO $$ BEGIN
    ALTER TABLE payments.stripe_events ALTER COLUMN body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;  -- this server was built without lz4
END $$
"""


def upgrade() -> None:
    _create_stripe_events()
    _create_questions()
    _create_costs()


def _create_stripe_events() -> None:
    op.create_table(
        "stripe_events",
        sa.Column("position", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("api_version", sa.String()),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("stripe_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.String()),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("status", sa.String(), server_default=sa.text("'received'"), nullable=False),
        sa.Column("detail", sa.String()),
        sa.Column("stripe_payment_id", sa.String()),
        sa.Column("waiting_for", sa.String()),
        sa.Column("processed_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("id"),
        sa.CheckConstraint("status IN ('received', 'applied', 'ignored', 'parked')", name="status"),
        sa.Index(
            "ix_stripe_events_todo",
            "position",
            postgresql_where=sa.text("status = 'received' AND waiting_for IS NULL"),
        ),
        sa.Index(
            "ix_stripe_events_parked",
            "position",
            postgresql_where=sa.text("status = 'parked'"),
        ),
        sa.Index(
            "ix_stripe_events_waiting",
            "waiting_for",
            postgresql_where=sa.text("status = 'received' AND waiting_for IS NOT NULL"),
        ),
        sa.Index(
            "ix_stripe_events_payment",
            "stripe_payment_id",
            postgresql_where=sa.text("stripe_payment_id IS NOT NULL"),
        ),
        schema="payments",
    )
    op.execute(COMPRESS_FAST)
    op.create_table(
        "stripe_charges",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("stripe_payment_id", sa.String()),
        schema="payments",
    )


def _create_questions() -> None:
    op.create_table(
        "stripe_questions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("second", sa.BigInteger(), nullable=False),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("ask_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.String()),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Index(
            "uq_stripe_questions_open",
            "subject",
            "reason",
            unique=True,
            postgresql_where=sa.text("answered_at IS NULL"),
        ),
        sa.Index(
            "ix_stripe_questions_due",
            "ask_after",
            postgresql_where=sa.text("answered_at IS NULL"),
        ),
        schema="payments",
    )


def _create_costs() -> None:
    op.create_table(
        "subscription_costs",
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("cost_history_id", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("total_minor >= 0", name="total"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        schema="payments",
    )


def downgrade() -> None:
    for table in ("subscription_costs", "stripe_questions", "stripe_charges", "stripe_events"):
        op.drop_table(table, schema="payments")
