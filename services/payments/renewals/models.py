"""Tables of what is to be charged when, with what, and how that went."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "payments"}


class BillableSubscription(Base):
    """What pricing last said of a subscription's life; what it costs stands in `told_costs`."""

    __tablename__ = "billable_subscriptions"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'paused', 'canceled')", name="status"),
        Index(
            "ix_billable_subscriptions_due",
            "period_end",
            postgresql_where=text("status = 'active'"),
        ),
        SCHEMA,
    )

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    revision: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    billing_interval: Mapped[str]
    period_start: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    period_end: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # The day and time of day that its periods keep, see periods.py; none while it has no period_end.
    anchor_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Since when it is, or was, paused or canceled: a charge that was asked for later is given back, see leaving.py.
    left_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # It was paused until then: what it did not get meanwhile is not charged.
    resumed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ToldCost(Base):
    """Each cost that pricing ever announced for a subscription: only these may be charged."""

    __tablename__ = "told_costs"
    __table_args__ = (
        CheckConstraint("total_minor >= 0", name="total"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        SCHEMA,
    )

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    currency: Mapped[str]
    total_minor: Mapped[int] = mapped_column(BigInteger)
    price_version: Mapped[int]
    cost_history_id: Mapped[int] = mapped_column(BigInteger)
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class PaymentMethod(Base):
    """What a customer is charged with off-session: Stripe's names of the customer and of the method."""

    __tablename__ = "payment_methods"
    __table_args__ = (
        Index("ix_payment_methods_news", "user_id", postgresql_where=text("is_news")),
        SCHEMA,
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    stripe_customer_id: Mapped[str]  # cus_…
    stripe_payment_method_id: Mapped[str]  # pm_…
    account: Mapped[str | None]
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    # When it was given, or last paid with where it was learnt from a payment.
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    learnt_from: Mapped[str | None]  # pi_…; none where it was given
    # Learnt, and renewals that wait for a method have not been tried with it yet.
    is_news: Mapped[bool] = mapped_column(server_default=text("false"))


class Renewal(Base):
    """One period of one subscription that is to be paid: charged once, whatever is restarted."""

    __tablename__ = "renewals"
    __table_args__ = (
        UniqueConstraint("subscription_id", "period_start"),
        CheckConstraint("period_end > period_start", name="period"),
        CheckConstraint("total_minor >= 0", name="total"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(
            "status IN ('due', 'charging', 'past_due', 'paid', 'given_up', 'canceled')",
            name="status",
        ),
        Index(
            "ix_renewals_next",
            "next_attempt_at",
            postgresql_where=text("next_attempt_at IS NOT NULL"),
        ),
        Index("ix_renewals_newest", "period_start", "id"),
        Index("ix_renewals_stripe_payment", "stripe_payment_id"),
        # Whose order or payment is looked at, turn after turn; what is paid or long ended is not.
        Index(
            "ix_renewals_unpaid",
            "status",
            "ended_at",
            postgresql_where=text("status <> 'paid'"),
        ),
        # A customer who gives another card is charged with it at once.
        Index("ix_renewals_open", "user_id", postgresql_where=text("ended_at IS NULL")),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)  # derived from subscription and period
    subscription_id: Mapped[UUID]
    user_id: Mapped[UUID]
    period_start: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    period_end: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    status: Mapped[str] = mapped_column(server_default=text("'due'"))
    currency: Mapped[str]
    total_minor: Mapped[int] = mapped_column(BigInteger)  # what the customer was told
    price_version: Mapped[int]
    cost_history_id: Mapped[int] = mapped_column(BigInteger)
    stripe_payment_id: Mapped[str | None]  # pi_… of the latest attempt
    order_id: Mapped[UUID | None]  # of the latest attempt, in stripe_orders
    method_revision: Mapped[int | None] = mapped_column(BigInteger)  # the card it was made with
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    # None while an answer is awaited, or nothing more is to be done by itself.
    next_attempt_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    failure_code: Mapped[str | None]
    needs_new_method: Mapped[bool] = mapped_column(server_default=text("false"))
    past_due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Giving it up paused the subscription: paying for it after all resumes that.
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # facts said of it
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
