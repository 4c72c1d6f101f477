"""What may happen to a Dispute; money moves with its balance transactions, not its status."""

from embedded.stripe_sandbox.fees import dispute_fee
from embedded.stripe_sandbox.ledger import Dispute, IllegalTransition, Intent, Ledger
from embedded.stripe_sandbox.refunds import refundable_minor
from embedded.stripe_sandbox.reviews import close_if_open
from embedded.stripe_sandbox.shapes import dispute_json, tell_charge
from embedded.stripe_sandbox.truth import withdrawn_minor

OPEN = ("needs_response", "under_review")
INQUIRY = ("warning_needs_response", "warning_under_review")


def open_inquiry(ledger: Ledger, intent: Intent, amount_minor: int | None) -> Dispute:
    """The bank asks; no money moves."""
    dispute = _new(ledger, intent, amount_minor, "warning_needs_response")
    _tell(ledger, "created", intent, dispute)
    return dispute


def close_inquiry(ledger: Ledger, intent: Intent, dispute: Dispute) -> None:
    _require(dispute, INQUIRY)
    dispute.status = "warning_closed"
    _tell(ledger, "closed", intent, dispute)


def escalate(ledger: Ledger, intent: Intent, dispute: Dispute) -> None:
    """An inquiry becomes a chargeback."""
    _require(dispute, INQUIRY)
    _withdraw(ledger, intent, dispute)
    dispute.status = "needs_response"
    _tell(ledger, "updated", intent, dispute)
    _tell(ledger, "funds_withdrawn", intent, dispute)


def open_dispute(
    ledger: Ledger, intent: Intent, amount_minor: int | None, reason: str = "fraudulent"
) -> Dispute:
    """A chargeback: the amount, all that is left by default, is withdrawn at once."""
    dispute = _new(ledger, intent, amount_minor, "needs_response", reason)
    # Stripe creates the dispute first; the withdrawal is told on its own.
    _tell(ledger, "created", intent, dispute)
    _withdraw(ledger, intent, dispute)
    _tell(ledger, "funds_withdrawn", intent, dispute)
    if intent.latest_charge is not None:
        tell_charge(ledger, "updated", intent, intent.latest_charge)
    close_if_open(ledger, intent, "disputed")
    return dispute


def open_prevented(ledger: Ledger, intent: Intent, amount_minor: int | None) -> Dispute:
    """Resolved with the bank before it was filed: the money is gone, without a fee, and nothing follows."""
    dispute = _new(ledger, intent, amount_minor, "prevented", "fraudulent")
    _tell(ledger, "created", intent, dispute)
    _withdraw(ledger, intent, dispute, fee_minor=0)
    _tell(ledger, "funds_withdrawn", intent, dispute)
    _tell(ledger, "closed", intent, dispute)
    return dispute


def submit_evidence(ledger: Ledger, intent: Intent, dispute: Dispute) -> None:
    _require(dispute, (*OPEN, *INQUIRY))
    inquiry = dispute.status in INQUIRY
    dispute.status = "warning_under_review" if inquiry else "under_review"
    dispute.has_evidence = True
    _tell(ledger, "updated", intent, dispute)


def lose(ledger: Ledger, intent: Intent, dispute: Dispute) -> None:
    """Lost, also after having been won: then the money is withdrawn once more."""
    _require(dispute, (*OPEN, "won"))
    flipped = withdrawn_minor(dispute) == 0
    if flipped:
        _withdraw(ledger, intent, dispute)
    dispute.status = "lost"
    _tell(ledger, "closed", intent, dispute)
    if flipped:
        _tell(ledger, "funds_withdrawn", intent, dispute)


def win(ledger: Ledger, intent: Intent, dispute: Dispute) -> None:
    """Won, also after having been lost; the money comes back, the fee does not."""
    _require(dispute, (*OPEN, "lost"))
    dispute.status = "won"
    _tell(ledger, "closed", intent, dispute)
    returned = ledger.record(
        "adjustment",
        "dispute_reversal",
        (dispute.amount_minor, 0),
        (dispute.currency, dispute.id),
    )
    dispute.transactions.append(returned)
    _tell(ledger, "funds_reinstated", intent, dispute)


def _new(
    ledger: Ledger,
    intent: Intent,
    amount_minor: int | None,
    status: str,
    reason: str = "general",
) -> Dispute:
    left_minor = refundable_minor(intent)
    wanted_minor = left_minor if amount_minor is None else amount_minor
    charge = intent.latest_charge
    if charge is None or not 0 < wanted_minor <= left_minor:
        raise IllegalTransition(
            f"A dispute of {wanted_minor} is not within the {left_minor} that is left.",
            "amount_too_large",
        )
    dispute = Dispute(
        # Stripe has used both prefixes; nobody may depend on one.
        id=ledger.ids.new(ledger.ids.rng.choice(("dp", "du"))),
        created=ledger.now,
        intent_id=intent.id,
        charge_id=charge.id,
        amount_minor=wanted_minor,
        currency=intent.currency,
        status=status,
        reason=reason,
        livemode=intent.livemode,
    )
    intent.disputes.append(dispute)
    ledger.disputes[dispute.id] = dispute
    return dispute


def _withdraw(
    ledger: Ledger, intent: Intent, dispute: Dispute, fee_minor: int | None = None
) -> None:
    """Take the money; `fee_minor` is what disputes cost unless it is given."""
    # An inquiry reserves nothing: what it asks about may have been refunded meanwhile.
    left_minor = refundable_minor(intent)
    if dispute.amount_minor > left_minor:
        raise IllegalTransition(
            f"{dispute.amount_minor} cannot be withdrawn: only {left_minor} is left.",
            "amount_too_large",
        )
    dispute.transactions.append(
        ledger.record(
            "adjustment",
            "dispute",
            (
                -dispute.amount_minor,
                dispute_fee(dispute.currency) if fee_minor is None else fee_minor,
            ),
            (dispute.currency, dispute.id),
        )
    )


def _tell(ledger: Ledger, type_: str, intent: Intent, dispute: Dispute) -> None:
    refundable = dispute.status.startswith("warning_") and refundable_minor(intent) > 0
    ledger.emit(f"charge.dispute.{type_}", intent, dispute_json(dispute, refundable))


def _require(dispute: Dispute, statuses: tuple[str, ...]) -> None:
    if dispute.status not in statuses:
        raise IllegalTransition(
            f"Dispute {dispute.id} is {dispute.status}: not possible now.",
            "dispute_unexpected_state",
        )
