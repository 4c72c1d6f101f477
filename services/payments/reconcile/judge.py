"""Whether a payout's line is what our own payment says, to the cent.  Pure."""

from dataclasses import dataclass

from services.payments.domain import Fold, release, state
from services.payments.gateway import Line

CHARGES = ("charge", "payment")
REFUNDS = ("refund", "payment_refund")
RETURNED_REFUNDS = ("refund_failure", "payment_failure_refund")
RETURNED = ("failed", "canceled")
# The payout itself, on the list of its own lines.
OWN = "payout"


@dataclass(frozen=True, slots=True)
class Charged:
    """A payment's charges, over all payouts whose lines are known: their balance transactions and their sum."""

    ids: frozenset[str]
    amount_minor: int


def problem_of(line: Line, fold: Fold | None, charged: Charged) -> str | None:
    """In what the line differs from the payment it names; None where it agrees or is of no payment."""
    if line.amount_minor - line.fee_minor != line.net_minor:
        return f"{line.amount_minor} less {line.fee_minor} of fees is not {line.net_minor}"
    if line.payment is None:
        return None
    if fold is None or not fold.is_known:
        return f"{line.payment} is not known here"
    source = line.source or ""
    # A balance may be held in another currency: then only Stripe knows the rate.
    is_comparable = line.currency == state(fold).currency
    if line.type in CHARGES:
        return _charge_problem(line, fold, charged, is_comparable)
    if line.type in REFUNDS or line.type in RETURNED_REFUNDS:
        return _refund_problem(line, fold, is_comparable)
    if source in fold.disputes or source.startswith(("dp_", "du_")):
        return _dispute_problem(line, fold, is_comparable)
    return None


def _charge_problem(line: Line, fold: Fold, charged: Charged, is_comparable: bool) -> str | None:
    fee = fold.fees.get(line.id)
    if fee is not None and (fee.fee_minor, fee.net_minor) != (line.fee_minor, line.net_minor):
        return (
            f"fee {fee.fee_minor} and net {fee.net_minor} here,"
            f" {line.fee_minor} and {line.net_minor} in the payout"
        )
    if not is_comparable:
        return None
    taken_minor = fold.received_minor
    if (released := release(fold)) is not None:
        # All that was authorised is booked, and the rest back.
        taken_minor += fold.refunds[released].amount_minor
    captures = {name for name, each in fold.fees.items() if each.is_charge} | fold.unsettled.keys()
    # A capture of later may be paid out later.
    is_part = charged.amount_minor < taken_minor and not captures <= charged.ids
    if charged.amount_minor == taken_minor or is_part:
        return None
    return f"received {taken_minor} here, {charged.amount_minor} in payouts"


def _refund_problem(line: Line, fold: Fold, is_comparable: bool) -> str | None:
    refund = fold.refunds.get(line.source or "")
    if refund is None:
        return f"{line.source} is not known here"
    if line.type in RETURNED_REFUNDS and refund.status not in RETURNED:
        return f"{line.source} came back, and is {refund.status} here"
    if line.type in REFUNDS and not refund.held:
        return f"{line.source} is {refund.status} here and moved no money"
    if is_comparable and abs(line.amount_minor) != refund.amount_minor:
        return (
            f"{line.source} is of {refund.amount_minor} here,"
            f" of {abs(line.amount_minor)} in the payout"
        )
    return None


def _dispute_problem(line: Line, fold: Fold, is_comparable: bool) -> str | None:
    dispute = fold.disputes.get(line.source or "")
    moved = dispute.moved.get(line.id) if dispute else None
    if moved is None:
        return f"{line.source} moved no such money here"
    if is_comparable and moved.amount_minor != -line.amount_minor:
        return f"{line.source} moved {-moved.amount_minor} here, {line.amount_minor} in the payout"
    return None
