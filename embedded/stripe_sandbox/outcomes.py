"""Test payment methods decide how an attempt ends, by Stripe's own names for them."""

import re

from embedded.stripe_sandbox import disputes, payments
from embedded.stripe_sandbox.errors import invalid
from embedded.stripe_sandbox.ledger import Intent, Ledger, PaymentError

CARDS = re.compile(r"pm_card_(visa|visa_debit|mastercard|amex|discover|jcb|us|de|pendingRefund)")
DECLINED = re.compile(r"pm_card_(?:visa_)?chargeDeclined(\w*)")
CHALLENGED = re.compile(r"pm_card_(threeDSecure\w*Required|authenticationRequired\w*)")
DISPUTED = re.compile(r"pm_card_createDispute(Inquiry)?")
DEBITS = {
    "pm_sepa": "sepa_debit",
    "pm_usBankAccount": "us_bank_account",
    "pm_bacs": "bacs_debit",
}
DECLINES = {
    "": ("card_declined", "generic_decline"),
    "InsufficientFunds": ("card_declined", "insufficient_funds"),
    "LostCard": ("card_declined", "lost_card"),
    "StolenCard": ("card_declined", "stolen_card"),
    "VelocityLimitExceeded": ("card_declined", "card_velocity_exceeded"),
    "ExpiredCard": ("expired_card", "expired_card"),
    "IncorrectCvc": ("incorrect_cvc", "incorrect_cvc"),
    "ProcessingError": ("processing_error", None),
}
AUTHENTICATION_REQUIRED = PaymentError(
    "authentication_required",
    "The customer must be present to authenticate this payment.",
    "authentication_required",
)


def require_known(method: str) -> None:
    declined = DECLINED.fullmatch(method)
    known = (
        (declined and declined[1] in DECLINES)
        or any(pattern.fullmatch(method) for pattern in (CARDS, CHALLENGED, DISPUTED))
        or _debit(method)
    )
    if not known:
        raise invalid(f"No such PaymentMethod: '{method}'", "resource_missing", "payment_method")


def attempt(ledger: Ledger, intent: Intent, method: str, off_session: bool) -> bool:
    """Confirm `intent` with a known test method; False when the attempt was declined."""
    intent.method = method
    debit = _debit(method)
    if debit is not None:
        payments.start_debit(ledger, intent, debit)
    elif declined := DECLINED.fullmatch(method):
        code, decline_code = DECLINES[declined[1]]
        payments.fail(ledger, intent, PaymentError(code, "Your card was declined.", decline_code))
        return False
    elif CHALLENGED.fullmatch(method) and off_session:
        payments.fail(ledger, intent, AUTHENTICATION_REQUIRED)
        return False
    elif CHALLENGED.fullmatch(method):
        payments.require_action(ledger, intent)
    else:
        _succeed(ledger, intent, method)
    return True


def _succeed(ledger: Ledger, intent: Intent, method: str) -> None:
    payments.succeed(ledger, intent)
    payments.settle(ledger, intent)
    disputed = DISPUTED.fullmatch(method)
    if disputed and disputed[1]:
        disputes.open_inquiry(ledger, intent, None)
    elif disputed:
        disputes.open_dispute(ledger, intent, None)


def _debit(method: str) -> str | None:
    return next((kind for prefix, kind in DEBITS.items() if method.startswith(prefix)), None)
