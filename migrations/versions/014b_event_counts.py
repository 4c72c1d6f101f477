"""How many Stripe events became what, by the hour, and which payments are to be looked at.

Events that were folded before this revision are not counted: `GET /stripe-events/counts` begins with it.

Revision ID: 014b
Revises: 014a
"""

import sqlalchemy as sa
from alembic import op

revision = "014b"
down_revision = "014a"
branch_labels = None
depends_on = None

# What a payment is looked at for is seldom: these stay small, and most updates of a payment touch neither.
LOOKED_AT = {
    "ix_payment_intents_anomaly": "anomaly IS NOT NULL",
    "ix_payment_intents_unlinked": "user_id IS NULL AND subscription_id IS NULL",
}
# Of what is still received nothing is counted here: a webhook's insert pays nothing, and the partial indexes of those
# that wait are small.
COUNT = """
CREATE FUNCTION payments.count_stripe_events() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO payments.stripe_event_counts AS c (hour, type, status, count, last_received_at)
    SELECT date_trunc('hour', received_at, 'UTC'), type, status, sum(change), max(received_at)
    FROM (
        SELECT received_at, type, status, 1 AS change FROM is_now
        UNION ALL SELECT received_at, type, status, -1 FROM was
    ) changed
    WHERE status <> 'received'
    GROUP BY 1, 2, 3 HAVING sum(change) <> 0 ORDER BY 1, 2, 3
    ON CONFLICT (hour, type, status) DO UPDATE SET count = c.count + excluded.count,
        last_received_at = greatest(c.last_received_at, excluded.last_received_at);
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "stripe_event_counts",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("type", sa.String(), primary_key=True),
        sa.Column("status", sa.String(), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        schema="payments",
    )
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON payments.stripe_event_counts TO payments_app"
    )
    op.execute(COUNT)
    op.execute("REVOKE ALL ON FUNCTION payments.count_stripe_events() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION payments.count_stripe_events() TO payments_app")
    op.execute(
        "CREATE TRIGGER farebox_count AFTER UPDATE ON payments.stripe_events"
        " REFERENCING OLD TABLE AS was NEW TABLE AS is_now"
        " FOR EACH STATEMENT EXECUTE FUNCTION payments.count_stripe_events()"
    )
    with op.get_context().autocommit_block():
        for name, condition in LOOKED_AT.items():
            # An earlier attempt may have left it invalid; IF NOT EXISTS would call that done.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS payments.{name}")
            op.execute(
                f"CREATE INDEX CONCURRENTLY {name} ON payments.payment_intents (created_at, id)"
                f" WHERE {condition}"
            )


def downgrade() -> None:
    for name in LOOKED_AT:
        op.drop_index(name, "payment_intents", schema="payments")
    op.execute("DROP TRIGGER farebox_count ON payments.stripe_events")
    op.execute("DROP FUNCTION payments.count_stripe_events()")
    op.drop_table("stripe_event_counts", schema="payments")
