"""A role for each service: its own schema, and of `public` exactly what it owns.

Roles belong to the whole server, so that they may exist already and are never dropped while another
database grants them something.  Passwords are set by the job from the services' URLs.

Revision ID: 009
Revises: 008
"""

from alembic import op

revision = "009"
down_revision = "008"
branch_labels = None
depends_on = None

SCHEMAS = ("pricing", "payments", "loyalty", "analytics")
PRICING_READS = ("users", "addresses", "products", "product_variants", "subscriptions")
# Its 14 columns, and the life of a subscription that its API leads.
PRICING_WRITES = (
    "status, canceled_at, period_start, period_end, variants, variants_changed_at, cost_breakdown,"
    " total_minor, admin_percentage_applied, tax_rate_applied, tax_minor, price_version,"
    " delivery_type, delivery_address_id, delivery_cost_minor, next_delivery_on,"
    " loyalty_points_earned, loyalty_discount_minor"
)
APPEND_ONLY = ("pricing.subscription_cost_history", "loyalty.points_transactions")

CREATE_ROLE = """
DO $$ BEGIN
    -- Looked for first: who may create no roles may still find them made by an administrator.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- made this moment for another database of this server
END $$
"""
DROP_ROLE = """
DO $$ BEGIN
    DROP ROLE {role};
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR object_in_use THEN
    NULL;  -- another database of this server still uses it
END $$
"""


def upgrade() -> None:
    for schema in SCHEMAS:
        role = f"{schema}_app"
        op.execute(CREATE_ROLE.format(role=role))
        op.execute(f"GRANT USAGE ON SCHEMA {schema}, public TO {role}")
        op.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
        )
        op.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
        op.execute(f"GRANT SELECT ON public.alembic_version TO {role}")
    for table in APPEND_ONLY:
        role = f"{table.split('.')[0]}_app"
        op.execute(f"REVOKE UPDATE, DELETE ON {table} FROM {role}")
    reads = ", ".join(f"public.{table}" for table in PRICING_READS)
    op.execute(f"GRANT SELECT ON {reads} TO pricing_app")
    op.execute("GRANT INSERT ON public.subscriptions TO pricing_app")
    op.execute(f"GRANT UPDATE ({PRICING_WRITES}) ON public.subscriptions TO pricing_app")


def downgrade() -> None:
    """Each grant by its name: DROP OWNED asks for the role's own rights, which an owner who is no superuser has not."""
    tables = ", ".join(f"public.{table}" for table in PRICING_READS)
    op.execute(f"REVOKE ALL ON {tables} FROM pricing_app")
    for schema in SCHEMAS:
        role = f"{schema}_app"
        op.execute(f"REVOKE ALL ON public.alembic_version FROM {role}")
        op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}")
        op.execute(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {role}")
        op.execute(f"REVOKE ALL ON SCHEMA {schema}, public FROM {role}")
        op.execute(DROP_ROLE.format(role=role))
