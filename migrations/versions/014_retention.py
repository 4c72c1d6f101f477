"""When a raw Stripe body was reduced to what the fold reads.

Revision ID: 014
Revises: 013
"""

import sqlalchemy as sa
from alembic import op

revision = "014"
down_revision = "013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "stripe_events", sa.Column("redacted_at", sa.DateTime(timezone=True)), schema="payments"
    )


def downgrade() -> None:
    op.drop_column("stripe_events", "redacted_at", schema="payments")
