"""What is true of a payment, read from its fold: a pure function of the set of facts."""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from services.payments.domain.fold import ASKED, Fold, Link, Payout, Refund, Told
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
    released_minor = _released_unheard(fold)
    for second, claimed_minor in sorted(
        ((int(s), c) for s, c in fold.claims.items()), reverse=True
    ):
        gone = (r.amount_minor for r in fold.refunds.values() if _was_gone(r, second))
        known_minor = sum(gone) + released_minor
        if known_minor < claimed_minor:
            return Untold(second, claimed_minor, known_minor)
    return None


def release(fold: Fold) -> str | None:
    """The refund that gave back nothing: until 2025-03-31 Stripe made one of what a partial capture left.

    It is of exactly that, and made no later than the payment had succeeded, when nothing else can have been given
    back.  Where only Stripe's answer says that it did, more must have gone than ever came.  Once it is known what was
    booked for the charge, that decides: all that was authorised, or what was taken.
    """
    left_minor = _left_of_capture(fold)
    if left_minor is None:
        return None
    booked_minor = _booked_for_charges(fold)
    if booked_minor == fold.received_minor:
        return None
    alike = [
        (each.created, name)
        for name, each in fold.refunds.items()
        if each.held and each.amount_minor == left_minor
    ]
    if not alike:
        return None
    created, name = min(alike)
    gone = sum(r.amount_minor for r in fold.refunds.values() if r.held and r.status in HOLDING)
    is_whole = booked_minor == fold.received_minor + left_minor
    is_release = is_whole or _is_by_capture(fold, created) or gone > fold.received_minor
    return name if is_release else None


def unlinked_reasons(fold: Fold) -> list[str]:
    """Why the payment names no user or no subscription that we could know, in words for an operator."""
    return [
        f"metadata {key} is no UUID: look at it at Stripe"
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
    released = release(fold)
    moved = []
    for refund_id, refund in sorted(fold.refunds.items()):
        if refund_id != released:
            moved += _movements_of(refund_id, refund)
    return moved


def _left_of_capture(fold: Fold) -> int | None:
    """What was authorised and never taken, once nothing more can be; none where nothing is left."""
    if "succeeded" not in fold.ended or not fold.told:
        return None
    left_minor = _latest(fold).snapshot.amount_minor - fold.received_minor
    return left_minor if left_minor > 0 else None


def _is_by_capture(fold: Fold, second: int) -> bool:
    """Whether all was taken by then at the earliest; a late answer alone does not tell when it was."""
    who, captured = fold.ended["succeeded"]
    return who != ASKED and second <= captured


def _released_unheard(fold: Fold) -> int:
    """What a charge claims as given back that had just been captured, and no refund is known of."""
    left_minor = _left_of_capture(fold)
    if left_minor is None or release(fold) is not None:
        return 0
    is_told = any(
        claimed >= left_minor and _is_by_capture(fold, int(second))
        for second, claimed in fold.claims.items()
    )
    return left_minor if is_told else 0


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
    """By balance transaction: the oldest shapes name a dispute by its charge, and tell it a second time."""
    moved: dict[str, Payout] = {}
    for _, dispute in sorted(fold.disputes.items()):
        for transaction_id, each in sorted(dispute.moved.items()):
            moved[transaction_id] = max(each, moved.get(transaction_id, each))
    return [
        Movement("dispute", transaction_id, each.amount_minor, each.created)
        for transaction_id, each in moved.items()
    ]


def _fee(fold: Fold, currency: str) -> int | None:
    """None until the charges' own fees are known of all that was received; those settled in another currency, never."""
    if fold.unsettled:
        return None
    if _booked_for_charges(fold) != fold.received_minor:
        return None
    return sum(fee.fee_minor for fee in fold.fees.values() if fee.currency == currency)


def _booked_for_charges(fold: Fold) -> int | None:
    """In the payment's own currency, fees and all; none where no such transaction is known."""
    currency = _latest(fold).snapshot.currency
    booked = [
        fee.fee_minor + fee.net_minor
        for fee in fold.fees.values()
        if fee.is_charge and fee.currency == currency
    ]
    return sum(booked) if booked else None


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
    # A later answer that says what we know ends it: the one before was given too early.
    believed_at = max(told.asked_at for told in fold.told.values())
    found += [
        f"Stripe says {status}" for status, at in sorted(fold.denied.items()) if at > believed_at
    ]
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
