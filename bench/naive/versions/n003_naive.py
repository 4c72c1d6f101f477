"""Revision 003 as it is written without a thought of who else uses the tables.

The same seven tables and 14 columns; foreign keys and checks are added validated, the index is a plain one, one
column's default is volatile, and all of it is one transaction.

Revision ID: n003
Revises: d6d022bcff3b
"""

import importlib

import sqlalchemy as sa
from alembic import op

revision = "n003"
down_revision = "d6d022bcff3b"
branch_labels = None
depends_on = None

guarded = importlib.import_module(
    "migrations.versions.003_add_enhanced_subscription_payment_models"
)


def upgrade() -> None:
    for schema in guarded.SCHEMAS:
        op.execute(f"CREATE SCHEMA {schema}")
    guarded._create_pricing_configs()
    guarded._create_cost_history()
    guarded._create_payments()
    guarded._create_loyalty()
    guarded._create_analytics()
    for column in guarded._columns():
        if column.name == "variants_changed_at":
            # PostgreSQL asks a volatile default once for each row: it writes the table anew.
            column.server_default = sa.DefaultClause(sa.text("clock_timestamp()"))
        op.add_column("subscriptions", column, schema="public")
    for table, name, rule in guarded.CONSTRAINTS:
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule}")
    op.create_index(
        "ix_subscriptions_price_version", "subscriptions", ["price_version"], schema="public"
    )
