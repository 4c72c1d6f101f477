"""What every payment is, read from the ledger itself; no event is looked at."""

from collections.abc import Iterable, Sequence

from embedded.stripe_sandbox.ledger import Dispute, Intent, JsonObject, Ledger, Transaction

AUTHENTICATION_FAILED_CODE = "payment_intent_authentication_failure"


def truth_of(intent: Intent) -> JsonObject:
    """One payment's state: amounts in minor units, the currency as upper-case ISO 4217."""
    return {
        "stripe_id": intent.id,
        "status": intent.status,
        "currency": intent.currency.upper(),
        "amount_minor": intent.amount_minor,
        "capturable_minor": intent.capturable_minor,
        "received_minor": intent.received_minor,
        "refunded_minor": refunded_minor(intent),
        "disputed_minor": disputed_minor(intent),
        "failure_code": _failure_code(intent),
        "user_id": intent.metadata.get("user_id"),
        "subscription_id": intent.metadata.get("subscription_id"),
    }


def whole_truth(ledger: Ledger, intent: Intent) -> JsonObject:
    return {**truth_of(intent), **details_of(ledger, intent)}


def details_of(ledger: Ledger, intent: Intent) -> JsonObject:
    """What else is true of a payment: fees, how it was paid, who looks at it.

    `fee_minor` and `net_minor` are of all its charges', refunds' and disputes' balance transactions; null while what
    was captured is not booked, or booked with what was released.  Mandate and 3-D Secure are the latest charge's, or the failure that prevented one.
    """
    charge, error = intent.latest_charge, intent.error
    booked = _booked(ledger, intent)
    captured = [each for each in intent.charges if each.captured]
    settled = bool(captured) and all(each.transaction_ids for each in captured)
    # The fee of all that was authorised is not that of what was taken.
    settled = settled and not any(each.is_release for each in intent.refunds)
    # Fees in another currency than the payment's are nobody's sum.
    settled = settled and intent.settles_in in (None, intent.currency)
    failure = error if error is not None and intent.status != "succeeded" else None
    unproven = failure is not None and failure.code == AUTHENTICATION_FAILED_CODE
    return {
        "fee_minor": sum(each.fee_minor for each in booked) if settled else None,
        "net_minor": sum(each.net_minor for each in booked) if settled else None,
        "decline_code": failure.decline_code if failure else None,
        "payment_method_type": charge.method if charge else _attempted(intent),
        "three_d_secure": "failed" if unproven else charge.three_d_secure if charge else None,
        "mandate_id": charge.mandate_id if charge else None,
        "review": (intent.review.closed_reason or "open") if intent.review else None,
        "invoice_id": intent.invoice_id,
        "livemode": intent.livemode,
        "account": intent.account,
    }


def _attempted(intent: Intent) -> str | None:
    """What failed before anything was charged."""
    return intent.method_types[0] if intent.error is not None else None


def _booked(ledger: Ledger, intent: Intent) -> Sequence[Transaction]:
    found = [each for dispute in intent.disputes for each in dispute.transactions]
    for charge in intent.charges:
        found += [ledger.transactions[each] for each in charge.transaction_ids]
    for refund in intent.refunds:
        ids = (refund.transaction_id, refund.failure_transaction_id)
        found += [ledger.transactions[each] for each in ids if each is not None]
    return found


def truths(intents: Iterable[Intent]) -> dict[str, JsonObject]:
    return {intent.id: truth_of(intent) for intent in intents}


def refunded_minor(intent: Intent) -> int:
    return sum(
        refund.amount_minor
        for refund in intent.refunds
        if refund.status in ("pending", "succeeded") and not refund.is_release
    )


def disputed_minor(intent: Intent) -> int:
    return sum(withdrawn_minor(dispute) for dispute in intent.disputes)


def withdrawn_minor(dispute: Dispute) -> int:
    """Withdrawn and not reinstated."""
    return -sum(transaction.moved_minor for transaction in dispute.transactions)


def _failure_code(intent: Intent) -> str | None:
    if intent.error is None or intent.status == "succeeded":
        return None
    return intent.error.decline_code or intent.error.code
