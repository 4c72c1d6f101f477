"""What Stripe can be asked about, and the place that its answer takes among the facts."""

import re
from dataclasses import dataclass

from shared.events import derived_id

REFUNDS_OF = "/v1/refunds?payment_intent="
SUBJECT = re.compile(r"^/v1/(payment_intents|charges|refunds|disputes)/\w{1,255}$", re.ASCII)


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


def is_subject(path: str) -> bool:
    return SUBJECT.match(path) is not None


def payment_subject(payment: str) -> str:
    return f"/v1/payment_intents/{payment}"


def charge_subject(charge: str) -> str:
    return f"/v1/charges/{charge}"


def refunds_subject(payment: str) -> str:
    """All refunds of a payment, as a list."""
    return REFUNDS_OF + payment


def listed_payment(subject: str) -> str | None:
    """The payment whose refunds were asked for; None where it was something else."""
    return subject.removeprefix(REFUNDS_OF) if subject.startswith(REFUNDS_OF) else None
