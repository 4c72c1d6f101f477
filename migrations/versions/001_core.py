"""The storefront's core tables, as they stood before farebox.

Revision ID: 1f0c6e0a9b21
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "1f0c6e0a9b21"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.text("gen_random_uuid()")
NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=ID),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint("email"),
        schema="public",
    )
    op.create_table(
        "addresses",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=ID),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("public.users.id"), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("region", sa.String()),
        sa.Column("city", sa.String()),
        sa.Column("postal_code", sa.String()),
        sa.Column("line1", sa.String()),
        sa.CheckConstraint("country ~ '^[A-Z]{2}$'", name="country"),
        sa.Index("ix_addresses_user_id", "user_id"),
        schema="public",
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=ID),
        sa.Column("name", sa.String(), nullable=False),
        schema="public",
    )
    op.create_table(
        "product_variants",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=ID),
        sa.Column("product_id", sa.Uuid(), sa.ForeignKey("public.products.id"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.CheckConstraint("price_minor >= 0", name="price"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.Index("ix_product_variants_product_id", "product_id"),
        schema="public",
    )
    _create_subscriptions()


def _create_subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Uuid(), primary_key=True, server_default=ID),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("public.users.id"), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'active'"), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column(
            "billing_interval", sa.String(), server_default=sa.text("'month'"), nullable=False
        ),
        sa.Column("period_start", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("canceled_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('active', 'paused', 'canceled')", name="status"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.CheckConstraint(
            "billing_interval IN ('week', 'month', 'quarter', 'year')", name="billing_interval"
        ),
        sa.CheckConstraint("period_end > period_start", name="period"),
        sa.CheckConstraint("(status = 'canceled') = (canceled_at IS NOT NULL)", name="canceled_at"),
        sa.Index("ix_subscriptions_user_id", "user_id"),
        schema="public",
    )


def downgrade() -> None:
    for table in ("subscriptions", "product_variants", "products", "addresses", "users"):
        op.drop_table(table, schema="public")
