"""Tables payments owns.  No other service reads or writes them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "payments"}
STATUSES = (
    "'requires_payment_method', 'requires_confirmation', 'requires_action', 'processing',"
    " 'requires_capture', 'succeeded', 'canceled'"
)


class StripeEvent(Base):
    """A webhook as it came in: stored before it is answered, never changed but for what became of it."""

    __tablename__ = "stripe_events"
    __table_args__ = (
        CheckConstraint("status IN ('received', 'applied', 'ignored', 'parked')", name="status"),
        Index(
            "ix_stripe_events_todo",
            "position",
            postgresql_where=text("status = 'received' AND waiting_for IS NULL"),
        ),
        Index("ix_stripe_events_parked", "position", postgresql_where=text("status = 'parked'")),
        Index(
            "ix_stripe_events_waiting",
            "waiting_for",
            postgresql_where=text("status = 'received' AND waiting_for IS NOT NULL"),
        ),
        # Partial, so that a webhook's insert has one index less to write.
        Index(
            "ix_stripe_events_payment",
            "stripe_payment_id",
            postgresql_where=text("stripe_payment_id IS NOT NULL"),
        ),
        SCHEMA,
    )

    position: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)  # evt_…
    type: Mapped[str]
    api_version: Mapped[str | None]
    livemode: Mapped[bool]
    account: Mapped[str | None]  # Connect
    stripe_created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    body: Mapped[bytes]
    traceparent: Mapped[str | None]
    received_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    status: Mapped[str] = mapped_column(server_default=text("'received'"))
    detail: Mapped[str | None]  # why it was ignored or parked, or what it waits for
    stripe_payment_id: Mapped[str | None]  # pi_…, once known; ch_… of one that belongs to none
    # ch_… whose payment, pi_… whose state, or the address whose object is not known yet
    waiting_for: Mapped[str | None]
    processed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Since then `body` holds nothing but what the fold reads.
    redacted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class StripeEventCount(Base):
    """How many events that came in this hour became what; kept by a trigger, of all but those still received."""

    __tablename__ = "stripe_event_counts"
    __table_args__ = (SCHEMA,)

    hour: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    last_received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class PaymentIntent(Base):
    """One payment: a pure function of the set of Stripe facts received about it."""

    __tablename__ = "payment_intents"
    __table_args__ = (
        CheckConstraint(f"status IN ({STATUSES})", name="status"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(
            "amount_minor >= 0 AND capturable_minor >= 0 AND received_minor >= 0"
            " AND refunded_minor >= 0 AND disputed_minor >= 0",
            name="amounts",
        ),
        CheckConstraint("revision >= 1", name="revision"),
        Index(None, "user_id"),
        Index(None, "subscription_id"),
        Index(None, "created_at"),
        # What an operator looks at is seldom: it is found without reading every payment.
        Index(
            "ix_payment_intents_anomaly",
            "created_at",
            "id",
            postgresql_where=text("anomaly IS NOT NULL"),
        ),
        Index(
            "ix_payment_intents_unlinked",
            "created_at",
            "id",
            postgresql_where=text("user_id IS NULL AND subscription_id IS NULL"),
        ),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True
    )  # derived from stripe_id: a rebuild gives it again
    stripe_id: Mapped[str] = mapped_column(unique=True)  # pi_…
    livemode: Mapped[bool]
    account: Mapped[str | None]
    user_id: Mapped[UUID | None]
    subscription_id: Mapped[UUID | None]
    status: Mapped[str]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    capturable_minor: Mapped[int] = mapped_column(BigInteger)
    received_minor: Mapped[int] = mapped_column(BigInteger)
    refunded_minor: Mapped[int] = mapped_column(BigInteger)
    disputed_minor: Mapped[int] = mapped_column(BigInteger)
    fee_minor: Mapped[int | None] = mapped_column(BigInteger)
    net_minor: Mapped[int | None] = mapped_column(BigInteger)  # after fees, where they are known
    failure_code: Mapped[str | None]
    decline_code: Mapped[str | None]  # the issuer's own reason
    payment_method_type: Mapped[str | None]  # card, sepa_debit, …
    three_d_secure: Mapped[str | None]  # its result, where it was asked for
    mandate_id: Mapped[str | None]  # of a bank debit
    review: Mapped[str | None]  # open, or why it was closed
    invoice_id: Mapped[str | None]  # in_…, of payments that Stripe's own billing made
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    succeeded_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    canceled_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revision: Mapped[int] = mapped_column(BigInteger)
    anomaly: Mapped[str | None]  # what contradicts itself and needs an operator
    fold: Mapped[dict[str, Any]] = mapped_column(JSONB)  # the merged facts, see domain.Fold


class StripeCharge(Base):
    """Which payment a charge belongs to: refunds and disputes of older shapes name only the charge."""

    __tablename__ = "stripe_charges"
    __table_args__ = (SCHEMA,)

    id: Mapped[str] = mapped_column(primary_key=True)  # ch_… or py_…
    stripe_payment_id: Mapped[str | None]  # none: made without a PaymentIntent


class StripeQuestion(Base):
    """What Stripe is to be asked, because no fact that we have can say it."""

    __tablename__ = "stripe_questions"
    __table_args__ = (
        # What is asked already is not asked twice; a later second takes the place of an earlier.
        Index(
            "uq_stripe_questions_open",
            "subject",
            "reason",
            unique=True,
            postgresql_where=text("answered_at IS NULL"),
        ),
        Index("ix_stripe_questions_due", "ask_after", postgresql_where=text("answered_at IS NULL")),
        SCHEMA,
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    subject: Mapped[str]  # the object's path at Stripe
    # The phase and second that the answer settles, see domain.Fold.
    phase: Mapped[int]
    second: Mapped[int] = mapped_column(BigInteger)
    livemode: Mapped[bool]
    account: Mapped[str | None]
    reason: Mapped[str]
    ask_after: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    answered_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class SubscriptionCost(Base):
    """What pricing last said a subscription costs."""

    __tablename__ = "subscription_costs"
    __table_args__ = (
        CheckConstraint("total_minor >= 0", name="total"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        SCHEMA,
    )

    subscription_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    revision: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    total_minor: Mapped[int] = mapped_column(BigInteger)
    price_version: Mapped[int]
    cost_history_id: Mapped[int] = mapped_column(BigInteger)
    effective_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    event_id: Mapped[UUID]
