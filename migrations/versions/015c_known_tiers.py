"""The tiers customers have: pricing heard of them before it had a place to keep them.

Revision ID: 015c
Revises: 015b
"""

from alembic import op

revision = "015c"
down_revision = "015b"
branch_labels = None
depends_on = None

# An account's revision is at least that of its last tier_changed: whatever is heard from now on is newer.
REMEMBERED = """
INSERT INTO pricing.user_tiers (user_id, tier, revision)
SELECT user_id, tier, revision FROM loyalty.loyalty_accounts WHERE tier <> 'bronze'
ON CONFLICT (user_id) DO NOTHING
"""


def upgrade() -> None:
    op.execute(REMEMBERED)


def downgrade() -> None:
    """The table goes with 015; the tiers in it are loyalty's."""
