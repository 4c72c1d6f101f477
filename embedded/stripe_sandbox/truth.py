"""What every payment is, read from the ledger itself; no event is looked at."""

from collections.abc import Iterable

from embedded.stripe_sandbox.ledger import Dispute, Intent, JsonObject


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


def truths(intents: Iterable[Intent]) -> dict[str, JsonObject]:
    return {intent.id: truth_of(intent) for intent in intents}


def refunded_minor(intent: Intent) -> int:
    return sum(
        refund.amount_minor
        for refund in intent.refunds
        if refund.status in ("pending", "succeeded")
    )


def disputed_minor(intent: Intent) -> int:
    return sum(withdrawn_minor(dispute) for dispute in intent.disputes)


def withdrawn_minor(dispute: Dispute) -> int:
    """Withdrawn and not reinstated."""
    return -sum(transaction.amount_minor for transaction in dispute.transactions)


def _failure_code(intent: Intent) -> str | None:
    if intent.error is None or intent.status == "succeeded":
        return None
    return intent.error.decline_code or intent.error.code
