"""What Stripe can be asked about, and the place that its answer takes among the facts."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from shared.events import derived_id

REFUNDS_OF = "/v1/refunds?payment_intent="
DISPUTES_OF = "/v1/disputes?payment_intent="
BOOKED_FOR = "/v1/balance_transactions?source="
# A charge is expanded with its balance transaction: only in answers to us does Stripe show the fee.
SETTLED = "?expand[]=latest_charge.balance_transaction"
THIN_ABOUT = (
    "payment_intents",
    "charges",
    "refunds",
    "disputes",
    "reviews",
    "invoices",
    "invoice_payments",
)
SUBJECT = re.compile(rf"^/v1/({'|'.join(THIN_ABOUT)})/\w{{1,255}}$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Question:
    """`subject` is asked about because of something that happened at `second`, in `phase` of the payment."""

    subject: str
    phase: int
    second: int
    livemode: bool
    account: str | None

    @property
    def event_id(self) -> str:
        """One question has one answer, whoever asks it how often."""
        return f"farebox_{derived_id('stripe.answer', self.subject, self.phase, self.second).hex}"


def subject_of(path: str) -> str | None:
    """What to ask for where only the object's address is told; none where it is of no payment."""
    kind = SUBJECT.match(path)
    if kind is None:
        return None
    return invoice_subject(path.rpartition("/")[2]) if kind[1] == "invoices" else path


def payment_subject(payment: str) -> str:
    return f"/v1/payment_intents/{payment}"


def charge_subject(charge: str) -> str:
    return f"/v1/charges/{charge}"


def refunds_subject(payment: str) -> str:
    """All refunds of a payment, as a list."""
    return REFUNDS_OF + payment


def disputes_subject(payment: str) -> str:
    """All disputes of a payment, as a list."""
    return DISPUTES_OF + payment


def settled_subject(payment: str) -> str:
    """A payment with its last charge, and that with what Stripe kept of it."""
    return payment_subject(payment) + SETTLED


def invoice_subject(invoice: str) -> str:
    """An invoice with its payments, which since 2025-03-31 it shows only where it is asked to."""
    return f"/v1/invoices/{invoice}?expand[]=payments"


def transaction_subject(transaction: str) -> str:
    """One movement on the balance, with Stripe's fee."""
    return f"/v1/balance_transactions/{transaction}"


def booked_subject(charge: str) -> str:
    """All that was booked for a charge, as a list."""
    return BOOKED_FOR + charge


class Listed(NamedTuple):
    """A list that was asked for: of everything under `path` whose `by` is `name`."""

    path: str
    by: str
    name: str


def list_of(subject: str) -> Listed | None:
    """None where it was no list."""
    for prefix in (REFUNDS_OF, DISPUTES_OF, BOOKED_FOR):
        if subject.startswith(prefix):
            path, _, by = prefix.removesuffix("=").partition("?")
            return Listed(path, by, subject.removeprefix(prefix))
    return None
