"""What several kinds of Stripe's objects tell alike: of whom, with what, at which fee."""

from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

from services.payments.domain import Fee, Link, Method, Review
from services.payments.domain.fold import METHOD_RANKS
from services.payments.gateway import shapes
from shared.errors import InvalidInput
from shared.money import currency_code, from_stripe

LINKS = ("user_id", "subscription_id")
# Whose word on whom a payment is of outranks whose.
PAYMENT_LINK_RANK = 1
CHARGE_LINK_RANK = 0
INVOICE_LINK_RANK = -1
SUBSCRIPTION_LINK_RANK = -2
# A payment's facts name the same two within seconds of each other: 2 MB at most.
NAMES_REMEMBERED = 8_192
CHARGED = ("charge", "payment")


def links(event: shapes.Event, metadata: dict[str, str], rank: int) -> dict[str, Link]:
    return {
        key: _link(event, metadata[key].strip(), rank)
        for key in LINKS
        if metadata.get(key, "").strip()
    }


def _link(event: shapes.Event, text: str, rank: int) -> Link:
    name = uuid_text(text)
    # Whatever else stands there may be anybody's name or address, which none of our tables keeps.
    return Link(name is not None, rank, event.created, event.id, name or "")


@lru_cache(maxsize=NAMES_REMEMBERED)
def uuid_text(text: str) -> str | None:
    """In the one way of writing a UUID; None where it is none."""
    try:
        return str(UUID(text))
    except ValueError:
        return None


def claims(event: shapes.Event, charges: Iterable[shapes.Charge]) -> dict[str, int]:
    """What captured charges say was given back.  Which refunds that were, they stopped saying in 2022-11-15."""
    said = ((c.amount_refunded, c.currency) for c in charges if c.captured and c.amount_refunded)
    try:
        claimed = sum(from_stripe(amount, currency) for amount, currency in said)
    except InvalidInput:  # only a question hangs on it
        return {}
    seen_at = event.asked.seen_at if event.asked else None
    return {str(seen_at or event.created): claimed} if claimed else {}


def reviews(shown: Iterable[shapes.Review | None]) -> dict[str, Review]:
    return {review.id: _review(review) for review in shown if review is not None}


def _review(review: shapes.Review) -> Review:
    reason = review.reason if review.open else review.closed_reason or review.reason
    return Review(is_closed=not review.open, created=review.created, reason=reason)


def fees(charges: Iterable[shapes.Charge]) -> dict[str, Fee]:
    settled = (charge.balance_transaction for charge in charges)
    shown = (each for each in settled if isinstance(each, shapes.BalanceTransaction))
    return known_fees(shown, is_charge=True)


def unsettled(charges: Iterable[shapes.Charge], known: dict[str, Fee]) -> dict[str, str]:
    """Balance transactions that are only named: what Stripe kept, it says when it is asked."""
    named = (
        (each.balance_transaction, each.id)
        for each in charges
        if each.captured and each.balance_transaction
    )
    ids = ((t.id if isinstance(t, shapes.BalanceTransaction) else t, c) for t, c in named)
    return {transaction: charge for transaction, charge in ids if transaction not in known}


def known_fees(
    transactions: Iterable[shapes.BalanceTransaction], *, is_charge: bool
) -> dict[str, Fee]:
    return {each.id: fee for each in transactions if (fee := _fee(each, is_charge=is_charge))}


def _fee(transaction: shapes.BalanceTransaction, *, is_charge: bool) -> Fee | None:
    """None where our minor units cannot say it, such as 29.50 ISK: no reason to refuse the payment's own money."""
    try:
        currency = currency_code(transaction.currency)
        return Fee(
            is_charge=is_charge,
            currency=currency,
            fee_minor=from_stripe(transaction.fee, currency),
            net_minor=from_stripe(transaction.net, currency),
        )
    except InvalidInput:
        return None


def method(charges: Iterable[shapes.Charge]) -> Method | None:
    """Of the last charge that says what it was made with."""
    return max((made for each in charges if (made := _made_with(each))), default=None)


def _made_with(charge: shapes.Charge) -> Method | None:
    rank = METHOD_RANKS.get(charge.status or ("paid" if charge.paid else "failed"), 0)
    details, source = charge.payment_method_details, charge.source
    if details and details.type:
        return Method(
            created=charge.created,
            rank=rank,
            attempt=charge.id,
            type=details.type,
            three_d_secure=details.three_d_secure or "",
            mandate_id=details.mandate or "",
        )
    kind = source and source.kind
    return Method(charge.created, rank, charge.id, kind) if kind else None


def failed_method(event: shapes.Event, error: shapes.PaymentError | None) -> Method | None:
    """Of an attempt that ended before a charge was made."""
    if error is None or error.charge:
        return None
    kind = (error.payment_method and error.payment_method.type) or (
        error.source and error.source.kind
    )
    return Method(event.created, 0, event.id, kind) if kind else None
