"""What a test or a demo can make happen to one payment, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from embedded.stripe_sandbox import disputes, payments, refunds, reviews
from embedded.stripe_sandbox.ledger import (
    Dispute,
    IllegalTransition,
    Intent,
    Ledger,
    PaymentError,
    Refund,
)

DECLINED = PaymentError("card_declined", "Your card was declined.", "generic_decline")
RETURNED = PaymentError(
    "payment_intent_payment_attempt_failed", "The debit was returned.", "insufficient_funds"
)


@dataclass(frozen=True)
class Step:
    """One thing to happen.  Of refunds and disputes the last is meant, or the one `object_id` names."""

    ledger: Ledger
    intent: Intent
    amount_minor: int | None = None
    object_id: str | None = None

    @property
    def refund(self) -> Refund:
        wanted = [each for each in self.intent.refunds if self.object_id in (None, each.id)]
        if not wanted:
            raise IllegalTransition(f"{self.intent.id} has no such refund.", "resource_missing")
        return wanted[-1]

    @property
    def dispute(self) -> Dispute:
        wanted = [each for each in self.intent.disputes if self.object_id in (None, each.id)]
        if not wanted:
            raise IllegalTransition(f"{self.intent.id} has no such dispute.", "resource_missing")
        return wanted[-1]


Action = Callable[[Step], object]


def _refund_as(status: str) -> Action:
    return lambda step: refunds.refund(step.ledger, step.intent, step.amount_minor, status)


def _move_refund(status: str) -> Action:
    return lambda step: refunds.move(step.ledger, step.intent, step.refund, status)


def _fail_with(error: PaymentError) -> Action:
    return lambda step: payments.fail(step.ledger, step.intent, error)


def _dispute(act: Callable[[Ledger, Intent, Dispute], None]) -> Action:
    return lambda step: act(step.ledger, step.intent, step.dispute)


def _capture_some(step: Step) -> None:
    payments.capture(step.ledger, step.intent, step.amount_minor, final=False)


def _increase(step: Step) -> None:
    """Authorise up to `amount_minor`, twice as much by default."""
    total_minor = step.amount_minor or 2 * step.intent.amount_minor
    payments.increase_authorization(step.ledger, step.intent, total_minor)


ACTIONS: dict[str, Action] = {
    "challenge": lambda step: payments.require_action(step.ledger, step.intent),
    "authenticate": lambda step: payments.succeed(step.ledger, step.intent),
    "authenticate_fail": _fail_with(payments.AUTHENTICATION_FAILED),
    "succeed": lambda step: payments.succeed(step.ledger, step.intent),
    "decline": _fail_with(DECLINED),
    "debit": lambda step: payments.start_debit(step.ledger, step.intent),
    "debit_succeed": lambda step: payments.succeed(step.ledger, step.intent),
    "debit_fail": _fail_with(RETURNED),
    "settle": lambda step: payments.settle(step.ledger, step.intent),
    "capture": lambda step: payments.capture(step.ledger, step.intent, step.amount_minor),
    "capture_some": _capture_some,
    "cancel": lambda step: payments.cancel(step.ledger, step.intent, "requested_by_customer"),
    "expire": lambda step: payments.expire(step.ledger, step.intent),
    "refund": _refund_as("succeeded"),
    "refund_pending": _refund_as("pending"),
    "refund_succeed": _move_refund("succeeded"),
    "refund_fail": _move_refund("failed"),
    "refund_cancel": _move_refund("canceled"),
    "inquiry": lambda step: disputes.open_inquiry(step.ledger, step.intent, step.amount_minor),
    "inquiry_close": _dispute(disputes.close_inquiry),
    "inquiry_escalate": _dispute(disputes.escalate),
    "dispute": lambda step: disputes.open_dispute(step.ledger, step.intent, step.amount_minor),
    "dispute_prevent": lambda step: disputes.open_prevented(
        step.ledger, step.intent, step.amount_minor
    ),
    "review": lambda step: reviews.open_review(step.ledger, step.intent),
    "review_approve": lambda step: reviews.close_review(step.ledger, step.intent),
    "increase": _increase,
    "dispute_evidence": _dispute(disputes.submit_evidence),
    "dispute_win": _dispute(disputes.win),
    "dispute_lose": _dispute(disputes.lose),
}
