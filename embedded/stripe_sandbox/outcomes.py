"""Test payment methods decide how an attempt ends, by Stripe's own names for them or by a saved one's script."""

import re
from dataclasses import dataclass

from embedded.stripe_sandbox import disputes, payments, reviews
from embedded.stripe_sandbox.errors import invalid
from embedded.stripe_sandbox.ledger import Intent, Ledger, Method, PaymentError

CARDS = re.compile(
    r"pm_card_(visa|visa_debit|mastercard|amex|discover|jcb|us|de|pendingRefund|refundFail)|success"
)
DECLINED = re.compile(r"pm_card_(?:visa_)?charge(?:Declined|CustomerFail)(\w*)")
CHALLENGED = re.compile(r"pm_card_(threeDSecure\w*Required|authenticationRequired\w*)")
DISPUTED = re.compile(r"pm_card_createDispute(Inquiry)?")
# Authenticated without a challenge: the bank knew enough.
FRICTIONLESS = ("pm_card_threeDSecureOptional", "three_d_secure_frictionless")
REVIEWED = ("pm_card_riskLevelElevated", "review")
# The action that follows by itself some days later, or nothing until a test says so.
DEBITS = {
    "pm_sepa": ("sepa_debit", None),
    "pm_success_sepa": ("sepa_debit", "debit_succeed"),
    "pm_fail_sepa": ("sepa_debit", "debit_fail"),
    "sepa_debit": ("sepa_debit", "debit_succeed"),
    "sepa_debit_fails": ("sepa_debit", "debit_fail"),
    "pm_usBankAccount": ("us_bank_account", None),
    "pm_bacs": ("bacs_debit", None),
}
DEBIT_SETTLES_AFTER_SECONDS = 3 * 86_400
DECLINES = {
    "": "generic_decline",
    "InsufficientFunds": "insufficient_funds",
    "LostCard": "lost_card",
    "StolenCard": "stolen_card",
    "VelocityLimitExceeded": "card_velocity_exceeded",
    "ExpiredCard": "expired_card",
    "IncorrectCvc": "incorrect_cvc",
    "ProcessingError": "processing_error",
    "Fraudulent": "fraudulent",
}
# What issuers say; each comes as `card_declined` but for those that are codes of their own.
DECLINE_CODES = (
    "approve_with_id", "call_issuer", "card_not_supported", "card_velocity_exceeded",
    "currency_not_supported", "do_not_honor", "do_not_try_again", "duplicate_transaction",
    "expired_card", "fraudulent", "generic_decline", "incorrect_cvc", "incorrect_number",
    "insufficient_funds",
    "invalid_account", "invalid_amount", "issuer_not_available", "lost_card", "merchant_blacklist",
    "new_account_information_available", "no_action_taken", "not_permitted", "pickup_card",
    "processing_error", "reenter_transaction", "restricted_card", "revocation_of_all_authorizations",
    "revocation_of_authorization", "security_violation", "service_not_allowed", "stolen_card",
    "stop_payment_order", "transaction_not_allowed", "try_again_later",
    "withdrawal_count_limit_exceeded",
)  # fmt: skip
OWN_CODES = ("expired_card", "incorrect_cvc", "incorrect_number", "processing_error")
AUTHENTICATION_REQUIRED = PaymentError(
    "authentication_required",
    "The customer must be present to authenticate this payment.",
    "authentication_required",
)


@dataclass(frozen=True)
class Attempt:
    """One confirmation; off-session nobody is there to be challenged."""

    ledger: Ledger
    intent: Intent
    off_session: bool


def is_outcome(name: str) -> bool:
    declined = DECLINED.fullmatch(name)
    if declined:
        return declined[1] in DECLINES
    return bool(
        name in (*DECLINE_CODES, *FRICTIONLESS, *REVIEWED, "authentication_required")
        or any(pattern.fullmatch(name) for pattern in (CARDS, CHALLENGED, DISPUTED))
        or _debit(name)
    )


def require_usable(ledger: Ledger, method: str, customer: str | None) -> None:
    """A test token may be used by anybody, a saved method by the customer that it belongs to."""
    saved = ledger.methods.get(method)
    if saved is None and not (method.startswith("pm_") and is_outcome(method)):
        raise invalid(f"No such PaymentMethod: '{method}'", "resource_missing", "payment_method")
    if saved is not None and saved.customer_id != customer:
        raise invalid(
            f"The PaymentMethod {method} belongs to another Customer than the one given.",
            "payment_method_customer_mismatch" if customer else None,
            "payment_method",
        )


def attempt(ledger: Ledger, intent: Intent, method: str, off_session: bool) -> bool:
    """Confirm `intent` with a method that is usable; False when the attempt was declined."""
    intent.method, intent.three_d_secure, intent.mandate_id = method, None, None
    saved = ledger.methods.get(method)
    outcome = _next_outcome(saved) if saved else method
    trying = Attempt(ledger, intent, off_session)
    if debit := _debit(outcome):
        _start_debit(trying, debit, saved)
        return True
    intent.method_types = ["card"]
    if declined := DECLINED.fullmatch(outcome):
        return _decline(trying, DECLINES[declined[1]])
    if outcome in DECLINE_CODES:
        return _decline(trying, outcome)
    if CHALLENGED.fullmatch(outcome) or outcome == "authentication_required":
        return _challenge(trying)
    if outcome in FRICTIONLESS:
        intent.three_d_secure = "authenticated"
    _succeed(trying, outcome)
    return True


def _next_outcome(saved: Method) -> str:
    return saved.outcomes.pop(0) if len(saved.outcomes) > 1 else saved.outcomes[0]


def _decline(trying: Attempt, decline_code: str) -> bool:
    code = decline_code if decline_code in OWN_CODES else "card_declined"
    # A processing error is Stripe's own word; no issuer said anything.
    issuer = None if decline_code == "processing_error" else decline_code
    error = PaymentError(code, "Your card was declined.", issuer)
    payments.fail(trying.ledger, trying.intent, error)
    return False


def _challenge(trying: Attempt) -> bool:
    if trying.off_session:
        payments.fail(trying.ledger, trying.intent, AUTHENTICATION_REQUIRED)
        return False
    payments.require_action(trying.ledger, trying.intent)
    return True


def _start_debit(trying: Attempt, debit: tuple[str, str | None], saved: Method | None) -> None:
    kind, then = debit
    if saved is not None:
        saved.mandate_id = saved.mandate_id or trying.ledger.ids.new("mandate")
        trying.intent.mandate_id = saved.mandate_id
    payments.start_debit(trying.ledger, trying.intent, kind)
    if then is not None:
        trying.ledger.later(trying.intent, then, DEBIT_SETTLES_AFTER_SECONDS)


def _succeed(trying: Attempt, outcome: str) -> None:
    ledger, intent = trying.ledger, trying.intent
    payments.succeed(ledger, intent)
    payments.settle(ledger, intent)
    if outcome == "pm_card_createDispute":
        disputes.open_dispute(ledger, intent, None)
    elif outcome == "pm_card_createDisputeInquiry":
        disputes.open_inquiry(ledger, intent, None)
    elif outcome in REVIEWED:
        reviews.open_review(ledger, intent)


def _debit(name: str) -> tuple[str, str | None] | None:
    if name in DEBITS:
        return DEBITS[name]
    return next((each for prefix, each in DEBITS.items() if name.startswith(prefix)), None)
