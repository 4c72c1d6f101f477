"""The storefront's product search.

Revision ID: 5b7d21c4e8a0
Revises: 1f0c6e0a9b21
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "5b7d21c4e8a0"
down_revision = "1f0c6e0a9b21"
branch_labels = ("search",)
depends_on = None


def upgrade() -> None:
    search = sa.Computed("to_tsvector('simple'::regconfig, name)", persisted=True)
    op.add_column("products", sa.Column("search", TSVECTOR(), search), schema="public")
    op.create_index(
        "ix_products_search", "products", ["search"], schema="public", postgresql_using="gin"
    )


def downgrade() -> None:
    op.drop_index("ix_products_search", "products", schema="public")
    op.drop_column("products", "search", schema="public")
