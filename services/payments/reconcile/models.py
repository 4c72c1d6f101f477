"""Tables of what was looked for at Stripe, what was found missing, and payouts taken apart."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

SCHEMA = {"schema": "payments"}


class ReconcileRun(Base):
    """One walk through Stripe's lists, resumable from its cursors."""

    __tablename__ = "reconcile_runs"
    __table_args__ = (
        CheckConstraint("until > since", name="window"),
        # Nobody walks the same lists twice at once.
        Index(
            "uq_reconcile_runs_open",
            "account",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    account: Mapped[str | None]  # Connect; none is our own
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # Events are looked for since `since`; what a payment is may change without one long after it was made.
    objects_since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    cursors: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    counts: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    # Since Stripe last answered; `walk_after` is when it may be asked again.
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    walk_after: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ReconcileGap(Base):
    """Something Stripe knows and we did not, or knew otherwise."""

    __tablename__ = "reconcile_gaps"
    __table_args__ = (
        UniqueConstraint("run_id", "subject"),
        CheckConstraint("kind IN ('event', 'object', 'payout', 'account')", name="kind"),
        Index(None, "subject"),
        SCHEMA,
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("payments.reconcile_runs.id"))
    kind: Mapped[str]
    subject: Mapped[str]  # evt_…, or the object's path at Stripe
    detail: Mapped[str]
    # Stripe's word, while it may still come by itself: only then it is put among the facts.
    body: Mapped[bytes | None]
    found_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    mended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Payout(Base):
    """Money that Stripe sent to our bank, and whether its lines explain it to the cent."""

    __tablename__ = "payouts"
    __table_args__ = (
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(
            "verdict IN ('open', 'agrees', 'differs', 'not_itemisable')", name="verdict"
        ),
        Index(None, "created_at"),
        SCHEMA,
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # po_…
    account: Mapped[str | None]
    livemode: Mapped[bool]
    status: Mapped[str]
    automatic: Mapped[bool]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    arrival_on: Mapped[date] = mapped_column(Date)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    verdict: Mapped[str] = mapped_column(server_default=text("'open'"))
    detail: Mapped[str | None]
    checked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    checked_in: Mapped[UUID | None]  # the run that looked last


class PayoutLine(Base):
    """One balance transaction of a payout, and the payment it belongs to, where it belongs to one."""

    __tablename__ = "payout_lines"
    __table_args__ = (Index(None, "payout_id"), Index(None, "stripe_payment_id"), SCHEMA)

    id: Mapped[str] = mapped_column(primary_key=True)  # txn_…
    payout_id: Mapped[str] = mapped_column(ForeignKey("payments.payouts.id"))
    type: Mapped[str]
    source: Mapped[str | None]  # ch_…, re_…, dp_…
    stripe_payment_id: Mapped[str | None]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    fee_minor: Mapped[int] = mapped_column(BigInteger)
    net_minor: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    problem: Mapped[str | None]  # in what our own payment differs from it
