"""Tables of what callers asked for and of what Stripe was asked to do about it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "payments"}


class ApiRequest(Base):
    """One `Idempotency-Key` of one caller: its request's fingerprint, and the answer once there is one."""

    __tablename__ = "api_requests"
    __table_args__ = (
        CheckConstraint("(status IS NULL) = (answer IS NULL)", name="answered"),
        Index(None, "created_at"),
        SCHEMA,
    )

    caller: Mapped[str] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[UUID]  # written in the same transaction
    fingerprint: Mapped[str]  # sha256 of method, path and canonical body
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    # Whoever works on it does so until then; afterwards another may take it up.
    held_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    status: Mapped[int | None]  # HTTP, once answered
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class StripeOrder(Base):
    """One thing that Stripe is to do.  Its id is Stripe's idempotency key: asked twice, done once."""

    __tablename__ = "stripe_orders"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('create', 'confirm', 'capture', 'cancel', 'refund')", name="kind"
        ),
        CheckConstraint("status IN ('open', 'done', 'refused')", name="status"),
        CheckConstraint("amount_minor > 0", name="amount"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("(status = 'open') = (ended_at IS NULL)", name="ended"),
        # Refunds of one payment are ordered one after the other, under its row's lock.
        Index(
            "ix_stripe_orders_payment",
            "stripe_payment_id",
            postgresql_where=text("stripe_payment_id IS NOT NULL"),
        ),
        # Whether a period of a subscription was ordered already.
        Index(
            "ix_stripe_orders_subscription",
            "subscription_id",
            postgresql_where=text("subscription_id IS NOT NULL"),
        ),
        Index("ix_stripe_orders_newest", "created_at", "id"),
        Index("ix_stripe_orders_named", "payment_id"),
        Index("ix_stripe_orders_open", "ask_after", postgresql_where=text("status = 'open'")),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'open'"))
    stripe_payment_id: Mapped[str | None]  # pi_…; none while it is to be created
    stripe_object_id: Mapped[str | None]  # pi_… or re_…, once Stripe has said it
    payment_id: Mapped[UUID | None]  # our name of the payment, once it has one
    account: Mapped[str | None]
    user_id: Mapped[UUID | None]
    subscription_id: Mapped[UUID | None]
    renewal_id: Mapped[UUID | None] = mapped_column(ForeignKey("payments.renewals.id"))
    currency: Mapped[str | None]
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSONB)  # exactly what Stripe is sent
    # A second attempt with the same key is harmless for 24 hours; later Stripe is looked through first.
    first_asked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ask_after: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]  # why it is open still, or what Stripe said when it refused
    failure_code: Mapped[str | None]  # Stripe's reason, where it refused
    advice_code: Mapped[
        str | None
    ]  # the card network's word on trying again, where a card was declined
    refused_status: Mapped[int | None]  # HTTP, where it refused: 402 for a card that was declined
    ordered_by: Mapped[str]  # the caller, or `renewals`
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    traceparent: Mapped[str | None]
