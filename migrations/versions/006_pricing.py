"""Rollouts, revisions, and the trigger that stages the storefront's own writes as facts.

Revision ID: 006
Revises: 005
"""

import sqlalchemy as sa
from alembic import op

revision = "006"
down_revision = "005"
branch_labels = None
depends_on = None

# What pricing computes itself (total, tax, …) is said by subscription_cost_changed, not here.
SAID = (
    "user_id, status, currency, billing_interval, period_start, period_end, canceled_at, variants,"
    " delivery_type, delivery_address_id, next_delivery_on, loyalty_discount_minor"
)

# One INSERT … SELECT for each statement of the storefront's, in the storefront's own transaction.  Pricing's
# API passes its clock, cause and trace through transaction-local settings; the storefront sets none.  While
# pricing writes a cost (farebox.pricing is 'on') nothing is staged here: subscription_cost_changed says it.
FUNCTION = f"""
CREATE FUNCTION pricing.stage_subscription_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    said_at timestamptz := coalesce(
        nullif(current_setting('farebox.now', true), '')::timestamptz, statement_timestamp());
    cause text := coalesce(
        nullif(current_setting('farebox.cause', true), ''), 'storefront:' || pg_current_xact_id());
    trace text := nullif(current_setting('farebox.traceparent', true), '');
    ids uuid[];
BEGIN
    IF current_setting('farebox.pricing', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(id) INTO ids FROM new_rows;
    ELSE
        SELECT array_agg(n.id) INTO ids FROM new_rows n JOIN old_rows o ON o.id = n.id
        WHERE ({", ".join(f"n.{c.strip()}" for c in SAID.split(","))})
            IS DISTINCT FROM ({", ".join(f"o.{c.strip()}" for c in SAID.split(","))});
    END IF;
    IF ids IS NULL THEN
        RETURN NULL;
    END IF;
    WITH revised AS (
        INSERT INTO pricing.subscription_revisions AS r (subscription_id, revision)
        SELECT id, 1 FROM unnest(ids) AS id ORDER BY id
        ON CONFLICT (subscription_id) DO UPDATE SET revision = r.revision + 1
        RETURNING r.subscription_id, r.revision
    ), facts AS (
        SELECT n.*, r.revision,
            md5('pricing.subscription_changed:' || n.id || ':' || r.revision)::uuid AS event_id
        FROM revised r JOIN new_rows n ON n.id = r.subscription_id
    )
    INSERT INTO pricing.outbox (id, aggregatetype, aggregateid, type, payload, headers)
    SELECT event_id, 'pricing', user_id::text, 'pricing.subscription_changed',
        jsonb_build_object(
            'id', event_id, 'occurred_at', said_at, 'customer_id', user_id,
            'subscription_id', id, 'revision', revision, 'status', status, 'currency', currency,
            'billing_interval', billing_interval, 'period_start', period_start,
            'period_end', period_end, 'variants', variants, 'delivery_type', delivery_type,
            'delivery_address_id', delivery_address_id, 'total_minor', total_minor,
            'created_at', created_at, 'canceled_at', canceled_at),
        jsonb_strip_nulls(jsonb_build_object(
            'ce_subject', user_id::text, 'ce_time', said_at,
            'ce_dataschema', 'urn:farebox:pricing.subscription_changed:v1',
            'ce_causationid', cause, 'traceparent', trace))
    FROM facts ORDER BY id;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "subscription_revisions",
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        schema="pricing",
    )
    op.create_table(
        "points_noted",
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("account_revision", sa.BigInteger(), nullable=False),
        schema="pricing",
    )
    op.create_table(
        "rollouts",
        sa.Column("price_version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("status", sa.String(), server_default=sa.text("'listing'"), nullable=False),
        sa.Column("listed_to", sa.Uuid()),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["price_version"], ["pricing.pricing_configs.version"]),
        sa.CheckConstraint("status IN ('listing', 'running', 'done')", name="status"),
        schema="pricing",
    )
    op.create_table(
        "rollout_items",
        sa.Column("price_version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("subscription_id", sa.Uuid(), primary_key=True),
        sa.Column("outcome", sa.String()),
        sa.Column("detail", sa.String()),
        sa.ForeignKeyConstraint(["price_version"], ["pricing.rollouts.price_version"]),
        sa.CheckConstraint(
            "outcome IN ('moved', 'kept', 'excluded', 'deferred', 'failed')", name="outcome"
        ),
        sa.Index(
            "ix_rollout_items_todo",
            "price_version",
            "subscription_id",
            postgresql_where=sa.text("outcome IS NULL"),
        ),
        schema="pricing",
    )
    op.execute(FUNCTION)
    op.execute("REVOKE ALL ON FUNCTION pricing.stage_subscription_changed() FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER farebox_stage_insert AFTER INSERT ON public.subscriptions"
        " REFERENCING NEW TABLE AS new_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION pricing.stage_subscription_changed()"
    )
    op.execute(
        "CREATE TRIGGER farebox_stage_update AFTER UPDATE ON public.subscriptions"
        " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION pricing.stage_subscription_changed()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER farebox_stage_update ON public.subscriptions")
    op.execute("DROP TRIGGER farebox_stage_insert ON public.subscriptions")
    op.execute("DROP FUNCTION pricing.stage_subscription_changed()")
    for table in ("rollout_items", "rollouts", "points_noted", "subscription_revisions"):
        op.drop_table(table, schema="pricing")
