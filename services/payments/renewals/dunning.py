"""What follows a refused charge.  Pure: the reason and the time in, a decision out.

A reason nobody here has heard of is tried again by the schedule: it ends by itself, and charges nobody twice.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

# The card, or the right to charge it, is gone: asking again is what card schemes fine merchants for.
STOPS = frozenset(
    {
        "debit_not_authorized",
        "fraudulent",
        "highest_risk_level",
        "lost_card",
        "merchant_blacklist",
        "pickup_card",
        "previously_declined_do_not_retry",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "security_violation",
        "stolen_card",
        "stop_payment_order",
    }
)
# The same card gives the same answer for ever; another one may do.
NEEDS_ANOTHER_METHOD = frozenset(
    {
        "account_closed",
        "bank_account_unusable",
        "card_not_supported",
        "currency_not_supported",
        "expired_card",
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_pin",
        "incorrect_zip",
        "invalid_account",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "invalid_pin",
        "mandate_invalid",
        "new_account_information_available",
        "no_account",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "payment_intent_mandate_invalid",
        "payment_method_customer_decline",
        "payment_method_not_available",
        "payment_method_unactivated",
        "pin_try_exceeded",
        "resource_missing",
        "sepa_unsupported_account",
        "transaction_not_allowed",
    }
)
# The card network's own word, beside whatever the issuer's reason is: networks fine who asks again all the same.
ADVICE_AGAINST = frozenset({"do_not_try_again", "confirm_card_data"})
# The bank wants the customer to be there: the same payment can be confirmed by them, not by us.
NEEDS_THE_CUSTOMER = frozenset(
    {
        "authentication_not_handled",
        "authentication_required",
        "payment_intent_authentication_failure",
    }
)
# Somebody ended the payment by hand, or the amount cannot be charged at all: what is asked again is refused again.
POINTLESS = frozenset({"amount_too_large", "amount_too_small", "payment_canceled"})


@dataclass(frozen=True, slots=True)
class Retry:
    at: datetime


@dataclass(frozen=True, slots=True)
class AskForMethod:
    """No attempt before the customer gives another one."""


@dataclass(frozen=True, slots=True)
class AskCustomer:
    """No attempt of ours: the customer confirms the payment themselves, or gives another method."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    pass


Decision = Retry | AskForMethod | AskCustomer | GiveUp


def after_refusal(
    reason: str, past_due_at: datetime, now: datetime, days: tuple[int, ...], advice: str = ""
) -> Decision:
    """`past_due_at` is the first refusal; `days` after it the charge is tried again, then given up."""
    if reason in STOPS or reason in POINTLESS:
        return GiveUp()
    if now >= deadline(past_due_at, days):
        return GiveUp()
    if reason in NEEDS_ANOTHER_METHOD:
        return AskForMethod()
    if reason in NEEDS_THE_CUSTOMER:
        return AskCustomer()
    if advice in ADVICE_AGAINST:
        return AskForMethod()
    later = (past_due_at + timedelta(days=day) for day in sorted(days))
    return Retry(next(at for at in later if at > now))


def deadline(past_due_at: datetime, days: tuple[int, ...]) -> datetime:
    """The last day of the schedule: who has not paid or given another card by then is given up."""
    return past_due_at + timedelta(days=max(days))
