"""What was looked for at Stripe and found missing; payouts taken apart.

Revision ID: 013
Revises: 012
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "013"
down_revision = "012"
branch_labels = None
depends_on = None

TABLES = ("payouts", "payout_lines", "reconcile_runs", "reconcile_gaps")


def upgrade() -> None:
    _create_payouts()
    _create_payout_lines()
    _create_reconcile_runs()
    _create_reconcile_gaps()
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON payments.{table} TO payments_app")
    op.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA payments TO payments_app")


def _create_payouts() -> None:
    op.create_table(
        "payouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("livemode", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("arrival_on", sa.Date(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(), server_default=sa.text("'open'"), nullable=False),
        sa.Column("detail", sa.String()),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("checked_in", sa.Uuid()),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_payouts_currency")),
        sa.CheckConstraint(
            "verdict IN ('open', 'agrees', 'differs', 'not_itemisable')",
            name=op.f("ck_payouts_verdict"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payouts")),
        schema="payments",
    )
    op.create_index(op.f("ix_payouts_created_at"), "payouts", ["created_at"], schema="payments")


def _create_payout_lines() -> None:
    op.create_table(
        "payout_lines",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("payout_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("source", sa.String()),
        sa.Column("stripe_payment_id", sa.String()),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("fee_minor", sa.BigInteger(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("problem", sa.String()),
        sa.ForeignKeyConstraint(
            ["payout_id"], ["payments.payouts.id"], name=op.f("fk_payout_lines_payout_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payout_lines")),
        schema="payments",
    )
    op.create_index(
        op.f("ix_payout_lines_payout_id"), "payout_lines", ["payout_id"], schema="payments"
    )
    op.create_index(
        op.f("ix_payout_lines_stripe_payment_id"),
        "payout_lines",
        ["stripe_payment_id"],
        schema="payments",
    )


def _create_reconcile_runs() -> None:
    op.create_table(
        "reconcile_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.String()),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("objects_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cursors", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("counts", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.String()),
        sa.Column("walk_after", sa.DateTime(timezone=True)),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("until > since", name=op.f("ck_reconcile_runs_window")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconcile_runs")),
        schema="payments",
    )
    op.create_index(
        "uq_reconcile_runs_open",
        "reconcile_runs",
        ["account"],
        unique=True,
        schema="payments",
        postgresql_where=sa.text("ended_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    )


def _create_reconcile_gaps() -> None:
    op.create_table(
        "reconcile_gaps",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary()),
        sa.Column(
            "found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("mended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "kind IN ('event', 'object', 'payout')", name=op.f("ck_reconcile_gaps_kind")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["payments.reconcile_runs.id"], name=op.f("fk_reconcile_gaps_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconcile_gaps")),
        sa.UniqueConstraint("run_id", "subject", name=op.f("uq_reconcile_gaps_run_id_subject")),
        schema="payments",
    )
    op.create_index(
        op.f("ix_reconcile_gaps_subject"), "reconcile_gaps", ["subject"], schema="payments"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table, schema="payments")
