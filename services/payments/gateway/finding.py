"""Finding out what became of an order whose key Stripe may have forgotten, before it is asked again."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from services.payments.gateway.away import StripeAway
from services.payments.gateway.client import (
    PAGE_ITEMS,
    PAGES,
    Item,
    StripeClient,
    UnknownToStripe,
)
from services.payments.gateway.doing import Done, Refused
from services.payments.gateway.question import Question, payment_subject
from shared.money import currency_code, from_stripe

# Metadata by which an order's effect is known again.  A capture writes on a payment that has the first one already.
ORDER_KEY = "farebox_order"
CAPTURE_KEY = "farebox_capture"
# Stripe's clock and ours may differ, and a payment is no older than its order.
CLOCKS_DIFFER = timedelta(minutes=10)


class Intent(BaseModel):
    model_config = ConfigDict(extra="ignore")
    status: str
    amount: int
    currency: str
    metadata: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Lost:
    """An order that Stripe was asked for at `asked_at`, and of whose outcome nothing is known."""

    id: UUID
    kind: str
    parameters: Mapping[str, object]
    stripe_payment_id: str | None
    account: str | None
    asked_at: datetime


async def find(client: StripeClient, lost: Lost) -> Done | Refused | None:
    """What became of it; None where Stripe has not done it.  Raises StripeAway."""
    match lost.kind:
        case "create":
            since = str(int((lost.asked_at - CLOCKS_DIFFER).timestamp()))
            only = {"created[gte]": since}
            customer = lost.parameters.get("customer")
            if isinstance(customer, str):
                only["customer"] = customer
            return await _marked(client, "/v1/payment_intents", lost, only)
        case "refund":
            only = {"payment_intent": lost.stripe_payment_id or ""}
            return await _marked(client, "/v1/refunds", lost, only)
        case _:
            return await _seen_on_payment(client, lost)


async def _marked(
    client: StripeClient, path: str, lost: Lost, only: Mapping[str, str]
) -> Done | None:
    async for item in _all(client, path, lost.account, only):
        shown = item.model_dump()
        metadata = shown.get("metadata")
        if isinstance(metadata, dict) and metadata.get(ORDER_KEY) == str(lost.id):
            return Done(orjson.dumps(shown))
    return None


async def _all(
    client: StripeClient, path: str, account: str | None, only: Mapping[str, str]
) -> AsyncIterator[Item]:
    after: dict[str, str] = {}
    for _ in range(PAGES):
        page = await client.page(path, account, {**only, "limit": str(PAGE_ITEMS), **after})
        for item in page.data:
            yield item
        if not page.has_more:
            return
        after = {"starting_after": page.data[-1].id}
    raise StripeAway(f"{path} has more than can be looked through for an order")


async def amount_of(client: StripeClient, payment: str, account: str | None) -> tuple[int, str]:
    """What the payment is over now: amount in minor units, currency.  Raises StripeAway."""
    try:
        _, now = await _intent(client, payment, account)
    except UnknownToStripe as unknown:
        raise StripeAway(unknown.detail) from unknown
    currency = currency_code(now.currency)
    return from_stripe(now.amount, currency), currency


async def _intent(client: StripeClient, payment: str, account: str | None) -> tuple[bytes, Intent]:
    question = Question(payment_subject(payment), 0, 0, livemode=False, account=account)
    body = await client.ask(question)
    try:
        return body, Intent.model_validate_json(body)
    except ValidationError as error:
        raise StripeAway("Stripe answered with no payment") from error


async def _seen_on_payment(client: StripeClient, lost: Lost) -> Done | Refused | None:
    """Confirmed, captured and canceled stand on the payment itself."""
    try:
        body, now = await _intent(client, lost.stripe_payment_id or "", lost.account)
    except UnknownToStripe as unknown:
        return Refused("resource_missing", None, unknown.detail, 404, None)
    match lost.kind:
        case "confirm" if now.status.startswith("requires_") and now.status not in (
            "requires_action",
            "requires_capture",
        ):
            # Whoever confirmed it has long gone: nobody is charged a day later for a click.
            message = "too old to be confirmed now: confirm it again"
            return Refused("confirmation_expired", None, message, 409, body)
        case "cancel" if now.status != "canceled":
            return None
        case "capture" if now.metadata.get(CAPTURE_KEY) == str(lost.id):
            return Done(body)
        case "capture" if now.status == "requires_capture":
            return None
        case "capture":
            message = f"it is {now.status}, and not by this order"
            return Refused("payment_intent_unexpected_state", None, message, 409, body)
        case _:
            return Done(body)
