"""Who left before a renewal, what its charge learnt, and orders found without a scan.

Each statement by itself: tables of payments are locked one at a time, for a moment, and a second run goes on.

Revision ID: 014a
Revises: 014
"""

from alembic import op

revision = "014a"
down_revision = "014"
branch_labels = None
depends_on = None

COLUMNS = (
    ("billable_subscriptions", "left_at timestamptz"),
    ("payment_methods", "learnt_from varchar"),
    ("payment_methods", "is_news boolean NOT NULL DEFAULT false"),
    ("renewals", "paused boolean NOT NULL DEFAULT false"),
    ("stripe_orders", "advice_code varchar"),
)
INDEXES = (
    ("ix_payment_methods_news", "payment_methods (user_id) WHERE is_news"),
    ("ix_renewals_newest", "renewals (period_start, id)"),
    ("ix_stripe_orders_newest", "stripe_orders (created_at, id)"),
    ("ix_stripe_orders_named", "stripe_orders (payment_id)"),
)
KINDS = "'event', 'object', 'payout', 'account'"
EARLIER_KINDS = "'event', 'object', 'payout'"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table, column in COLUMNS:
            op.execute(f"ALTER TABLE payments.{table} ADD COLUMN IF NOT EXISTS {column}")
        for name, keys in INDEXES:
            # An earlier attempt may have left it invalid; IF NOT EXISTS would call that done.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS payments.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON payments.{keys}")
        _replace_kinds(KINDS)
        op.execute("ALTER TABLE payments.reconcile_gaps VALIDATE CONSTRAINT ck_reconcile_gaps_kind")


def _replace_kinds(kinds: str) -> None:
    """In one statement: no moment without a rule."""
    op.execute(
        "ALTER TABLE payments.reconcile_gaps DROP CONSTRAINT IF EXISTS ck_reconcile_gaps_kind,"
        f" ADD CONSTRAINT ck_reconcile_gaps_kind CHECK (kind IN ({kinds})) NOT VALID"
    )


def downgrade() -> None:
    """A gap about an account stays what it is: the narrower rule is for new lines only."""
    _replace_kinds(EARLIER_KINDS)
    for name, _ in reversed(INDEXES):
        op.execute(f"DROP INDEX payments.{name}")
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column.split()[0], schema="payments")
