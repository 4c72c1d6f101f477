"""What comes after a payment, or beside it: refunds, disputes, reviews, its invoice, what Stripe kept of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.payments.domain import Dispute, Fold, Link, Payout, Refund, StripeFact
from services.payments.domain.fold import REFUND_RANKS
from services.payments.domain.state import HOLDING
from services.payments.gateway import parts, shapes
from services.payments.gateway.question import Listed, list_of
from shared.errors import NotUnderstood
from shared.money import from_stripe


@dataclass(frozen=True, slots=True)
class Nothing:
    """An event that says nothing about a payment's money; `lonely_charge` belongs to no payment at all."""

    reason: str
    lonely_charge: str | None = None


def of_charge(
    event: shapes.Event, payment: str | None, charge: str | None, tells: Fold
) -> StripeFact:
    charges = (charge,) if charge and payment else ()
    return StripeFact(
        event.id,
        event.type,
        event.created,
        payment,
        charge,
        charges,
        tells,
        is_answer=event.asked is not None,
    )


def refund_fact(event: shapes.Event, refund: shapes.Refund) -> StripeFact | Nothing:
    if refund.payment_intent is None and refund.charge is None:
        return Nothing("a refund of neither a payment nor a charge")
    tells = Fold(
        livemode=event.livemode, account=event.of_account, refunds=refunds(event, [refund])
    )
    return of_charge(event, refund.payment_intent, refund.charge, tells)


def refunds(event: shapes.Event, made: Iterable[shapes.Refund]) -> dict[str, Refund]:
    return {refund.id: _refund(event, refund) for refund in made}


def _refund(event: shapes.Event, refund: shapes.Refund) -> Refund:
    status = refund.status or "succeeded"
    if status not in REFUND_RANKS:
        raise NotUnderstood(f"a refund's status is {status!r}, which is not known here")
    return Refund(
        rank=REFUND_RANKS[status],
        status=status,
        amount_minor=from_stripe(refund.amount, refund.currency),
        created=refund.created,
        held=status in HOLDING or refund.balance_transaction is not None,
        returned_at=event.created if status in ("failed", "canceled") else None,
    )


def list_fact(
    event: shapes.Event, asked: shapes.Asked, content: dict[str, object]
) -> StripeFact | Nothing:
    """A whole list, believed only as Stripe's answer to us."""
    match list_of(asked.about or ""):
        case Listed("/v1/refunds", _, payment):
            made = shapes.RefundList.model_validate(content).data
            tells = Fold(
                livemode=event.livemode,
                account=event.of_account,
                refunds=refunds(event, made),
                listed=asked.second,
            )
            charges = {refund.charge for refund in made if refund.charge}
        case Listed("/v1/disputes", _, payment):
            opened = shapes.DisputeList.model_validate(content).data
            folds = [_dispute(event, each) for each in opened]
            tells = Fold(
                livemode=event.livemode,
                account=event.of_account,
                disputes={name: each for fold in folds for name, each in fold.disputes.items()},
                fees={name: each for fold in folds for name, each in fold.fees.items()},
            )
            charges = {dispute.charge for dispute in opened if dispute.charge}
        case Listed(_, _, charge):
            booked = shapes.BookedList.model_validate(content).data
            return _booked_fact(event, charge, booked)
        case _:
            return Nothing("a list of something else than what became of a payment")
    named = tuple(sorted(charges))
    return StripeFact(
        event.id, event.type, event.created, payment, None, named, tells, is_answer=True
    )


def _booked_fact(
    event: shapes.Event, charge: str, booked: Iterable[shapes.BalanceTransaction]
) -> StripeFact:
    """All that was booked for a charge: of one that was captured in parts, each part."""
    own = [each for each in booked if each.type in parts.CHARGED and each.source == charge]
    tells = Fold(
        livemode=event.livemode,
        account=event.of_account,
        fees=parts.known_fees(own, is_charge=True),
    )
    return of_charge(event, None, charge, tells)


def dispute_fact(event: shapes.Event, dispute: shapes.Dispute) -> StripeFact | Nothing:
    if dispute.payment_intent is None and dispute.charge is None:
        return Nothing("a dispute of neither a payment nor a charge")
    return of_charge(event, dispute.payment_intent, dispute.charge, _dispute(event, dispute))


def _dispute(event: shapes.Event, dispute: shapes.Dispute) -> Fold:
    # The oldest disputes had no id of their own: there was one for a charge.
    name = dispute.id or dispute.charge or ""
    moved = {
        each.id: Payout(each.created, minor)
        for each in dispute.balance_transactions
        if (minor := _withdrawn(each, dispute))
    }
    costly = [each for each in dispute.balance_transactions if each.fee]
    return Fold(
        livemode=event.livemode,
        account=event.of_account,
        disputes={name: Dispute((event.created, event.id, dispute.status), moved)},
        fees=parts.known_fees(costly, is_charge=False),
    )


def _withdrawn(transaction: shapes.BalanceTransaction, dispute: shapes.Dispute) -> int:
    """What left the payment, in the payment's currency; a balance may be held in another one."""
    if transaction.currency == dispute.currency:
        return -from_stripe(transaction.amount, transaction.currency)
    sign = (transaction.amount < 0) - (transaction.amount > 0)
    return sign * from_stripe(dispute.amount, dispute.currency)


def review_fact(event: shapes.Event, review: shapes.Review) -> StripeFact | Nothing:
    if review.payment_intent is None and review.charge is None:
        return Nothing("a review of neither a payment nor a charge")
    tells = Fold(livemode=event.livemode, account=event.of_account, reviews=parts.reviews([review]))
    return of_charge(event, review.payment_intent, review.charge, tells)


def invoice_fact(event: shapes.Event, invoice: shapes.Invoice) -> StripeFact | Nothing:
    """Which invoice a payment is for, and whose it is; an invoice moves no money of its own."""
    shown = (part.payment.payment_intent for part in invoice.payments if part.payment)
    payments = {each for each in (invoice.payment_intent, *shown) if each}
    if len(payments) > 1:
        return Nothing("an invoice paid in parts: each of its payments names it itself")
    payment = min(payments, default=None)
    if payment is None and invoice.charge is None:
        return Nothing("an invoice that names no payment")
    tells = Fold(
        livemode=event.livemode,
        account=event.of_account,
        links=_invoice_links(event, invoice),
        invoice=invoice.id or "",
    )
    return of_charge(event, payment, invoice.charge, tells)


def _invoice_links(event: shapes.Event, invoice: shapes.Invoice) -> dict[str, Link]:
    details = invoice.subscription_details
    if details is None and invoice.parent:
        details = invoice.parent.subscription_details
    of_subscription = details.metadata if details else {}
    return parts.links(event, of_subscription, parts.SUBSCRIPTION_LINK_RANK) | parts.links(
        event, invoice.metadata, parts.INVOICE_LINK_RANK
    )


def invoice_payment_fact(event: shapes.Event, paid: shapes.InvoicePayment) -> StripeFact | Nothing:
    payment = paid.payment.payment_intent if paid.payment else None
    if payment is None:
        return Nothing("a part of an invoice that was paid with no payment")
    tells = Fold(livemode=event.livemode, account=event.of_account, invoice=paid.invoice or "")
    return of_charge(event, payment, None, tells)


def settled_fact(
    event: shapes.Event, transaction: shapes.BalanceTransaction
) -> StripeFact | Nothing:
    """What Stripe kept of a charge."""
    if transaction.type not in parts.CHARGED or transaction.source is None:
        return Nothing(f"a balance transaction of type {transaction.type}, which is no charge's")
    tells = Fold(
        livemode=event.livemode,
        account=event.of_account,
        fees=parts.known_fees([transaction], is_charge=True),
    )
    return of_charge(event, None, transaction.source, tells)
