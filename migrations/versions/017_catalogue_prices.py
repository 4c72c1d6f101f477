"""The storefront's prices over time, and its customers' moves to another place, each noticed as it happens.

Revision ID: 017
Revises: 016
"""

import sqlalchemy as sa
from alembic import op

revision = "017"
down_revision = "016"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
SAID_AT = (
    "coalesce(nullif(current_setting('farebox.now', true), '')::timestamptz, statement_timestamp())"
)
# The storefront's own transaction: a price that was rolled back was never one.
NOTE = f"""
CREATE FUNCTION pricing.note_catalogue_price() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO pricing.catalogue_prices (variant_id, currency, price_minor, effective_at)
        SELECT id, currency, price_minor, {SAID_AT} FROM new_rows ORDER BY id;
    ELSE
        INSERT INTO pricing.catalogue_prices (variant_id, currency, price_minor, effective_at)
        SELECT n.id, n.currency, n.price_minor, {SAID_AT}
        FROM new_rows n LEFT JOIN old_rows o ON o.id = n.id
        WHERE (n.currency, n.price_minor) IS DISTINCT FROM (o.currency, o.price_minor) ORDER BY n.id;
    END IF;
    RETURN NULL;
END $$
"""
# What a subscription costs depends on where it goes: a fact for each that goes to an address that moved.
MOVED = f"""
CREATE FUNCTION pricing.stage_address_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    said_at timestamptz := {SAID_AT};
    cause text := coalesce(
        nullif(current_setting('farebox.cause', true), ''), 'storefront:' || pg_current_xact_id());
    trace text := nullif(current_setting('farebox.traceparent', true), '');
    moved uuid[];
BEGIN
    SELECT array_agg(n.id) INTO moved FROM new_rows n JOIN old_rows o ON o.id = n.id
    WHERE (n.country, n.region) IS DISTINCT FROM (o.country, o.region);
    IF moved IS NULL THEN
        RETURN NULL;
    END IF;
    WITH there AS MATERIALIZED (
        SELECT * FROM public.subscriptions
        WHERE delivery_address_id = ANY (moved) AND status <> 'canceled' ORDER BY id
        FOR NO KEY UPDATE
    ), revised AS (
        INSERT INTO pricing.subscription_revisions AS r (subscription_id, revision)
        SELECT id, 1 FROM there ORDER BY id
        ON CONFLICT (subscription_id) DO UPDATE SET revision = r.revision + 1
        RETURNING r.subscription_id, r.revision
    ), facts AS (
        SELECT t.*, r.revision,
            md5('pricing.subscription_changed:' || t.id || ':' || r.revision)::uuid AS event_id
        FROM revised r JOIN there t ON t.id = r.subscription_id
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
FUNCTIONS = ("note_catalogue_price", "stage_address_moved")
TRIGGERS = (
    ("farebox_note_insert", "INSERT", "product_variants", "note_catalogue_price"),
    ("farebox_note_update", "UPDATE", "product_variants", "note_catalogue_price"),
    ("farebox_stage_moved", "UPDATE", "addresses", "stage_address_moved"),
)


def upgrade() -> None:
    _create_log()
    op.execute(NOTE)
    op.execute(MOVED)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION pricing.{function}() FROM PUBLIC")
    for name, event, table, function in TRIGGERS:
        old = "OLD TABLE AS old_rows " if event == "UPDATE" else ""
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON public.{table}"
            f" REFERENCING {old}NEW TABLE AS new_rows"
            f" FOR EACH STATEMENT EXECUTE FUNCTION pricing.{function}()"
        )
    with op.get_context().autocommit_block():
        # An earlier attempt may have left it invalid; IF NOT EXISTS would call that done.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS public.ix_subscriptions_delivery_address_id")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_subscriptions_delivery_address_id"
            " ON public.subscriptions (delivery_address_id)"
        )


def _create_log() -> None:
    op.create_table(
        "catalogue_prices",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("variant_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalogue_prices")),
        schema="pricing",
    )
    op.create_index(
        op.f("ix_catalogue_prices_variant_id_effective_at"),
        "catalogue_prices",
        ["variant_id", "effective_at"],
        schema="pricing",
    )
    op.execute("GRANT SELECT ON pricing.catalogue_prices TO pricing_app")
    op.execute(
        "CREATE TRIGGER farebox_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON pricing.catalogue_prices"
        " FOR EACH STATEMENT EXECUTE FUNCTION pricing.refuse_to_rewrite()"
    )


def downgrade() -> None:
    op.drop_index("ix_subscriptions_delivery_address_id", "subscriptions", schema="public")
    for name, _, table, _ in reversed(TRIGGERS):
        op.execute(f"DROP TRIGGER {name} ON public.{table}")
    for function in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION pricing.{function}()")
    op.drop_table("catalogue_prices", schema="pricing")
