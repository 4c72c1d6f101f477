"""Tables pricing owns.  No other service reads or writes them."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "pricing"}


class PricingConfig(Base):
    """One version of the administrator's settings; immutable once published, but for the end of its time."""

    __tablename__ = "pricing_configs"
    __table_args__ = (
        CheckConstraint("admin_percentage BETWEEN 0.1 AND 50", name="admin_percentage"),
        CheckConstraint(
            "status IN ('draft', 'scheduled', 'active', 'retired', 'withdrawn')", name="status"
        ),
        CheckConstraint(
            "status IN ('draft', 'withdrawn') OR (effective_from IS NOT NULL"
            " AND published_by IS NOT NULL AND published_at IS NOT NULL AND reason IS NOT NULL)",
            name="published",
        ),
        CheckConstraint("effective_to > effective_from", name="effective"),
        # One price is in force at any instant.
        ExcludeConstraint(
            (text("tstzrange(effective_from, effective_to)"), "&&"),
            name="ex_pricing_configs_in_force",
            using="gist",
            where=text("status IN ('scheduled', 'active', 'retired')"),
        ),
        SCHEMA,
    )

    version: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    status: Mapped[str] = mapped_column(server_default=text("'draft'"))
    admin_percentage: Mapped[Decimal] = mapped_column(Numeric(7, 4))  # 10 is 10 %
    # {"USD": {"standard": 500, …}, …}: a currency that is missing cannot be billed
    delivery_cost_minor: Mapped[dict[str, Any]] = mapped_column(JSONB)
    tax_rates: Mapped[dict[str, Any]] = mapped_column(JSONB)  # {"DE": "0.19", "US-CA": "0.0725"}
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    reason: Mapped[str | None]
    published_by: Mapped[str | None]
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    effective_from: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    effective_to: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SubscriptionCostHistory(Base):
    """A line of the cost log: inserted once, never updated or deleted (the role has no right to)."""

    __tablename__ = "subscription_cost_history"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('created', 'variants', 'delivery', 'config', 'discount')", name="kind"
        ),
        CheckConstraint("new_total_minor >= 0 AND old_total_minor >= 0", name="amounts"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        Index(None, "subscription_id", "effective_at"),
        Index(None, "price_version"),
        SCHEMA,
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    subscription_id: Mapped[UUID] = mapped_column(ForeignKey("public.subscriptions.id"))
    user_id: Mapped[UUID]
    price_version: Mapped[int] = mapped_column(ForeignKey("pricing.pricing_configs.version"))
    kind: Mapped[str]
    currency: Mapped[str]
    old_breakdown: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    new_breakdown: Mapped[dict[str, Any]] = mapped_column(JSONB)
    old_total_minor: Mapped[int | None] = mapped_column(BigInteger)
    new_total_minor: Mapped[int] = mapped_column(BigInteger)
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str]
    changed_by: Mapped[str]
    cause_id: Mapped[str]  # the event or request that made this line
    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )


class SubscriptionRevision(Base):
    """How many facts have been said about a subscription; kept by the trigger and by pricing alike."""

    __tablename__ = "subscription_revisions"
    __table_args__ = (SCHEMA,)

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)


class PointsNoted(Base):
    """The newest state of a loyalty account that a subscription's loyalty_points_earned was taken from."""

    __tablename__ = "points_noted"
    __table_args__ = (SCHEMA,)

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_revision: Mapped[int] = mapped_column(BigInteger)


class Rollout(Base):
    """A published version on its way to every subscription."""

    __tablename__ = "rollouts"
    __table_args__ = (
        CheckConstraint("status IN ('listing', 'running', 'done')", name="status"),
        SCHEMA,
    )

    price_version: Mapped[int] = mapped_column(
        ForeignKey("pricing.pricing_configs.version"), primary_key=True, autoincrement=False
    )
    status: Mapped[str] = mapped_column(server_default=text("'listing'"))
    listed_to: Mapped[UUID | None]  # subscriptions up to this id are on the list
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class RolloutItem(Base):
    """What became of one subscription in one rollout: nobody is forgotten, nobody counted twice."""

    __tablename__ = "rollout_items"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('moved', 'kept', 'excluded', 'deferred', 'failed')", name="outcome"
        ),
        Index(
            "ix_rollout_items_todo",
            "price_version",
            "subscription_id",
            postgresql_where=text("outcome IS NULL"),
        ),
        SCHEMA,
    )

    price_version: Mapped[int] = mapped_column(
        ForeignKey("pricing.rollouts.price_version"), primary_key=True
    )
    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    outcome: Mapped[str | None]
    detail: Mapped[str | None]
