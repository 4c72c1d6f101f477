"""What may happen to a Refund; every change is told in as many events as Stripe uses for it."""

from collections.abc import Mapping

from embedded.stripe_sandbox.ledger import Charge, IllegalTransition, Intent, Ledger, Refund
from embedded.stripe_sandbox.reviews import close_if_open
from embedded.stripe_sandbox.shapes import refund_json, tell_charge
from embedded.stripe_sandbox.truth import disputed_minor, refunded_minor

# From each state, where a refund may go.  succeeded then failed is real, weeks later.
LEGAL = {
    "requires_action": ("pending", "succeeded", "failed", "canceled"),
    "pending": ("succeeded", "failed", "canceled"),
    "succeeded": ("failed",),
    "failed": (),
    "canceled": (),
}
CHARGED_BACK = ("needs_response", "under_review", "lost", "prevented")
# While in one of these, a refund's amount is gone from what was received.
HOLDING = ("pending", "succeeded")


def refundable_minor(intent: Intent) -> int:
    """Received and neither given back nor withdrawn by a dispute."""
    return intent.received_minor - refunded_minor(intent) - disputed_minor(intent)


def refund(
    ledger: Ledger,
    intent: Intent,
    amount_minor: int | None,
    status: str = "succeeded",
    labels: tuple[str | None, Mapping[str, str]] = (None, {}),
) -> Refund:
    """Give back `amount_minor`, or all that is left; `labels` are its reason and metadata."""
    charge = _captured_charge(intent)
    _require_undisputed(intent, charge)
    left_minor = refundable_minor(intent)
    wanted_minor = left_minor if amount_minor is None else amount_minor
    if left_minor <= 0:
        raise IllegalTransition(
            f"Charge {charge.id} has already been refunded.", "charge_already_refunded"
        )
    _require_left(intent, wanted_minor)
    reason, metadata = labels
    made = Refund(
        id=ledger.ids.new("re"),
        created=ledger.now,
        intent_id=intent.id,
        charge_id=charge.id,
        amount_minor=wanted_minor,
        currency=intent.currency,
        status=status,
        reason=reason,
        metadata=dict(metadata),
    )
    intent.refunds.append(made)
    ledger.refunds[made.id] = made
    _book(ledger, made)
    if status != "requires_action":
        tell_charge(ledger, "refunded", intent, charge)
    ledger.emit("refund.created", intent, refund_json(made))
    if refundable_minor(intent) == 0:
        fraud = reason == "fraudulent"
        close_if_open(ledger, intent, "refunded_as_fraud" if fraud else "refunded")
    return made


def move(ledger: Ledger, intent: Intent, made: Refund, status: str) -> None:
    """Take a refund to its next state."""
    if status not in LEGAL[made.status]:
        raise IllegalTransition(
            f"Refund {made.id} is {made.status} and cannot become {status}.",
            "refund_unexpected_state",
        )
    # One that waits for the customer holds nothing: others may have taken the rest meanwhile.
    if made.status == "requires_action" and status in HOLDING:
        _require_left(intent, made.amount_minor)
    made.status = status
    if status == "failed":
        made.failure_reason = "lost_or_stolen_card"
    _book(ledger, made)
    if status == "failed":
        ledger.emit("refund.failed", intent, refund_json(made))
    _tell_updated(ledger, intent, made)


def annotate(ledger: Ledger, intent: Intent, made: Refund) -> None:
    """The bank's reference arrives: an update that changes no state."""
    made.metadata = {**made.metadata, "reference": "arrived"}
    _tell_updated(ledger, intent, made)


def _tell_updated(ledger: Ledger, intent: Intent, made: Refund) -> None:
    ledger.emit("refund.updated", intent, refund_json(made))
    ledger.emit("charge.refund.updated", intent, refund_json(made))


def _book(ledger: Ledger, made: Refund) -> None:
    holds = made.status in HOLDING
    if holds and made.transaction_id is None:
        made.transaction_id = ledger.book(_kind(made), "refund", (-made.amount_minor, 0), made)
    if not holds and made.transaction_id and made.failure_transaction_id is None:
        made.failure_transaction_id = ledger.book(
            "refund_failure", "refund_failure", (made.amount_minor, 0), made
        )


def _kind(made: Refund) -> str:
    return "payment_refund" if made.charge_id.startswith("py_") else "refund"


def _require_undisputed(intent: Intent, charge: Charge) -> None:
    """What a bank has taken back is not given back once more; an inquiry, or a dispute won, is no bar."""
    if any(each.charge_id == charge.id and each.status in CHARGED_BACK for each in intent.disputes):
        raise IllegalTransition(f"Charge {charge.id} has been charged back.", "charge_disputed")


def _require_left(intent: Intent, wanted_minor: int) -> None:
    left_minor = refundable_minor(intent)
    if not 0 < wanted_minor <= left_minor:
        raise IllegalTransition(
            f"Refund amount ({wanted_minor}) is not within the unrefunded amount ({left_minor}).",
            "amount_too_large" if wanted_minor > 0 else "parameter_invalid_integer",
        )


def _captured_charge(intent: Intent) -> Charge:
    charge = intent.latest_charge
    if charge is None or not charge.captured:
        raise IllegalTransition(
            f"PaymentIntent {intent.id} has no captured charge to refund.",
            "payment_intent_unexpected_state",
        )
    return charge
