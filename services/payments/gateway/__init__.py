"""Stripe's door: the only room that knows Stripe's client, its shapes and its names."""

from services.payments.gateway.client import (
    Delivered,
    StripeAway,
    StripeClient,
    UnknownToStripe,
    answer_body,
    mode_of,
)
from services.payments.gateway.doing import Done, Refused, do
from services.payments.gateway.envelope import Envelope, NotAnEvent, open_envelope
from services.payments.gateway.question import (
    Question,
    charge_subject,
    payment_subject,
    refunds_subject,
)
from services.payments.gateway.signature import SignatureRefused, verify
from services.payments.gateway.translate import Nothing, Thin, Understood, translate

__all__ = [
    "Delivered",
    "Done",
    "Envelope",
    "NotAnEvent",
    "Nothing",
    "Question",
    "Refused",
    "SignatureRefused",
    "StripeAway",
    "StripeClient",
    "Thin",
    "Understood",
    "UnknownToStripe",
    "answer_body",
    "charge_subject",
    "do",
    "mode_of",
    "open_envelope",
    "payment_subject",
    "refunds_subject",
    "translate",
    "verify",
]
