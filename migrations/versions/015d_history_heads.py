"""Where each subscription's chain of cost lines ends.

Revision ID: 015d
Revises: 015c
"""

import sqlalchemy as sa
from alembic import op

revision = "015d"
down_revision = "015c"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Alone: the storefront's writes go through this table, and must not wait for another one's lock."""
    op.add_column("subscription_revisions", sa.Column("head", sa.LargeBinary()), schema="pricing")


def downgrade() -> None:
    op.drop_column("subscription_revisions", "head", schema="pricing")
