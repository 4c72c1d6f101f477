"""The storefront's inventory.

Revision ID: 8c3e90f7d1b6
Revises: 1f0c6e0a9b21
"""

import sqlalchemy as sa
from alembic import op

revision = "8c3e90f7d1b6"
down_revision = "1f0c6e0a9b21"
branch_labels = ("inventory",)
depends_on = None


def upgrade() -> None:
    zero = sa.text("0")
    op.add_column(
        "product_variants",
        sa.Column("stock_quantity", sa.BigInteger(), server_default=zero, nullable=False),
        schema="public",
    )
    op.create_check_constraint("stock", "product_variants", "stock_quantity >= 0", schema="public")


def downgrade() -> None:
    op.drop_column("product_variants", "stock_quantity", schema="public")
