"""What Stripe answered to an order, as a fact like any other: the fold need not wait for the webhook."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson
import stripe
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from services.payments.gateway.away import StripeAway
from services.payments.gateway.doing import Done, Refused
from shared.events import derived_id

# Which of Stripe's own events says the same: the fold ranks two of one second by what they are about.
NEWS = {
    "requires_action": "requires_action",
    "processing": "processing",
    "requires_capture": "amount_capturable_updated",
    "succeeded": "succeeded",
    "canceled": "canceled",
}


class Told(BaseModel):
    """The head of the object that Stripe answered with."""

    model_config = ConfigDict(extra="ignore")
    id: str
    object: str
    created: int
    status: str | None = None
    livemode: bool | None = None
    last_payment_error: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asked for what, and since when; `livemode` is the payment's, where its object does not say."""

    order_id: UUID
    is_create: bool
    asked_at: datetime
    livemode: bool
    account: str | None


def answer_id(order_id: UUID) -> str:
    """One order has one answer, whoever asks how often."""
    return f"farebox_{derived_id('stripe.ordered', order_id).hex}"


def told_of(outcome: Done | Refused) -> Told | None:
    """The object in the answer; None where Stripe showed none.  Raises StripeAway for what is no object of a payment."""
    if outcome.body is None:
        return None
    try:
        told = Told.model_validate_json(outcome.body)
    except ValidationError as error:
        raise StripeAway("Stripe answered with no object of a payment") from error
    if told.object not in ("payment_intent", "refund"):
        raise StripeAway(f"Stripe answered with a {told.object}")
    return told


def ordered_body(asking: Asking, outcome: Done | Refused) -> bytes | None:
    """The answer as an event; None where it shows no object.  Raises StripeAway.

    Its second is the earliest at which Stripe can have done it: a repeated answer is as old as the first, and must
    not hide what happened since.
    """
    told = told_of(outcome)
    if told is None:
        return None
    second = told.created
    if not asking.is_create and told.object == "payment_intent":
        second = max(second, int(asking.asked_at.timestamp()))
    livemode = told.livemode if told.livemode is not None else asking.livemode
    event = {
        "id": answer_id(asking.order_id),
        "object": "event",
        "type": f"farebox.ordered.{_news(told)}",
        "created": second,
        "livemode": livemode,
        "account": asking.account,
        "api_version": stripe.api_version,
        "data": {"object": orjson.loads(outcome.body or b"null")},
    }
    return orjson.dumps(event)


def _news(told: Told) -> str:
    if told.object == "refund":
        return "refund"
    if told.last_payment_error and told.status == "requires_payment_method":
        return "payment_failed"
    return NEWS.get(told.status or "", "created")
