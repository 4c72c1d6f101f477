"""The facts below the daily numbers, and the calendar they are counted in.

Revision ID: 008
Revises: 007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "008"
down_revision = "007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payment_facts",
        sa.Column("payment_id", sa.Uuid(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("state", JSONB(), nullable=False),
        sa.Column("days", JSONB(), nullable=False),
        schema="analytics",
    )
    op.create_table(
        "subscription_facts",
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", JSONB(), nullable=False),
        sa.Column("days", JSONB(), nullable=False),
        schema="analytics",
    )
    op.create_table(
        "subscription_heads",
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        schema="analytics",
    )
    op.create_table(
        "calendar",
        sa.Column(
            "id",
            sa.Integer(),
            server_default=sa.text("1"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.CheckConstraint("id = 1", name="one"),
        schema="analytics",
    )


def downgrade() -> None:
    for table in ("calendar", "subscription_heads", "subscription_facts", "payment_facts"):
        op.drop_table(table, schema="analytics")
