"""What the storefront asked for its variants when their prices began to be kept.

Of its own, after the trigger: nobody's write waits for it, and what the trigger has noted meanwhile is left alone.

Revision ID: 018
Revises: 017
"""

from alembic import op

revision = "018"
down_revision = "017"
branch_labels = None
depends_on = None

BACKFILL = """
INSERT INTO pricing.catalogue_prices (variant_id, currency, price_minor, effective_at)
SELECT v.id, v.currency, v.price_minor, now() FROM public.product_variants v
WHERE NOT EXISTS (SELECT FROM pricing.catalogue_prices c WHERE c.variant_id = v.id)
ORDER BY v.id
"""


def upgrade() -> None:
    op.execute(BACKFILL)


def downgrade() -> None:
    """What was noted stays: lines are never taken away, and 017 takes the table."""
