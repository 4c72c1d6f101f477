"""What may happen to a PaymentIntent, and the events that Stripe sends when it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedded.stripe_sandbox.fees import charge_fee
from embedded.stripe_sandbox.ledger import (
    Charge,
    IllegalTransition,
    Intent,
    Ledger,
    PaymentError,
    Refund,
)
from embedded.stripe_sandbox.reviews import close_if_open
from embedded.stripe_sandbox.shapes import refund_json, tell_charge, tell_intent
from embedded.stripe_sandbox.truth import AUTHENTICATION_FAILED_CODE

CONFIRMABLE = ("requires_payment_method", "requires_confirmation")
ATTEMPTABLE = (*CONFIRMABLE, "requires_action")
# Stripe's name for what a customer transfers from a bank.
TRANSFER = "customer_balance"
CANCELABLE = (*ATTEMPTABLE, "requires_capture", "processing")
AUTHENTICATION_FAILED = PaymentError(
    code=AUTHENTICATION_FAILED_CODE,
    message="The provided payment method has failed authentication.",
    kind="invalid_request_error",
)


@dataclass(frozen=True)
class Order:
    """What a caller asks a PaymentIntent to be; currency in lower case, as Stripe keeps it."""

    amount_minor: int
    currency: str
    capture_method: str = "automatic_async"
    method: str | None = None
    method_types: Sequence[str] = ("card",)
    metadata: Mapping[str, str] = field(default_factory=dict)
    customer: str | None = None
    description: str | None = None
    setup_future_usage: str | None = None
    may_redirect: bool = False
    invoice_id: str | None = None
    livemode: bool = False
    account: str | None = None
    settles_in: str | None = None


def create(ledger: Ledger, order: Order) -> Intent:
    intent = Intent(
        id=ledger.ids.new("pi"),
        created=ledger.now,
        amount_minor=order.amount_minor,
        currency=order.currency,
        status="requires_confirmation" if order.method else "requires_payment_method",
        capture_method=order.capture_method,
        method_types=list(order.method_types),
        metadata=dict(order.metadata),
        method=order.method,
        customer=order.customer,
        description=order.description,
        setup_future_usage=order.setup_future_usage,
        may_redirect=order.may_redirect,
        invoice_id=order.invoice_id,
        livemode=order.livemode,
        account=order.account,
        settles_in=order.settles_in,
    )
    ledger.intents[intent.id] = intent
    tell_intent(ledger, "created", intent)
    return intent


def require_confirmable(intent: Intent) -> None:
    _require(intent, CONFIRMABLE, "confirmed")


def require_open(intent: Intent) -> None:
    _require(intent, ATTEMPTABLE, "changed")


def require_action(ledger: Ledger, intent: Intent) -> None:
    """The bank wants the customer: 3-D Secure."""
    _require(intent, CONFIRMABLE, "confirmed")
    intent.status = "requires_action"
    intent.method = intent.method or "pm_card_threeDSecure2Required"
    intent.error = None
    tell_intent(ledger, "requires_action", intent)


def await_transfer(ledger: Ledger, intent: Intent) -> None:
    """The customer is told where to transfer the money to."""
    _require(intent, CONFIRMABLE, "confirmed")
    intent.status, intent.method_types, intent.error = "requires_action", [TRANSFER], None
    tell_intent(ledger, "requires_action", intent)


def fund_partly(ledger: Ledger, intent: Intent) -> None:
    """Some of a bank transfer came: told, though neither status nor amounts say so."""
    _require(intent, ("requires_action",), "funded")
    if intent.method_types[0] != TRANSFER:
        raise IllegalTransition("Only bank transfers come in parts.", "parameter_invalid")
    tell_intent(ledger, "partially_funded", intent)


def start_debit(ledger: Ledger, intent: Intent, method: str = "sepa_debit") -> None:
    """A bank debit is on its way; the answer comes days later."""
    _require(intent, ATTEMPTABLE, "confirmed")
    intent.status, intent.error = "processing", None
    intent.method_types = [method]
    # A debit needs the customer's mandate; a saved method brings its own.
    intent.mandate_id = intent.mandate_id or ledger.ids.new("mandate")
    charge = _new_charge(ledger, intent, "pending")
    tell_intent(ledger, "processing", intent)
    tell_charge(ledger, "pending", intent, charge)


def succeed(ledger: Ledger, intent: Intent) -> None:
    """The money is there, at once, or authorised when capture is manual."""
    if intent.status == "processing":
        _settle_debit(ledger, intent)
        return
    _require(intent, ATTEMPTABLE, "confirmed")
    intent.error = None
    if intent.status == "requires_action" and intent.method_types[0] == "card":
        intent.three_d_secure = "authenticated"
    charge = _new_charge(ledger, intent, "succeeded")
    if intent.capture_method == "manual":
        intent.status, intent.capturable_minor = "requires_capture", intent.amount_minor
        tell_charge(ledger, "succeeded", intent, charge)
        tell_intent(ledger, "amount_capturable_updated", intent)
        return
    _take(ledger, intent, charge, intent.amount_minor)
    intent.status = "succeeded"
    if intent.capture_method == "automatic":
        book_fee(ledger, intent)
    tell_charge(ledger, "succeeded", intent, charge)
    tell_intent(ledger, "succeeded", intent)


def _settle_debit(ledger: Ledger, intent: Intent) -> None:
    charge = latest_charge(intent)
    charge.status = "succeeded"
    _take(ledger, intent, charge, intent.amount_minor)
    book_fee(ledger, intent)
    intent.status = "succeeded"
    tell_charge(ledger, "succeeded", intent, charge)
    tell_intent(ledger, "succeeded", intent)


def fail(ledger: Ledger, intent: Intent, error: PaymentError) -> None:
    """An attempt failed.  The PaymentIntent lives on and may succeed with its next attempt."""
    _require(intent, (*ATTEMPTABLE, "processing"), "confirmed")
    charge = _failed_charge(ledger, intent, error)
    intent.error = PaymentError(
        error.code, error.message, error.decline_code, charge.id if charge else None, error.kind
    )
    intent.status = "requires_payment_method"
    if charge is not None:
        charge.error = error
        tell_charge(ledger, "failed", intent, charge)
    intent.method, intent.three_d_secure, intent.mandate_id = None, None, None
    tell_intent(ledger, "payment_failed", intent)


def _failed_charge(ledger: Ledger, intent: Intent, error: PaymentError) -> Charge | None:
    if intent.status == "processing":
        charge = latest_charge(intent)
        charge.status = "failed"
        return charge
    # Nobody was asked for money when the customer did not pass authentication.
    if error.code == AUTHENTICATION_FAILED.code:
        return None
    return _new_charge(ledger, intent, "failed")


def book_fee(ledger: Ledger, intent: Intent) -> None:
    """Attach the balance transaction; with asynchronous capture this comes a little later."""
    charge = latest_charge(intent)
    fee_minor = charge_fee(charge.captured_minor, charge.currency)
    amounts = (charge.captured_minor, fee_minor)
    charge.transaction_ids.append(ledger.book(_kind(charge), "charge", amounts, charge))


def settle(ledger: Ledger, intent: Intent) -> None:
    charge = latest_charge(intent)
    if charge.captured and charge.transaction_id is None:
        book_fee(ledger, intent)
        tell_charge(ledger, "updated", intent, charge)


def capture(ledger: Ledger, intent: Intent, amount_minor: int | None, final: bool = True) -> None:
    """Take an authorised amount, all by default.  What a final capture leaves is released."""
    taken_minor = _capturable(intent, amount_minor)
    charge = latest_charge(intent)
    _take(ledger, intent, charge, taken_minor)
    intent.capturable_minor -= taken_minor
    fee_minor = charge_fee(taken_minor, charge.currency)
    booked = ledger.book(_kind(charge), "charge", (taken_minor, fee_minor), charge)
    charge.transaction_ids.append(booked)
    if not final and intent.capturable_minor > 0:
        tell_charge(ledger, "updated", intent, charge)
        tell_intent(ledger, "amount_capturable_updated", intent)
        return
    intent.capturable_minor, intent.status = 0, "succeeded"
    tell_charge(ledger, "captured", intent, charge)
    tell_intent(ledger, "succeeded", intent)


def capture_and_refund(ledger: Ledger, intent: Intent, amount_minor: int) -> None:
    """As it was until 2025-03-31: all is booked, and what was not taken is booked back as a refund."""
    taken_minor = _capturable(intent, amount_minor)
    charge, left_minor = latest_charge(intent), intent.capturable_minor - taken_minor
    _take(ledger, intent, charge, taken_minor)
    fee_minor = charge_fee(charge.amount_minor, charge.currency)
    amounts = (charge.amount_minor, fee_minor)
    charge.transaction_ids.append(ledger.book(_kind(charge), "charge", amounts, charge))
    intent.capturable_minor, intent.status = 0, "succeeded"
    made = release(ledger, intent, charge, left_minor) if left_minor else None
    tell_charge(ledger, "captured", intent, charge)
    if made is not None:
        tell_charge(ledger, "refunded", intent, charge)
        ledger.emit("refund.created", intent, refund_json(made))
    tell_intent(ledger, "succeeded", intent)


def _capturable(intent: Intent, amount_minor: int | None) -> int:
    _require(intent, ("requires_capture",), "captured")
    wanted_minor = intent.capturable_minor if amount_minor is None else amount_minor
    if not 0 < wanted_minor <= intent.capturable_minor:
        raise IllegalTransition(
            f"The amount to capture, {wanted_minor}, is not within the "
            f"{intent.capturable_minor} that can be captured.",
            "amount_too_large" if wanted_minor > 0 else "parameter_invalid_integer",
        )
    return wanted_minor


def release(ledger: Ledger, intent: Intent, charge: Charge, left_minor: int) -> Refund:
    made = Refund(
        id=ledger.ids.new("re"),
        created=ledger.now,
        intent_id=intent.id,
        charge_id=charge.id,
        amount_minor=left_minor,
        currency=intent.currency,
        status="succeeded",
        reason=None,
        metadata={},
        is_release=True,
    )
    returned_minor = charge_fee(charge.amount_minor, charge.currency) - charge_fee(
        charge.captured_minor, charge.currency
    )
    made.transaction_id = ledger.book("refund", "refund", (-left_minor, -returned_minor), made)
    intent.refunds.append(made)
    ledger.refunds[made.id] = made
    return made


def increase_authorization(ledger: Ledger, intent: Intent, amount_minor: int) -> None:
    """Authorise up to a new, greater total."""
    _require(intent, ("requires_capture",), "incremented")
    if amount_minor <= intent.amount_minor:
        raise IllegalTransition(
            f"The new amount must be greater than {intent.amount_minor}.",
            "parameter_invalid_integer",
        )
    intent.capturable_minor += amount_minor - intent.amount_minor
    intent.amount_minor = amount_minor
    charge = latest_charge(intent)
    charge.amount_minor = amount_minor
    tell_charge(ledger, "updated", intent, charge)
    tell_intent(ledger, "amount_capturable_updated", intent)


def cancel(ledger: Ledger, intent: Intent, reason: str | None) -> None:
    _require(intent, CANCELABLE, "canceled")
    if intent.received_minor:
        raise IllegalTransition(
            "A PaymentIntent that was captured in part can only be captured to its end.",
            "payment_intent_unexpected_state",
        )
    authorized = intent.status == "requires_capture"
    _end(ledger, intent, reason)
    close_if_open(ledger, intent, "canceled")
    if authorized:
        # Releasing an authorisation comes as a refund of a charge that was never captured.
        tell_charge(ledger, "refunded", intent, latest_charge(intent))
    tell_intent(ledger, "canceled", intent)


def expire(ledger: Ledger, intent: Intent) -> None:
    """An authorisation lapsed before it was captured."""
    _require(intent, ("requires_capture",), "expired")
    _end(ledger, intent, "automatic")
    tell_charge(ledger, "expired", intent, latest_charge(intent))
    tell_intent(ledger, "canceled", intent)


def _end(ledger: Ledger, intent: Intent, reason: str | None) -> None:
    if intent.status == "processing":
        latest_charge(intent).status = "failed"
    intent.status, intent.capturable_minor = "canceled", 0
    intent.canceled_at, intent.cancellation_reason = ledger.now, reason


def _new_charge(ledger: Ledger, intent: Intent, status: str) -> Charge:
    charge = Charge(
        id=ledger.ids.new("ch" if intent.method_types[0] == "card" else "py"),
        created=ledger.now,
        intent_id=intent.id,
        amount_minor=intent.amount_minor,
        currency=intent.currency,
        status=status,
        method=intent.method_types[0],
        metadata=dict(intent.metadata),
        three_d_secure=intent.three_d_secure,
        mandate_id=intent.mandate_id,
    )
    intent.charges.append(charge)
    ledger.charges[charge.id] = charge
    return charge


def _kind(charge: Charge) -> str:
    """What Stripe calls the balance transaction: only cards are charged, the rest are payments."""
    return "charge" if charge.method == "card" else "payment"


def _take(ledger: Ledger, intent: Intent, charge: Charge, amount_minor: int) -> None:
    charge.captured = True
    charge.captured_minor += amount_minor
    intent.received_minor += amount_minor


def latest_charge(intent: Intent) -> Charge:
    charge = intent.latest_charge
    if charge is None:
        raise IllegalTransition("This PaymentIntent has no charge.", "resource_missing")
    return charge


def _require(intent: Intent, statuses: Sequence[str], verb: str) -> None:
    if intent.status not in statuses:
        raise IllegalTransition(
            f"This PaymentIntent's status is {intent.status}; it cannot be {verb}.",
            "payment_intent_unexpected_state",
        )
