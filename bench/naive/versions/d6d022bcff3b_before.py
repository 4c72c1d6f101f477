"""Where the storefront's database stands; the naive chain begins here.

Revision ID: d6d022bcff3b
"""

revision = "d6d022bcff3b"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing to do: it is there."""
