"""What else is known of a payment: its net, the decline, 3-D Secure, mandate, review.

Revision ID: 010
Revises: 009
"""

import sqlalchemy as sa
from alembic import op

revision = "010"
down_revision = "009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payment_intents", sa.Column("net_minor", sa.BigInteger()), schema="payments")
    op.add_column("payment_intents", sa.Column("decline_code", sa.String()), schema="payments")
    op.add_column(
        "payment_intents", sa.Column("payment_method_type", sa.String()), schema="payments"
    )
    op.add_column("payment_intents", sa.Column("three_d_secure", sa.String()), schema="payments")
    op.add_column("payment_intents", sa.Column("mandate_id", sa.String()), schema="payments")
    op.add_column("payment_intents", sa.Column("review", sa.String()), schema="payments")
    op.add_column("payment_intents", sa.Column("invoice_id", sa.String()), schema="payments")


def downgrade() -> None:
    op.drop_column("payment_intents", "invoice_id", schema="payments")
    op.drop_column("payment_intents", "review", schema="payments")
    op.drop_column("payment_intents", "mandate_id", schema="payments")
    op.drop_column("payment_intents", "three_d_secure", schema="payments")
    op.drop_column("payment_intents", "payment_method_type", schema="payments")
    op.drop_column("payment_intents", "decline_code", schema="payments")
    op.drop_column("payment_intents", "net_minor", schema="payments")
