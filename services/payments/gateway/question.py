"""What Stripe can be asked about, and the place that its answer takes among the facts."""

import re
from dataclasses import dataclass

from shared.events import derived_id

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
