"""When each subscription of a rollout is due, and why it ended as it did, in a word that programs read.

Revision ID: 015b
Revises: 015a
"""

from alembic import op

revision = "015b"
down_revision = "015a"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE pricing.rollout_items ADD COLUMN IF NOT EXISTS code varchar,"
        " ADD COLUMN IF NOT EXISTS due_at timestamptz,"
        " ADD COLUMN IF NOT EXISTS effective_at timestamptz,"
        " ADD COLUMN IF NOT EXISTS notice_id uuid"
    )
    with op.get_context().autocommit_block():
        # An earlier attempt may have left it invalid; IF NOT EXISTS would call that done.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pricing.ix_rollout_items_due")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_rollout_items_due ON pricing.rollout_items"
            " (price_version, due_at, subscription_id) WHERE outcome IS NULL"
        )


def downgrade() -> None:
    op.drop_index("ix_rollout_items_due", "rollout_items", schema="pricing")
    for name in ("notice_id", "effective_at", "due_at", "code"):
        op.drop_column("rollout_items", name, schema="pricing")
