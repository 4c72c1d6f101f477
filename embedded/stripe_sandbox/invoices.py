"""Stripe's own billing: an invoice that was paid by a PaymentIntent, and the part that says which."""

from embedded.stripe_sandbox.ledger import (
    IllegalTransition,
    Intent,
    Invoice,
    InvoicePart,
    JsonObject,
    Ledger,
)


def draw_up(ledger: Ledger) -> Invoice:
    """An invoice to be paid; its PaymentIntent is made for it."""
    invoice = Invoice(ledger.ids.new("in"), ledger.now, ledger.ids.new("sub"))
    ledger.invoices[invoice.id] = invoice
    return invoice


def pay(ledger: Ledger, invoice: Invoice, intent: Intent) -> None:
    """Told in two events: today only the invoice's payment names the PaymentIntent."""
    if intent.status != "succeeded" or intent.invoice_id != invoice.id:
        raise IllegalTransition(f"{invoice.id} is not paid by {intent.id}.", "invoice_not_paid")
    invoice.paid_by, invoice.paid_at = intent, ledger.now
    part = InvoicePart(ledger.ids.new("inpay"), invoice.created, invoice)
    ledger.invoice_parts[part.id] = part
    ledger.emit("invoice_payment.paid", intent, part_json(part))
    ledger.emit("invoice.paid", intent, invoice_json(invoice))


def part_json(part: InvoicePart) -> JsonObject:
    invoice, intent = part.invoice, _payer(part.invoice)
    return {
        "id": part.id,
        "object": "invoice_payment",
        "amount_paid": intent.received_minor,
        "amount_requested": intent.amount_minor,
        "created": part.created,
        "currency": intent.currency,
        "invoice": invoice.id,
        "is_default": True,
        "livemode": intent.livemode,
        "payment": {"type": "payment_intent", "payment_intent": intent.id},
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": invoice.paid_at},
    }


def invoice_json(invoice: Invoice) -> JsonObject:
    intent = _payer(invoice)
    return {
        "id": invoice.id,
        "object": "invoice",
        "amount_due": intent.amount_minor,
        "amount_paid": intent.received_minor,
        "amount_remaining": 0,
        "attempt_count": len(intent.charges),
        "attempted": True,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": invoice.created,
        "currency": intent.currency,
        "customer": intent.customer,
        "livemode": intent.livemode,
        "metadata": {},
        "number": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(intent.metadata),
                "subscription": invoice.subscription,
            },
            "type": "subscription_details",
        },
        "period_end": invoice.created,
        "period_start": invoice.created,
        "status": "paid",
        "status_transitions": {
            "finalized_at": invoice.created,
            "marked_uncollectible_at": None,
            "paid_at": invoice.paid_at,
            "voided_at": None,
        },
        "subtotal": intent.amount_minor,
        "total": intent.amount_minor,
    }


def _payer(invoice: Invoice) -> Intent:
    if invoice.paid_by is None:
        raise IllegalTransition(f"{invoice.id} has not been paid.", "invoice_not_paid")
    return invoice.paid_by
