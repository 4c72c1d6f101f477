"""merge search and inventory heads

Revision ID: d6d022bcff3b
Revises: 5b7d21c4e8a0, 8c3e90f7d1b6
"""

revision = "d6d022bcff3b"
down_revision = ("5b7d21c4e8a0", "8c3e90f7d1b6")
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing to do: two branches meet."""


def downgrade() -> None:
    """Nothing to do: two branches part."""
