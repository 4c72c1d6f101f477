"""A cost history that nobody can change unnoticed: each line hashed with the one before it, and none ever rewritten.

Lines of earlier releases keep no hash: a subscription's chain begins with its first line after this revision.

Revision ID: 016
Revises: 015d
"""

import sqlalchemy as sa
from alembic import op

revision = "016"
down_revision = "015d"
branch_labels = None
depends_on = None

KINDS = "'created', 'variants', 'delivery', 'config', 'discount', 'revert'"
EARLIER_KINDS = "'created', 'variants', 'delivery', 'config', 'discount'"

# STABLE, as what it is made of: then it is inlined.  Times in microseconds, whatever the session's time zone.
HASH = """
CREATE FUNCTION pricing.cost_line_hash(previous bytea, subscription_id uuid, user_id uuid,
    price_version integer, kind text, effective_at timestamptz, new_breakdown jsonb, reason text,
    changed_by text, cause_id text, recorded_at timestamptz) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(coalesce(previous, ''::bytea) || convert_to(jsonb_build_array(subscription_id, user_id,
        price_version, kind, (extract(epoch FROM effective_at) * 1000000)::bigint, new_breakdown, reason,
        changed_by, cause_id, (extract(epoch FROM recorded_at) * 1000000)::bigint)::text, 'UTF8'))
$$
"""
# Whoever asks: pricing has no right to, and an owner's slip is none the less one.
REFUSE = """
CREATE FUNCTION pricing.refuse_to_rewrite() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to: write a line that corrects the other',
        TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


def upgrade() -> None:
    op.add_column(
        "subscription_cost_history", sa.Column("line_hash", sa.LargeBinary()), schema="pricing"
    )
    op.execute(HASH)
    op.execute(REFUSE)
    for function in (
        "cost_line_hash(bytea, uuid, uuid, integer, text, timestamptz, jsonb, text, text, text, timestamptz)",
        "refuse_to_rewrite()",
    ):
        op.execute(f"REVOKE ALL ON FUNCTION pricing.{function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION pricing.{function} TO pricing_app")
    op.execute(
        "CREATE TRIGGER farebox_append_only BEFORE UPDATE OR DELETE OR TRUNCATE"
        " ON pricing.subscription_cost_history"
        " FOR EACH STATEMENT EXECUTE FUNCTION pricing.refuse_to_rewrite()"
    )
    _replace_kinds(KINDS)
    with op.get_context().autocommit_block():
        op.execute(
            "ALTER TABLE pricing.subscription_cost_history"
            " VALIDATE CONSTRAINT ck_subscription_cost_history_kind"
        )


def _replace_kinds(kinds: str) -> None:
    op.drop_constraint(
        op.f("ck_subscription_cost_history_kind"), "subscription_cost_history", schema="pricing"
    )
    op.execute(
        "ALTER TABLE pricing.subscription_cost_history"
        f" ADD CONSTRAINT ck_subscription_cost_history_kind CHECK (kind IN ({kinds})) NOT VALID"
    )


def downgrade() -> None:
    """A line that took a price back stays what it is: the narrower rule is for new lines only."""
    _replace_kinds(EARLIER_KINDS)
    op.execute("DROP TRIGGER farebox_append_only ON pricing.subscription_cost_history")
    op.execute("DROP FUNCTION pricing.refuse_to_rewrite()")
    op.execute(
        "DROP FUNCTION pricing.cost_line_hash(bytea, uuid, uuid, integer, text, timestamptz, jsonb, text,"
        " text, text, timestamptz)"
    )
    op.drop_column("subscription_cost_history", "line_hash", schema="pricing")
