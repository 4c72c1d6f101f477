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
    LargeBinary,
    Numeric,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "pricing"}


class PriceScope(Base):
    """Whom versions are for: everything (id 1), or a cohort.  Written once, never changed."""

    __tablename__ = "scopes"
    __table_args__ = (SCHEMA,)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)  # the same definition is the same scope
    definition: Mapped[dict[str, Any]] = mapped_column(JSONB)


class PricingConfig(Base):
    """One version of the administrator's settings; its content stands from its approval on (a trigger says so)."""

    __tablename__ = "pricing_configs"
    __table_args__ = (
        CheckConstraint("admin_percentage BETWEEN 0.1 AND 50", name="admin_percentage"),
        CheckConstraint(
            "status IN ('draft', 'previewed', 'approved', 'scheduled', 'active', 'retired', 'withdrawn')",
            name="status",
        ),
        CheckConstraint(
            "status IN ('draft', 'previewed', 'approved', 'withdrawn') OR (effective_from IS NOT NULL"
            " AND published_by IS NOT NULL AND published_at IS NOT NULL AND reason IS NOT NULL)",
            name="published",
        ),
        # By somebody who wrote none of it, and of what the preview showed.
        CheckConstraint(
            "status NOT IN ('approved', 'scheduled', 'active', 'retired') OR (approved_by IS NOT NULL"
            " AND approved_at IS NOT NULL AND approved_by <> created_by AND authors <> '{}'"
            " AND array_position(authors, NULL) IS NULL AND approved_by <> ALL (authors)"
            " AND approved_hash IS NOT NULL AND preview_hash IS NOT NULL AND approved_hash = preview_hash)",
            name="approved",
        ),
        CheckConstraint(
            "scope_id <> 1 OR (admin_percentage IS NOT NULL AND delivery_cost_minor IS NOT NULL"
            " AND tax_rates IS NOT NULL)",
            name="whole",
        ),
        CheckConstraint("drift_limit_percent BETWEEN 0 AND 100", name="drift_limit_percent"),
        CheckConstraint("effective_to > effective_from", name="effective"),
        # In each scope one version is in force at any instant.
        ExcludeConstraint(
            (text("int4range(scope_id, scope_id, '[]')"), "&&"),
            (text("tstzrange(effective_from, effective_to)"), "&&"),
            name="ex_pricing_configs_in_force",
            using="gist",
            where=text("status IN ('scheduled', 'active', 'retired')"),
        ),
        SCHEMA,
    )

    version: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    status: Mapped[str] = mapped_column(server_default=text("'draft'"))
    scope_id: Mapped[int] = mapped_column(ForeignKey("pricing.scopes.id"), server_default=text("1"))
    # None in a version of a cohort: as it is in what the cohort is priced by otherwise.
    admin_percentage: Mapped[Decimal | None] = mapped_column(Numeric(7, 4))  # 10 is 10 %
    # {"USD": {"standard": 500, …}, …}: a currency that is missing cannot be billed
    delivery_cost_minor: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # {"DE": "0.19", "US-CA": "0.0725"}
    tax_rates: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # {"USD": {"<variant id>": 1999}}
    variant_prices_minor: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    # ["DE"]: where the prices contain the tax
    tax_inclusive: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    timing: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    drift_limit_percent: Mapped[Decimal] = mapped_column(Numeric(5, 2), server_default=text("1"))
    reverts: Mapped[int | None] = mapped_column(ForeignKey("pricing.pricing_configs.version"))
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # whoever wrote a part of it; only ever grows
    authors: Mapped[list[str]] = mapped_column(ARRAY(String), server_default=text("'{}'"))
    draft_revision: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    preview_hash: Mapped[str | None]
    approved_by: Mapped[str | None]
    approved_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    approved_hash: Mapped[str | None]
    reason: Mapped[str | None]
    published_by: Mapped[str | None]
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Of a draft: when it is to take effect; None: when it is published.
    effective_from: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    effective_to: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class PriceDecision(Base):
    """What somebody did to a price version or its rollout, and why.  Appended, never changed (the role has no right to)."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "price_version"), SCHEMA)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    price_version: Mapped[int] = mapped_column(ForeignKey("pricing.pricing_configs.version"))
    action: Mapped[str]
    decided_by: Mapped[str]
    reason: Mapped[str | None]
    decided_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    cause_id: Mapped[str]


class Preview(Base):
    """What a draft would do to every subscription; one that counts for each version at most."""

    __tablename__ = "previews"
    __table_args__ = (
        CheckConstraint(
            "status IN ('running', 'hashing', 'done', 'stale', 'failed')", name="status"
        ),
        CheckConstraint(
            "status <> 'done' OR (hash IS NOT NULL AND finished_at IS NOT NULL)", name="done"
        ),
        Index(
            "uq_previews_current",
            "price_version",
            unique=True,
            postgresql_where=text("status IN ('running', 'hashing', 'done')"),
        ),
        SCHEMA,
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    price_version: Mapped[int] = mapped_column(ForeignKey("pricing.pricing_configs.version"))
    draft_revision: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(server_default=text("'running'"))
    requested_by: Mapped[str]
    # The draft's, or when the preview was asked for: what it was computed with.
    effective_from: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    listed_to: Mapped[UUID | None]  # subscriptions up to this id are counted
    counted: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    expected: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    chain: Mapped[bytes] = mapped_column(LargeBinary)  # sha256 over draft and items so far
    hash: Mapped[str | None]  # over the chain and the totals
    totals: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    detail: Mapped[str | None]  # why it failed


class PreviewItem(Base):
    """What a preview says of one subscription.  No foreign key: a million checks would find the same row."""

    __tablename__ = "preview_items"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('moved', 'kept', 'excluded', 'deferred', 'failed')", name="outcome"
        ),
        SCHEMA,
    )

    preview_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    code: Mapped[str | None]
    reason: Mapped[str | None]
    currency: Mapped[str | None]
    old_total_minor: Mapped[int | None] = mapped_column(BigInteger)
    new_total_minor: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[int] = mapped_column(BigInteger)  # of the new breakdown; 0 where there is none
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Notice(Base):
    """That a customer is to be told of a higher price before it counts; whoever was not told in time keeps his."""

    __tablename__ = "notices"
    __table_args__ = (
        CheckConstraint("notify_by <= effective_at", name="notify_by"),
        CheckConstraint("(told_at IS NULL) = (told_by IS NULL)", name="told"),
        UniqueConstraint("price_version", "subscription_id"),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    price_version: Mapped[int]
    subscription_id: Mapped[UUID]
    user_id: Mapped[UUID]
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    notify_by: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    told_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    told_by: Mapped[str | None]


class UserTier(Base):
    """A customer's loyalty tier as last heard; whoever is not here is bronze."""

    __tablename__ = "user_tiers"
    __table_args__ = (SCHEMA,)

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    tier: Mapped[str]
    revision: Mapped[int] = mapped_column(BigInteger)


class SubscriptionCostHistory(Base):
    """A line of the cost log: inserted once, never updated or deleted (no right to, and a trigger refuses)."""

    __tablename__ = "subscription_cost_history"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('created', 'variants', 'delivery', 'config', 'discount', 'revert')",
            name="kind",
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
    # Over the subscription's line before it and this one (pricing.cost_line_hash); none on lines of before 016.
    line_hash: Mapped[bytes | None]


class CataloguePrice(Base):
    """What the storefront asked for a variant since when: a trigger adds a line, nobody changes one."""

    __tablename__ = "catalogue_prices"
    __table_args__ = (Index(None, "variant_id", "effective_at"), SCHEMA)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    variant_id: Mapped[UUID]
    currency: Mapped[str]
    price_minor: Mapped[int] = mapped_column(BigInteger)
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )


class SubscriptionRevision(Base):
    """How many facts have been said about a subscription; kept by the trigger and by pricing alike.

    `head` is the hash of its newest cost line.
    """

    __tablename__ = "subscription_revisions"
    __table_args__ = (SCHEMA,)

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    head: Mapped[bytes | None]


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
        CheckConstraint(
            "status IN ('listing', 'running', 'paused', 'stopped', 'canceled', 'done')",
            name="status",
        ),
        SCHEMA,
    )

    price_version: Mapped[int] = mapped_column(
        ForeignKey("pricing.pricing_configs.version"), primary_key=True, autoincrement=False
    )
    status: Mapped[str] = mapped_column(server_default=text("'listing'"))
    listed_to: Mapped[UUID | None]  # subscriptions up to this id are on the list
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    preview_id: Mapped[int | None] = mapped_column(BigInteger)  # what it is held to
    resume_status: Mapped[str | None]  # what it goes on with after a pause or a stop
    drifted: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    drift_limit: Mapped[int | None] = mapped_column(BigInteger)  # in subscriptions; None: no limit
    detail: Mapped[str | None]  # why it is paused, stopped or canceled
    changed_by: Mapped[str | None]
    changed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


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
        Index(
            "ix_rollout_items_due",
            "price_version",
            "due_at",
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
    code: Mapped[str | None]  # `detail` in a word that programs read
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))  # when to do it
    effective_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    notice_id: Mapped[UUID | None]
