"""Price versions with a scope and a life: drafts, previews, approvals, decisions, notices, customers' tiers.

Revision ID: 015
Revises: 014b
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "015"
down_revision = "014b"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY_OBJECT = sa.text("'{}'")
TABLES = ("scopes", "decisions", "previews", "preview_items", "notices", "user_tiers")

LIFE = "'draft', 'previewed', 'approved', 'scheduled', 'active', 'retired', 'withdrawn'"
EARLIER_LIFE = "'draft', 'scheduled', 'active', 'retired', 'withdrawn'"
NOT_YET = "'draft', 'previewed', 'approved', 'withdrawn'"
PUBLISHED = (
    "(effective_from IS NOT NULL AND published_by IS NOT NULL"
    " AND published_at IS NOT NULL AND reason IS NOT NULL)"
)
IN_FORCE = "status IN ('scheduled', 'active', 'retired')"
APPROVED = (
    "status NOT IN ('approved', 'scheduled', 'active', 'retired') OR (approved_by IS NOT NULL"
    " AND approved_at IS NOT NULL AND approved_by <> created_by AND authors <> '{}'"
    " AND array_position(authors, NULL) IS NULL AND approved_by <> ALL (authors)"
    " AND approved_hash IS NOT NULL AND preview_hash IS NOT NULL AND approved_hash = preview_hash)"
)
WHOLE = (
    "scope_id <> 1 OR (admin_percentage IS NOT NULL AND delivery_cost_minor IS NOT NULL"
    " AND tax_rates IS NOT NULL)"
)

# What earlier releases published was never approved by a second person, and says so.
REMEMBERED = """
UPDATE pricing.pricing_configs SET authors = ARRAY[created_by],
    approved_by = CASE WHEN status IN ('scheduled', 'active', 'retired')
        THEN 'published before approvals' END,
    approved_at = CASE WHEN status IN ('scheduled', 'active', 'retired') THEN published_at END,
    approved_hash = CASE WHEN status IN ('scheduled', 'active', 'retired') THEN '' END,
    preview_hash = CASE WHEN status IN ('scheduled', 'active', 'retired') THEN '' END
"""

# Whoever writes the table, the code or a hand: a price that somebody approved is the price that was approved.
GUARD = """
CREATE FUNCTION pricing.guard_price_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    content_changed boolean := (OLD.scope_id, OLD.admin_percentage, OLD.delivery_cost_minor, OLD.tax_rates,
        OLD.variant_prices_minor, OLD.tax_inclusive, OLD.timing, OLD.drift_limit_percent, OLD.reverts,
        OLD.draft_revision)
      IS DISTINCT FROM (NEW.scope_id, NEW.admin_percentage, NEW.delivery_cost_minor, NEW.tax_rates,
        NEW.variant_prices_minor, NEW.tax_inclusive, NEW.timing, NEW.drift_limit_percent, NEW.reverts,
        NEW.draft_revision)
      OR OLD.effective_from IS DISTINCT FROM NEW.effective_from AND NOT (OLD.effective_from IS NULL
        AND OLD.status = 'approved' AND NEW.status IN ('scheduled', 'active'));
    approval_changed boolean := (OLD.approved_by, OLD.approved_at, OLD.approved_hash, OLD.preview_hash)
      IS DISTINCT FROM (NEW.approved_by, NEW.approved_at, NEW.approved_hash, NEW.preview_hash);
    unapproved boolean := num_nonnulls(NEW.approved_by, NEW.approved_at, NEW.approved_hash) = 0;
    next_states text[] := CASE OLD.status
        WHEN 'draft' THEN ARRAY['draft', 'previewed', 'withdrawn']
        WHEN 'previewed' THEN ARRAY['previewed', 'draft', 'approved', 'withdrawn']
        WHEN 'approved' THEN ARRAY['approved', 'draft', 'scheduled', 'active', 'withdrawn']
        WHEN 'scheduled' THEN ARRAY['scheduled', 'active', 'retired', 'withdrawn']
        WHEN 'active' THEN ARRAY['active', 'retired']
        ELSE ARRAY[OLD.status] END;
    refused text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'draft' OR NEW.published_at IS NOT NULL THEN
            refused := 'it begins as a draft';
        END IF;
    ELSIF NEW.version <> OLD.version OR NEW.created_by <> OLD.created_by OR NOT NEW.authors @> OLD.authors
            OR NEW.created_at <> OLD.created_at THEN
        refused := 'who wrote it is not changed afterwards';
    ELSIF NEW.status <> ALL (next_states) THEN
        refused := format('it cannot become %s', NEW.status);
    ELSIF content_changed AND (OLD.status IN ('scheduled', 'active', 'retired', 'withdrawn')
            OR NEW.status <> 'draft' OR NEW.draft_revision <= OLD.draft_revision) THEN
        refused := 'its content stands';
    ELSIF approval_changed AND NEW.status NOT IN ('draft', 'previewed')
            AND (OLD.status, NEW.status, NEW.preview_hash) <> ('previewed', 'approved', OLD.preview_hash) THEN
        refused := 'its approval stands';
    ELSIF OLD.published_at IS NOT NULL AND (OLD.reason, OLD.published_by, OLD.published_at)
            IS DISTINCT FROM (NEW.reason, NEW.published_by, NEW.published_at) THEN
        refused := 'who published it, and why, stands';
    END IF;
    IF NEW.status = 'draft' AND (NOT unapproved OR NEW.preview_hash IS NOT NULL) THEN
        refused := coalesce(refused, 'a draft has neither preview nor approval');
    ELSIF NEW.status = 'previewed' AND (NOT unapproved OR NOT EXISTS (
            SELECT FROM pricing.previews p WHERE p.price_version = NEW.version AND p.status = 'done'
                AND p.draft_revision = NEW.draft_revision AND p.hash = NEW.preview_hash)) THEN
        refused := coalesce(refused, 'there is no such preview of it');
    -- The same name is refused by the CHECK; this is about who writes himself in another way.
    ELSIF NEW.status = 'approved' AND EXISTS (
            SELECT FROM unnest(NEW.authors || NEW.created_by) author WHERE author <> NEW.approved_by
                AND lower(btrim(author)) = lower(btrim(NEW.approved_by))) THEN
        refused := coalesce(refused, 'its approver wrote a part of it');
    END IF;
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION 'price version % (%): %', NEW.version, coalesce(OLD.status, 'new'), refused
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$
"""
# What a hash was made of is not changed behind it.
GUARD_PREVIEW = """
CREATE FUNCTION pricing.guard_preview() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.status IN ('done', 'stale', 'failed') AND (NEW.status NOT IN (OLD.status, 'stale')
            OR to_jsonb(OLD) - 'status' IS DISTINCT FROM to_jsonb(NEW) - 'status') THEN
        RAISE EXCEPTION 'preview % is %: what it showed stands', OLD.id, OLD.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$
"""
GUARD_PREVIEW_ITEMS = """
CREATE FUNCTION pricing.guard_preview_items() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone JOIN pricing.previews p ON p.id = gone.preview_id
            WHERE p.status IN ('running', 'hashing', 'done')) THEN
        RAISE EXCEPTION 'a preview that counts keeps what it says of each subscription'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$
"""
TRIGGERS = (
    (
        "guard_price_version",
        GUARD,
        "BEFORE INSERT OR UPDATE ON pricing.pricing_configs FOR EACH ROW",
    ),
    ("guard_preview", GUARD_PREVIEW, "BEFORE UPDATE ON pricing.previews FOR EACH ROW"),
    (
        "guard_preview_items",
        GUARD_PREVIEW_ITEMS,
        "AFTER DELETE ON pricing.preview_items REFERENCING OLD TABLE AS gone FOR EACH STATEMENT",
    ),
)
# Changed, but never deleted; and what a preview says of a subscription is written once.
KEPT = ("pricing_configs", "previews", "rollouts", "rollout_items")


def upgrade() -> None:
    _create_scopes()
    _create_decisions()
    _create_previews()
    _create_preview_items()
    _create_notices()
    _alter_configs()
    for name, function, when in TRIGGERS:
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION pricing.{name}() FROM PUBLIC")
        op.execute(f"CREATE TRIGGER farebox_{name} {when} EXECUTE FUNCTION pricing.{name}()")
    for table in ("scopes", "decisions"):
        op.execute(f"GRANT SELECT, INSERT ON pricing.{table} TO pricing_app")
    for table in ("notices", "user_tiers", "previews"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON pricing.{table} TO pricing_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON pricing.preview_items TO pricing_app")
    for table in KEPT:
        op.execute(f"REVOKE DELETE ON pricing.{table} FROM pricing_app")
    op.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA pricing TO pricing_app")


def _create_scopes() -> None:
    op.create_table(
        "scopes",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("definition", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scopes")),
        sa.UniqueConstraint("key", name=op.f("uq_scopes_key")),
        schema="pricing",
    )
    op.execute("INSERT INTO pricing.scopes (key, definition) VALUES ('everything', '{}')")
    op.create_table(
        "user_tiers",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_tiers")),
        schema="pricing",
    )


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cause_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.ForeignKeyConstraint(
            ["price_version"],
            ["pricing.pricing_configs.version"],
            name=op.f("fk_decisions_price_version"),
        ),
        schema="pricing",
    )
    op.create_index(
        op.f("ix_decisions_price_version"), "decisions", ["price_version"], schema="pricing"
    )


def _create_previews() -> None:
    op.create_table(
        "previews",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("draft_revision", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("effective_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("listed_to", sa.Uuid()),
        sa.Column("counted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expected", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.String()),
        sa.Column("totals", JSONB(), server_default=EMPTY_OBJECT, nullable=False),
        sa.Column("detail", sa.String()),
        sa.CheckConstraint(
            "status IN ('running', 'hashing', 'done', 'stale', 'failed')",
            name=op.f("ck_previews_status"),
        ),
        sa.CheckConstraint(
            "status <> 'done' OR (hash IS NOT NULL AND finished_at IS NOT NULL)",
            name=op.f("ck_previews_done"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_previews")),
        sa.ForeignKeyConstraint(
            ["price_version"],
            ["pricing.pricing_configs.version"],
            name=op.f("fk_previews_price_version"),
        ),
        schema="pricing",
    )
    op.create_index(
        "uq_previews_current",
        "previews",
        ["price_version"],
        unique=True,
        schema="pricing",
        postgresql_where=sa.text("status IN ('running', 'hashing', 'done')"),
    )


def _create_preview_items() -> None:
    op.create_table(
        "preview_items",
        sa.Column("preview_id", sa.BigInteger(), nullable=False),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("code", sa.String()),
        sa.Column("reason", sa.String()),
        sa.Column("currency", sa.String()),
        sa.Column("old_total_minor", sa.BigInteger()),
        sa.Column("new_total_minor", sa.BigInteger()),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "outcome IN ('moved', 'kept', 'excluded', 'deferred', 'failed')",
            name=op.f("ck_preview_items_outcome"),
        ),
        sa.PrimaryKeyConstraint("preview_id", "subscription_id", name=op.f("pk_preview_items")),
        schema="pricing",
    )


def _create_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("price_version", sa.Integer(), nullable=False),
        sa.Column("subscription_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("notify_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True)),
        sa.Column("told_by", sa.String()),
        sa.CheckConstraint("notify_by <= effective_at", name=op.f("ck_notices_notify_by")),
        sa.CheckConstraint("(told_at IS NULL) = (told_by IS NULL)", name=op.f("ck_notices_told")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint(
            "price_version",
            "subscription_id",
            name=op.f("uq_notices_price_version_subscription_id"),
        ),
        schema="pricing",
    )


def _alter_configs() -> None:
    """A table of a few rows: what looks at each of them takes a moment."""
    for column in _columns():
        op.add_column("pricing_configs", column, schema="pricing")
    for name in ("admin_percentage", "delivery_cost_minor", "tax_rates"):
        op.alter_column("pricing_configs", name, nullable=True, schema="pricing")
    op.execute(REMEMBERED)
    for name in ("status", "published"):
        op.drop_constraint(op.f(f"ck_pricing_configs_{name}"), "pricing_configs", schema="pricing")
    for name, rule in (
        ("status", f"status IN ({LIFE})"),
        ("published", f"status IN ({NOT_YET}) OR {PUBLISHED}"),
        ("approved", APPROVED),
        ("whole", WHOLE),
        ("drift_limit_percent", "drift_limit_percent BETWEEN 0 AND 100"),
    ):
        _add(f"ck_pricing_configs_{name}", f"CHECK ({rule})")
    for key, target in (("scope_id", "scopes (id)"), ("reverts", "pricing_configs (version)")):
        rule = f"FOREIGN KEY ({key}) REFERENCES pricing.{target}"
        _add(f"fk_pricing_configs_{key}", rule)
    op.execute("ALTER TABLE pricing.pricing_configs DROP CONSTRAINT ex_pricing_configs_in_force")
    op.execute(
        "ALTER TABLE pricing.pricing_configs ADD CONSTRAINT ex_pricing_configs_in_force EXCLUDE USING gist"
        " (int4range(scope_id, scope_id, '[]') WITH &&,"
        f" tstzrange(effective_from, effective_to) WITH &&) WHERE ({IN_FORCE})"
    )


def _add(name: str, rule: str) -> None:
    op.execute(f"ALTER TABLE pricing.pricing_configs ADD CONSTRAINT {name} {rule}")


def _columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("scope_id", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("variant_prices_minor", JSONB(), server_default=EMPTY_OBJECT, nullable=False),
        sa.Column("tax_inclusive", JSONB()),
        sa.Column("timing", JSONB(), server_default=EMPTY_OBJECT, nullable=False),
        sa.Column("authors", ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("draft_revision", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "drift_limit_percent", sa.Numeric(5, 2), server_default=sa.text("1"), nullable=False
        ),
        sa.Column("reverts", sa.Integer()),
        sa.Column("preview_hash", sa.String()),
        sa.Column("approved_by", sa.String()),
        sa.Column("approved_at", sa.DateTime(timezone=True)),
        sa.Column("approved_hash", sa.String()),
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER farebox_guard_price_version ON pricing.pricing_configs")
    for table in ("pricing_configs", "rollouts", "rollout_items"):
        op.execute(f"GRANT DELETE ON pricing.{table} TO pricing_app")
    for table in reversed(TABLES[1:]):
        op.drop_table(table, schema="pricing")
    for name, _, _ in TRIGGERS:
        op.execute(f"DROP FUNCTION pricing.{name}()")
    op.execute("ALTER TABLE pricing.pricing_configs DROP CONSTRAINT ex_pricing_configs_in_force")
    for name in ("status", "published", "approved", "whole", "drift_limit_percent"):
        op.drop_constraint(op.f(f"ck_pricing_configs_{name}"), "pricing_configs", schema="pricing")
    for column in reversed(_columns()):
        op.drop_column("pricing_configs", column.name, schema="pricing")
    op.drop_table("scopes", schema="pricing")
    for name in ("admin_percentage", "delivery_cost_minor", "tax_rates"):
        op.alter_column("pricing_configs", name, nullable=False, schema="pricing")
    _add("ck_pricing_configs_status", f"CHECK (status IN ({EARLIER_LIFE}))")
    _add("ck_pricing_configs_published", f"CHECK (status IN ('draft', 'withdrawn') OR {PUBLISHED})")
    op.execute(
        "ALTER TABLE pricing.pricing_configs ADD CONSTRAINT ex_pricing_configs_in_force EXCLUDE USING gist"
        f" (tstzrange(effective_from, effective_to) WITH &&) WHERE ({IN_FORCE})"
    )
