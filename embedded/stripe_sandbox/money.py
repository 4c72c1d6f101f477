"""The merchant's own money at Stripe: balance transactions, payouts, invoices, and Radar's reviews."""

from collections.abc import Callable

from embedded.stripe_sandbox import invoices, payouts, reviews, shapes
from embedded.stripe_sandbox.calls import Call, Handler
from embedded.stripe_sandbox.errors import invalid
from embedded.stripe_sandbox.finding import found, page_of
from embedded.stripe_sandbox.ledger import JsonObject, Transaction
from embedded.stripe_sandbox.listing import PAGE_PARAMETERS, seconds_in

TRANSACTION_FILTERS = ("payout", "source", "type", "currency")


def get_transaction(call: Call) -> JsonObject:
    transaction = found(call, call.ledger.transactions, "balance_transaction")
    return shapes.transaction_json(transaction, call.ledger.now)


def list_transactions(call: Call) -> JsonObject:
    """Of an automatic payout: all its lines, its own among them, negative."""
    form = call.form
    form.require_known((*PAGE_PARAMETERS, *TRANSACTION_FILTERS))
    if payout_id := form.text("payout"):
        _require_itemised(call, payout_id)
    wanted = _asked_for(call)
    lines = [each for each in call.ledger.transactions.values() if wanted(each)]
    return page_of(call, lines, "/v1/balance_transactions")


def _asked_for(call: Call) -> Callable[[Transaction], bool]:
    payout, source, kind, currency = (call.form.text(each) for each in TRANSACTION_FILTERS)
    return lambda each: (
        payout in (None, each.payout_id)
        and source in (None, each.source)
        and kind in (None, each.kind)
        and currency in (None, each.currency)
    )


def _require_itemised(call: Call, payout_id: str) -> None:
    payout = call.ledger.payouts.get(payout_id)
    if payout is None or payout.account != call.account:
        raise invalid(f"No such payout: '{payout_id}'", "resource_missing", "payout")
    if not payout.automatic:
        raise invalid(
            "Balance transactions can be listed by automatic payouts, not by manual ones.",
            param="payout",
        )


def create_payout(call: Call) -> JsonObject:
    """A manual payout."""
    form = call.form
    form.require_known(
        ("amount", "currency", "description", "metadata", "method", "source_type", "expand")
    )
    amount_minor = form.amount("amount")
    if amount_minor is None:
        raise invalid("Missing required param: amount.", "parameter_missing", "amount")
    wish = payouts.Wish(
        form.required("currency").lower(),
        amount_minor,
        account=call.account,
        metadata=form.mapping("metadata"),
    )
    return payouts.payout_json(payouts.pay_out(call.ledger, wish))


def cancel_payout(call: Call) -> JsonObject:
    payout = found(call, call.ledger.payouts, "payout")
    payouts.move(call.ledger, payout, "canceled")
    return payouts.payout_json(payout)


def get_payout(call: Call) -> JsonObject:
    return payouts.payout_json(found(call, call.ledger.payouts, "payout"))


def list_payouts(call: Call) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "status", "arrival_date", "destination"))
    status, arrives = call.form.text("status"), seconds_in(call.form, "arrival_date")
    wanted = [
        each
        for each in call.ledger.payouts.values()
        if status in (None, each.status) and arrives(each.arrival_date)
    ]
    return page_of(call, wanted, "/v1/payouts")


def get_review(call: Call) -> JsonObject:
    return reviews.review_json(found(call, call.ledger.reviews, "review"))


def get_invoice(call: Call) -> JsonObject:
    return invoices.invoice_json(found(call, call.ledger.invoices, "invoice"))


def get_invoice_payment(call: Call) -> JsonObject:
    return invoices.part_json(found(call, call.ledger.invoice_parts, "invoice_payment"))


def list_invoice_payments(call: Call) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "invoice"))
    invoice = call.form.text("invoice")
    parts = call.ledger.invoice_parts.values()
    wanted = [each for each in parts if invoice in (None, each.invoice.id)]
    return page_of(call, wanted, "/v1/invoice_payments")


def list_reviews(call: Call) -> JsonObject:
    """Open ones alone, as at Stripe."""
    call.form.require_known(PAGE_PARAMETERS)
    still_open = [each for each in call.ledger.reviews.values() if each.closed_reason is None]
    return page_of(call, still_open, "/v1/reviews")


def approve_review(call: Call) -> JsonObject:
    review = found(call, call.ledger.reviews, "review")
    intent = call.ledger.intents[review.intent_id]
    call.sandbox.touch(intent)
    reviews.close_review(call.ledger, intent)
    return reviews.review_json(review)


HANDLERS: list[tuple[str, str, Handler]] = [
    ("GET", "/v1/balance_transactions", list_transactions),
    ("GET", "/v1/balance_transactions/{id}", get_transaction),
    ("POST", "/v1/payouts", create_payout),
    ("GET", "/v1/payouts", list_payouts),
    ("GET", "/v1/payouts/{id}", get_payout),
    ("POST", "/v1/payouts/{id}/cancel", cancel_payout),
    ("GET", "/v1/invoices/{id}", get_invoice),
    ("GET", "/v1/invoice_payments", list_invoice_payments),
    ("GET", "/v1/invoice_payments/{id}", get_invoice_payment),
    ("GET", "/v1/reviews", list_reviews),
    ("GET", "/v1/reviews/{id}", get_review),
    ("POST", "/v1/reviews/{id}/approve", approve_review),
]
