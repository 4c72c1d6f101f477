"""The storefront's core tables in `public`, as farebox sees them; pricing owns 14 columns of subscriptions."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Numeric,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

CURRENCY = "currency ~ '^[A-Z]{3}$'"


class User(Base):
    __tablename__ = "users"
    __table_args__ = ({"schema": "public"},)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    email: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Address(Base):
    __tablename__ = "addresses"
    __table_args__ = (
        CheckConstraint("country ~ '^[A-Z]{2}$'", name="country"),
        Index(None, "user_id"),
        {"schema": "public"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    user_id: Mapped[UUID] = mapped_column(ForeignKey("public.users.id"))
    country: Mapped[str]  # ISO 3166-1 alpha-2
    region: Mapped[str | None]  # ISO 3166-2 without the country, e.g. CA
    city: Mapped[str | None]
    postal_code: Mapped[str | None]
    line1: Mapped[str | None]


class Product(Base):
    __tablename__ = "products"
    __table_args__ = (
        Index("ix_products_search", "search", postgresql_using="gin"),
        {"schema": "public"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    search: Mapped[str | None] = mapped_column(
        TSVECTOR, Computed("to_tsvector('simple'::regconfig, name)", persisted=True)
    )


class ProductVariant(Base):
    __tablename__ = "product_variants"
    __table_args__ = (
        CheckConstraint("price_minor >= 0", name="price"),
        CheckConstraint(CURRENCY, name="currency"),
        CheckConstraint("stock_quantity >= 0", name="stock"),
        Index(None, "product_id"),
        {"schema": "public"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    product_id: Mapped[UUID] = mapped_column(ForeignKey("public.products.id"))
    name: Mapped[str]
    price_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    stock_quantity: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Subscription(Base):
    """A recurring box.  The first block is the storefront's; the second is pricing's."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'paused', 'canceled')", name="status"),
        CheckConstraint(CURRENCY, name="currency"),
        CheckConstraint(
            "billing_interval IN ('week', 'month', 'quarter', 'year')", name="billing_interval"
        ),
        CheckConstraint("period_end > period_start", name="period"),
        CheckConstraint("(status = 'canceled') = (canceled_at IS NOT NULL)", name="canceled_at"),
        CheckConstraint(
            "total_minor >= 0 AND tax_minor >= 0 AND delivery_cost_minor >= 0"
            " AND loyalty_discount_minor >= 0",
            name="amounts",
        ),
        CheckConstraint("jsonb_typeof(variants) = 'array'", name="variants"),
        Index(None, "user_id"),
        Index(None, "price_version"),
        Index(None, "delivery_address_id"),
        {"schema": "public"},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    user_id: Mapped[UUID] = mapped_column(ForeignKey("public.users.id"))
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    currency: Mapped[str]
    billing_interval: Mapped[str] = mapped_column(server_default=text("'month'"))
    period_start: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
    period_end: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    canceled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    # [{variant_id, quantity, unit_price_minor}, …]: the unit price each was priced at
    variants: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    variants_changed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cost_breakdown: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    total_minor: Mapped[int | None] = mapped_column(BigInteger)
    admin_percentage_applied: Mapped[Decimal | None] = mapped_column(Numeric(7, 4))
    tax_rate_applied: Mapped[Decimal | None] = mapped_column(Numeric(7, 6))
    tax_minor: Mapped[int | None] = mapped_column(BigInteger)
    price_version: Mapped[int | None] = mapped_column(ForeignKey("pricing.pricing_configs.version"))
    delivery_type: Mapped[str | None]
    delivery_address_id: Mapped[UUID | None] = mapped_column(ForeignKey("public.addresses.id"))
    delivery_cost_minor: Mapped[int | None] = mapped_column(BigInteger)
    next_delivery_on: Mapped[date | None] = mapped_column(Date)
    loyalty_points_earned: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    loyalty_discount_minor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
