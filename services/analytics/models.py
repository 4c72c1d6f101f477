"""Tables analytics owns.  No other service reads or writes them."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Computed, Date, DateTime, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "analytics"}
ZERO = text("0")
CURRENCY = "currency ~ '^[A-Z]{3}$'"


class PaymentFact(Base):
    """The newest state heard of one payment, and what it adds to each day."""

    __tablename__ = "payment_facts"
    __table_args__ = (SCHEMA,)

    payment_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)  # the fact's body
    days: Mapped[dict[str, Any]] = mapped_column(JSONB)  # "day currency" -> measure, as counted in


class PaymentDay(Base):
    """`payment_analytics`: attempts by the day they were made, money by the day it moved (minor units)."""

    __tablename__ = "payment_analytics"
    __table_args__ = (CheckConstraint(CURRENCY, name="currency"), SCHEMA)

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    currency: Mapped[str] = mapped_column(primary_key=True)
    attempts: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    attempts_succeeded: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    attempts_failed: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    failures: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    received_count: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    gross_minor: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    refunded_minor: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    disputed_minor: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    net_minor: Mapped[int] = mapped_column(
        BigInteger, Computed("gross_minor - refunded_minor - disputed_minor", persisted=True)
    )

    @classmethod
    def empty(cls, day: date, currency: str) -> "PaymentDay":
        """A day on which nobody paid; it is shown, not stored."""
        counts = dict.fromkeys(("attempts", "attempts_succeeded", "attempts_failed"), 0)
        money = dict.fromkeys(("gross_minor", "refunded_minor", "disputed_minor"), 0)
        return cls(day=day, currency=currency, failures={}, received_count=0, **counts, **money)


class SubscriptionFact(Base):
    """One revision heard of a subscription, and what it changed against the revision before."""

    __tablename__ = "subscription_facts"
    __table_args__ = (SCHEMA,)

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str]
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    state: Mapped[dict[str, Any]] = mapped_column(JSONB)  # the fact's body
    days: Mapped[dict[str, Any]] = mapped_column(JSONB)  # "day currency" -> measure, as counted in


class SubscriptionHead(Base):
    """The newest revision heard of each subscription; whoever counts one holds this row."""

    __tablename__ = "subscription_heads"
    __table_args__ = (SCHEMA,)

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)


class Calendar(Base):
    """The time zone whose days everything is counted in: one row, written once by the first worker."""

    __tablename__ = "calendar"
    __table_args__ = (CheckConstraint("id = 1", name="one"), SCHEMA)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("1"))
    time_zone: Mapped[str]


class SubscriptionDay(Base):
    """`subscription_analytics`: what changed on a day; levels (active, MRR) are the running sum."""

    __tablename__ = "subscription_analytics"
    __table_args__ = (
        CheckConstraint(CURRENCY, name="currency"),
        Index(None, "currency", "day"),
        SCHEMA,
    )

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    currency: Mapped[str] = mapped_column(primary_key=True)
    new: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    paused: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    resumed: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    canceled: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    active_change: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    mrr_change_minor: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    price_changes: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
    price_mrr_change_minor: Mapped[int] = mapped_column(BigInteger, server_default=ZERO)
