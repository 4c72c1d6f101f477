"""Stripe's door: the only room that knows Stripe's client, its shapes and its names."""

from services.payments.gateway.afterwards import Nothing
from services.payments.gateway.away import BACKOFF, StripeAway, StripeBarred, patience
from services.payments.gateway.balance import Line, PaidOut, line_of, payout_of
from services.payments.gateway.client import (
    Delivered,
    StripeClient,
    UnknownToStripe,
    answer_body,
    mode_of,
)
from services.payments.gateway.doing import Done, Refused, do
from services.payments.gateway.envelope import Envelope, NotAnEvent, open_envelope
from services.payments.gateway.finding import CAPTURE_KEY, ORDER_KEY, Lost, amount_of, find
from services.payments.gateway.listing import (
    Kind,
    Listing,
    Page,
    Seen,
    event_body,
    is_concerned,
    page_of,
)
from services.payments.gateway.ordered import Asking, answer_id, ordered_body, told_of
from services.payments.gateway.question import (
    Question,
    booked_subject,
    charge_subject,
    disputes_subject,
    invoice_subject,
    payment_subject,
    refunds_subject,
    settled_subject,
    transaction_subject,
)
from services.payments.gateway.retention import NotRedacted, redact
from services.payments.gateway.signature import SignatureRefused, verify
from services.payments.gateway.translate import Thin, Understood, translate

__all__ = [
    "BACKOFF",
    "CAPTURE_KEY",
    "ORDER_KEY",
    "Asking",
    "Delivered",
    "Done",
    "Envelope",
    "Kind",
    "Line",
    "Listing",
    "Lost",
    "NotAnEvent",
    "NotRedacted",
    "Nothing",
    "Page",
    "PaidOut",
    "Question",
    "Refused",
    "Seen",
    "SignatureRefused",
    "StripeAway",
    "StripeBarred",
    "StripeClient",
    "Thin",
    "Understood",
    "UnknownToStripe",
    "amount_of",
    "answer_body",
    "answer_id",
    "booked_subject",
    "charge_subject",
    "disputes_subject",
    "do",
    "event_body",
    "find",
    "invoice_subject",
    "is_concerned",
    "line_of",
    "mode_of",
    "open_envelope",
    "ordered_body",
    "page_of",
    "patience",
    "payment_subject",
    "payout_of",
    "redact",
    "refunds_subject",
    "settled_subject",
    "told_of",
    "transaction_subject",
    "translate",
    "verify",
]
