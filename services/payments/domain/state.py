"""What is true of a payment, read from its fold: a pure function of the set of facts."""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from services.payments.domain.fold import Fold, Link, Refund, Told
from shared.events import PaymentStatus

# While in one of these, a refund's amount is gone from what was received.
HOLDING = ("pending", "succeeded")
# The failure code of a customer who did not pass 3-D Secure.
NOT_AUTHENTICATED = "payment_intent_authentication_failure"


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that left the payment after it came (positive) or came back to it (negative)."""

    kind: Literal["refund", "dispute"]
    id: str
    amount_minor: int
    at: int


@dataclass(frozen=True, slots=True)
class PaymentState:
    """A change of what is announced is a new revision; the fields that are not compared are not announced.

    `net_minor` is what refunds, disputes and Stripe's fees leave of what was received; none where no fee is known.
    """

    status: PaymentStatus
    currency: str
    amount_minor: int
    capturable_minor: int
    received_minor: int
    refunded_minor: int
    disputed_minor: int
    fee_minor: int | None
    net_minor: int | None
    failure_code: str | None
    decline_code: str | None
    payment_method_type: str | None
    user_id: UUID | None
    subscription_id: UUID | None
    created_at: int
    succeeded_at: int | None
    movements: tuple[Movement, ...]
    canceled_at: int | None = field(compare=False)
    anomaly: str | None = field(compare=False)
    three_d_secure: str | None = field(default=None, compare=False)
    mandate_id: str | None = field(default=None, compare=False)
    review: str | None = field(default=None, compare=False)
    invoice_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Untold:
    """At `second` a charge said that more was given back than the refunds known here."""

    second: int
    claimed_minor: int
    known_minor: int

    def __str__(self) -> str:
        return f"its charge tells of {self.claimed_minor} refunded, {self.known_minor} known"


def state(fold: Fold) -> PaymentState:
    """Raises ValueError for a fold that no snapshot of the payment has reached (`is_known` is false)."""
    now = _latest(fold).snapshot
    refunds = _refund_movements(fold)
    disputes = _dispute_movements(fold)
    refunded_minor = sum(each.amount_minor for each in refunds)
    disputed_minor = max(0, sum(each.amount_minor for each in disputes))
    fee_minor = _fee(fold, now.currency)
    left_minor = fold.received_minor - refunded_minor - disputed_minor
    is_paid = now.status == "succeeded"
    method = fold.method
    return PaymentState(
        status=now.status,
        currency=now.currency,
        amount_minor=now.amount_minor,
        capturable_minor=now.capturable_minor,
        received_minor=fold.received_minor,
        refunded_minor=refunded_minor,
        disputed_minor=disputed_minor,
        fee_minor=fee_minor,
        net_minor=None if fee_minor is None else left_minor - fee_minor,
        failure_code=None if is_paid else now.failure_code,
        decline_code=None if is_paid else now.decline_code,
        payment_method_type=method.type if method else None,
        user_id=_named(fold.links.get("user_id")),
        subscription_id=_named(fold.links.get("subscription_id")),
        created_at=fold.created or 0,
        succeeded_at=_ended_at(fold, "succeeded"),
        movements=(*refunds, *disputes),
        canceled_at=_ended_at(fold, "canceled"),
        anomaly=_anomaly(fold, now.amount_minor, refunded_minor, disputed_minor),
        three_d_secure=_three_d_secure(fold, None if is_paid else now.failure_code),
        mandate_id=(method.mandate_id or None) if method else None,
        review=_review(fold),
        invoice_id=fold.invoice or None,
    )


def untold_refunds(fold: Fold) -> Untold | None:
    """The latest claim that the known refunds do not explain.

    A charge's sum falls again when a refund fails, so each claim is compared with what was gone in its own second.
    """
    for second, claimed_minor in sorted(
        ((int(s), c) for s, c in fold.claims.items()), reverse=True
    ):
        known_minor = sum(r.amount_minor for r in fold.refunds.values() if _was_gone(r, second))
        if known_minor < claimed_minor:
            return Untold(second, claimed_minor, known_minor)
    return None


def unlinked_reasons(fold: Fold) -> list[str]:
    """Why the payment names no user or no subscription that we could know, in words for an operator."""
    return [
        f"metadata {key} {link.text!r} is no UUID"
        for key, link in sorted(fold.links.items())
        if not link.is_uuid
    ]


def _latest(fold: Fold) -> Told:
    if not fold.told:
        raise ValueError("no fact has said what this payment is")
    _, told = max(fold.told.items(), key=lambda item: (item[1].rank, item[1].asked_at, item[0]))
    return told


def _refund_movements(fold: Fold) -> list[Movement]:
    # Releasing an authorisation is told as a refund too, though no money ever came.
    if "canceled" in fold.ended and fold.received_minor == 0:
        return []
    moved = []
    for refund_id, refund in sorted(fold.refunds.items()):
        moved += _movements_of(refund_id, refund)
    return moved


def _movements_of(refund_id: str, refund: Refund) -> list[Movement]:
    if not refund.held:
        return []
    left = Movement("refund", refund_id, refund.amount_minor, refund.created)
    if refund.status in HOLDING:
        return [left]
    returned_at = refund.returned_at if refund.returned_at is not None else refund.created
    return [left, Movement("refund", f"{refund_id}:returned", -refund.amount_minor, returned_at)]


def _was_gone(refund: Refund, second: int) -> bool:
    if not refund.held or refund.created > second:
        return False
    return refund.status in HOLDING or (refund.returned_at or refund.created) >= second


def _dispute_movements(fold: Fold) -> list[Movement]:
    return [
        Movement("dispute", transaction_id, moved.amount_minor, moved.created)
        for _, dispute in sorted(fold.disputes.items())
        for transaction_id, moved in sorted(dispute.moved.items())
    ]


def _fee(fold: Fold, currency: str) -> int | None:
    """None until every charge's own fee is known; fees settled in another currency cannot be added to it."""
    if fold.unsettled:
        return None
    known = [fee for fee in fold.fees.values() if fee.currency == currency]
    return sum(fee.fee_minor for fee in known) if any(fee.is_charge for fee in known) else None


def _three_d_secure(fold: Fold, failure_code: str | None) -> str | None:
    """What the last charge says of it; who does not pass it is never charged."""
    if failure_code == NOT_AUTHENTICATED:
        return "failed"
    return (fold.method.three_d_secure or None) if fold.method else None


def _review(fold: Fold) -> str | None:
    """`open` while one is, else why the last one was closed."""
    if any(not review.is_closed for review in fold.reviews.values()):
        return "open"
    last = max(fold.reviews.values(), key=lambda each: (each.created, each.reason), default=None)
    return last.reason if last else None


def _named(link: Link | None) -> UUID | None:
    return UUID(link.text) if link and link.is_uuid else None


def _ended_at(fold: Fold, status: PaymentStatus) -> int | None:
    ended = fold.ended.get(status)
    return ended[1] if ended else None


def _anomaly(fold: Fold, amount_minor: int, refunded_minor: int, disputed_minor: int) -> str | None:
    found = []
    if len(fold.ended) > 1:
        found.append("succeeded and canceled")
    if fold.received_minor > amount_minor:
        found.append(f"received {fold.received_minor} of {amount_minor}")
    if refunded_minor + disputed_minor > fold.received_minor:
        found.append(
            f"refunded {refunded_minor} and disputed {disputed_minor}"
            f" of {fold.received_minor} received"
        )
    if untold := untold_refunds(fold):
        found.append(str(untold))
    return "; ".join(found) or None
