"""Radar's reviews: a payment that somebody at the merchant is to look at."""

from embedded.stripe_sandbox.ledger import IllegalTransition, Intent, JsonObject, Ledger, Review


def open_review(ledger: Ledger, intent: Intent) -> Review:
    charge = intent.latest_charge
    if charge is None or intent.review is not None:
        raise IllegalTransition(
            f"{intent.id} has no charge to review, or is reviewed already.",
            "review_unexpected_state",
        )
    review = Review(ledger.ids.new("prv"), ledger.now, intent.id, charge.id)
    ledger.reviews[review.id] = review
    intent.review, charge.review_id = review, review.id
    ledger.emit("review.opened", intent, review_json(review))
    return review


def close_review(ledger: Ledger, intent: Intent, reason: str = "approved") -> None:
    """approved, or what made looking needless: refunded, refunded_as_fraud, disputed, canceled."""
    review = intent.review
    if review is None or review.closed_reason is not None:
        raise IllegalTransition(f"{intent.id} has no open review.", "review_unexpected_state")
    review.closed_reason = reason
    ledger.emit("review.closed", intent, review_json(review))


def close_if_open(ledger: Ledger, intent: Intent, reason: str) -> None:
    if intent.review is not None and intent.review.closed_reason is None:
        close_review(ledger, intent, reason)


def review_json(review: Review) -> JsonObject:
    return {
        "id": review.id,
        "object": "review",
        "billing_zip": None,
        "charge": review.charge_id,
        "closed_reason": review.closed_reason,
        "created": review.created,
        "ip_address": None,
        "ip_address_location": None,
        "livemode": False,
        "open": review.closed_reason is None,
        "opened_reason": "rule",
        "payment_intent": review.intent_id,
        "reason": review.closed_reason or "rule",
        "session": None,
    }
