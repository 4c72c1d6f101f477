"""Asking Stripe, between transactions: what an object is now, as a fact like any other."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

import orjson
import stripe
from pydantic import BaseModel, ConfigDict, ValidationError

from services.payments.gateway.away import StripeAway, away, bar_of
from services.payments.gateway.question import Question, list_of
from shared.errors import FareboxError

# Stripe answers in well under a second; a worker waits no longer than its lease lasts.
TIMEOUT_SECONDS = 8.0
ANSWER_TYPES = {
    "payment_intent": "farebox.payment_retrieved",
    "charge": "farebox.charge_retrieved",
    "refund": "farebox.refund_retrieved",
    "dispute": "farebox.dispute_retrieved",
    "review": "farebox.review_retrieved",
    "invoice": "farebox.invoice_retrieved",
    "invoice_payment": "farebox.invoice_payment_retrieved",
    "balance_transaction": "farebox.balance_transaction_retrieved",
    "list": "farebox.list_retrieved",
}


# Stripe keeps events for 30 days; of a busier month the newest this many pages of 100 are read.
PAGES = 500
# Of what was no answer: enough to recognise it.
SHOWN_CHARACTERS = 80
# Of one payment's refunds; a payment with more of them than 2,000 is one for an operator.
LIST_PAGES = 20
PAGE_ITEMS = 100
NOTHING: Mapping[str, str] = MappingProxyType({})
# What the webhook endpoint is subscribed to at the least (README, "Stripe").
SUBSCRIBED = ("payment_intent.", "charge.", "refund.")


class UnknownToStripe(FareboxError):
    status = 404
    title = "Stripe knows no such object"


class Item(BaseModel):
    """One of a list, with all that Stripe says of it."""

    model_config = ConfigDict(extra="allow")
    id: str


class ItemPage(BaseModel):
    data: list[Item]
    has_more: bool


class EventHead(BaseModel):
    id: str
    type: str


class EventPage(BaseModel):
    data: list[EventHead]
    has_more: bool


class Delivered(list[str]):
    """Ids of events; `is_cut` where Stripe has more than were read, all of them older."""

    is_cut = False


Page = TypeVar("Page", bound=BaseModel)


def mode_of(api_key: str) -> bool | None:
    """True for a key of live mode, False for one of test mode, None where it does not say."""
    match api_key.split("_"):
        case ["sk" | "rk", "live", *_]:
            return True
        case ["sk" | "rk", "test", *_]:
            return False
        case _:
            return None


class StripeClient:
    """Raw answers of Stripe's API; stripe-python's retries and idempotency, bounded in time."""

    def __init__(self, api_key: str, api_base: str | None) -> None:
        http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        self.close: Callable[[], Awaitable[None]] = http.close_async
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else None,
            http_client=http,
            max_network_retries=1,
        )

    async def ask(self, question: Question) -> bytes:
        """The object, or the whole list, as Stripe tells it.  Raises StripeAway or UnknownToStripe."""
        listed = list_of(question.subject)
        if listed is None:
            return await self._get(question.subject, question.account)
        items: list[Item] = []
        after: dict[str, str] = {}
        for _ in range(LIST_PAGES):
            only = {listed.by: listed.name, "limit": str(PAGE_ITEMS), **after}
            page = await self.page(listed.path, question.account, only)
            items += page.data
            if not page.has_more:
                data = [item.model_dump() for item in items]
                return orjson.dumps({"object": "list", "data": data})
            after = {"starting_after": items[-1].id}
        raise StripeAway(f"{listed.name} has more than {len(items)} of {listed.path}")

    async def page(self, path: str, account: str | None, only: Mapping[str, str]) -> ItemPage:
        """One page of a list; `only` are its parameters.  Raises StripeAway or UnknownToStripe."""
        return _page(ItemPage, await self._get(path, account, only))

    async def item(self, path: str, account: str | None) -> dict[str, object]:
        """One object.  Raises StripeAway or UnknownToStripe."""
        return _page(Item, await self._get(path, account)).model_dump()

    async def _get(
        self, path: str, account: str | None, only: Mapping[str, str] = NOTHING
    ) -> bytes:
        try:
            response = await self._client.raw_request_async(
                "get", path, stripe_account=account, **only
            )
        except stripe.InvalidRequestError as error:
            # A parameter that names nothing is answered 400.
            is_missing = error.http_status == 404 or error.code == "resource_missing"
            if is_missing and bar_of(error) is None:
                raise UnknownToStripe(f"Stripe: {error.user_message or error}") from error
            raise away(error) from error
        except stripe.StripeError as error:
            raise away(error) from error
        except UnicodeDecodeError as error:
            raise StripeAway("Stripe answered with no text") from error
        body: str = response.body
        return body.encode()

    async def post(
        self, path: str, parameters: Mapping[str, object], key: str, account: str | None
    ) -> bytes:
        """What Stripe answers; raises stripe.StripeError, which `doing` tells apart."""
        response = await self._client.raw_request_async(
            "post", path, stripe_account=account, idempotency_key=key, **parameters
        )
        body: str = response.body
        return body.encode()

    async def delivered(self, since: datetime) -> Delivered:
        """Ids of the events created at or after `since` that Stripe has a 2xx for.  Raises StripeAway."""
        ids = Delivered()
        after: dict[str, str] = {}
        for _ in range(PAGES):
            page = await self._events(int(since.timestamp()), after)
            ids += [each.id for each in page.data if each.type.startswith(SUBSCRIBED)]
            if not page.has_more:
                return ids
            after = {"starting_after": page.data[-1].id}
        ids.is_cut = True
        return ids

    async def _events(self, since: int, after: dict[str, str]) -> EventPage:
        try:
            response = await self._client.raw_request_async(
                "get",
                "/v1/events",
                limit=100,
                delivery_success=True,
                created={"gte": since},
                **after,
            )
        except stripe.StripeError as error:
            raise away(error) from error
        except UnicodeDecodeError as error:
            raise StripeAway("Stripe answered with no text") from error
        return _page(EventPage, response.body)


def _page(shape: type[Page], body: str | bytes) -> Page:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        raise StripeAway(f"Stripe answered with no list: {_short(body)}") from error


def answer_body(
    question: Question, answer: bytes, at: datetime, seen_at: datetime | None = None
) -> bytes:
    """Stripe's answer as an event, so that replaying all events rebuilds what it settled.

    It counts as told at `at`, also where it was only `seen_at` later.
    Raises StripeAway for what is none: whoever said it instead of Stripe may not do so the next time.
    """
    try:
        told = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise StripeAway(f"Stripe answered with no JSON: {_short(answer)}") from error
    kind = told.get("object") if isinstance(told, dict) else None
    is_list = list_of(question.subject) is not None
    if kind not in ANSWER_TYPES or (kind == "list") != is_list:
        raise StripeAway(f"Stripe answered with no object of a payment: {_short(answer)}")
    asked = {
        "phase": question.phase,
        "second": question.second,
        "at": int(at.timestamp()),
        "about": question.subject,
    }
    if seen_at is not None:
        asked["seen_at"] = int(seen_at.timestamp())
    event = {
        "id": question.event_id,
        "object": "event",
        "type": ANSWER_TYPES[kind],
        "created": int(at.timestamp()),
        "livemode": question.livemode,
        "account": question.account,
        "api_version": stripe.api_version,
        "asked": asked,
        "data": {"object": told},
    }
    return orjson.dumps(event)


def _short(body: str | bytes) -> str:
    return repr(body[:SHOWN_CHARACTERS])
