"""Points lots: what each payment is worth now, and by which rule; when a tier falls.

Revision ID: 007
Revises: 006
"""

import sqlalchemy as sa
from alembic import op

revision = "007"
down_revision = "006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "points_lots",
        sa.Column("payment_id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("subscription_id", sa.Uuid()),
        sa.Column("payment_revision", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("peak_points", sa.BigInteger(), nullable=False),
        sa.Column("earned_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["loyalty.loyalty_accounts.user_id"]),
        sa.CheckConstraint("points BETWEEN 0 AND peak_points", name="points"),
        sa.Index("ix_points_lots_user_id_earned_at", "user_id", "earned_at"),
        sa.Index("ix_points_lots_subscription_id", "subscription_id"),
        schema="loyalty",
    )
    # Accounts open with loyalty's first worker, which this revision comes before: the table is empty.
    op.add_column(
        "loyalty_accounts",
        sa.Column(
            "tier_as_of",
            sa.DateTime(timezone=True),
            server_default=sa.text("'epoch'"),
            nullable=False,
        ),
        schema="loyalty",
    )
    op.add_column(
        "loyalty_accounts", sa.Column("tier_until", sa.DateTime(timezone=True)), schema="loyalty"
    )
    op.create_index(
        "ix_loyalty_accounts_tier_until",
        "loyalty_accounts",
        ["tier_until"],
        postgresql_where=sa.text("tier_until IS NOT NULL"),
        schema="loyalty",
    )


def downgrade() -> None:
    op.drop_index("ix_loyalty_accounts_tier_until", "loyalty_accounts", schema="loyalty")
    op.drop_column("loyalty_accounts", "tier_until", schema="loyalty")
    op.drop_column("loyalty_accounts", "tier_as_of", schema="loyalty")
    op.drop_table("points_lots", schema="loyalty")
