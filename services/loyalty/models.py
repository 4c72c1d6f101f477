"""Tables loyalty owns.  No other service reads or writes them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base
from shared.events import TierName

SCHEMA = {"schema": "loyalty"}
TIERS = "('bronze', 'silver', 'gold', 'platinum')"


class LoyaltyAccount(Base):
    """A customer's balance and tier; opened by the first payment."""

    __tablename__ = "loyalty_accounts"
    __table_args__ = (
        CheckConstraint("balance_points >= 0", name="balance"),
        CheckConstraint(f"tier IN {TIERS}", name="tier"),
        Index(
            "ix_loyalty_accounts_tier_until",
            "tier_until",
            postgresql_where=text("tier_until IS NOT NULL"),
        ),
        SCHEMA,
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    balance_points: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    tier: Mapped[TierName] = mapped_column(String, server_default=text("'bronze'"))
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # of facts said
    opened_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    tier_as_of: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=text("'epoch'")
    )
    # When the tier falls if nothing more is earned; refresh_tiers comes back then.
    tier_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class PointsLot(Base):
    """What one payment is worth now, under the rule in force when it was earned."""

    __tablename__ = "points_lots"
    __table_args__ = (
        CheckConstraint("points BETWEEN 0 AND peak_points", name="points"),
        Index(None, "user_id", "earned_at"),
        Index(None, "subscription_id"),
        SCHEMA,
    )

    payment_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("loyalty.loyalty_accounts.user_id"))
    subscription_id: Mapped[UUID | None]
    payment_revision: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    rule: Mapped[str]  # e.g. 2026-01:gold
    points: Mapped[int] = mapped_column(BigInteger)
    peak_points: Mapped[int] = mapped_column(BigInteger)  # the most it was ever worth
    earned_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class PointsTransaction(Base):
    """A line of the points ledger: inserted once, never updated or deleted (the role has no right to)."""

    __tablename__ = "points_transactions"
    __table_args__ = (
        UniqueConstraint("payment_id", "payment_revision"),
        CheckConstraint("points <> 0", name="points"),
        CheckConstraint("kind IN ('earned', 'reversed', 'restored')", name="kind"),
        Index(None, "user_id", "id"),
        SCHEMA,
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("loyalty.loyalty_accounts.user_id"))
    payment_id: Mapped[UUID]
    payment_revision: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    points: Mapped[int] = mapped_column(BigInteger)
    rule: Mapped[str]
    event_id: Mapped[UUID]  # the fact that caused it
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
