"""Stripe's lists, a page at a time, within a window that no longer moves; what they show, as facts like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from services.payments.gateway.away import StripeAway
from services.payments.gateway.client import PAGE_ITEMS, StripeClient, answer_body
from services.payments.gateway.envelope import NotAnEvent, open_envelope
from services.payments.gateway.question import Question

Kind = Literal[
    "events", "payments", "refunds", "disputes", "invoice_payments", "payouts", "lines",
]  # fmt: skip
JsonObject = Mapping[str, object]

PATHS: Mapping[Kind, str] = {
    "events": "/v1/events",
    "payments": "/v1/payment_intents",
    "refunds": "/v1/refunds",
    "disputes": "/v1/disputes",
    "invoice_payments": "/v1/invoice_payments",
    "payouts": "/v1/payouts",
    "lines": "/v1/balance_transactions",
}
# A payment with what Stripe kept of it, and whether somebody looks at it; a line with what it is about.
EXPANDED: Mapping[Kind, Sequence[str]] = {
    "payments": ("data.latest_charge.balance_transaction", "data.latest_charge.review"),
    "lines": ("data.source",),
}
# Of what a payment is made; whatever else an account tells, nobody misses here.
CONCERNED = ("payment_intent.", "charge.", "refund.", "review.", "invoice.", "invoice_payment.")


@dataclass(frozen=True, slots=True)
class Listing:
    """What to walk: objects created from `since` to `until`, both included, or the lines of one payout."""

    kind: Kind
    account: str | None
    since: datetime | None = None
    until: datetime | None = None
    payout: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Newest first; `next` is the `after` of the following page, none on the last."""

    items: Sequence[JsonObject]
    next: str | None


async def page_of(client: StripeClient, listing: Listing, after: str | None) -> Page:
    """Raises StripeAway, or UnknownToStripe where `after` has left the list."""
    only = {"limit": str(PAGE_ITEMS)}
    if listing.since is not None:
        only["created[gte]"] = str(int(listing.since.timestamp()))
    if listing.until is not None:
        only["created[lte]"] = str(int(listing.until.timestamp()))
    if listing.payout is not None:
        only["payout"] = listing.payout
    for number, each in enumerate(EXPANDED.get(listing.kind, ())):
        only[f"expand[{number}]"] = each
    if after is not None:
        only["starting_after"] = after
    page = await client.page(PATHS[listing.kind], listing.account, only)
    more = page.data[-1].id if page.has_more and page.data else None
    return Page([item.model_dump() for item in page.data], more)


def is_concerned(event: JsonObject) -> bool:
    return str(event.get("type")).startswith(CONCERNED)


def event_body(event: JsonObject, account: str | None) -> bytes:
    """An event of the list as it would have been delivered: an account's own list need not name the account.

    Raises StripeAway for what is no event.
    """
    body = orjson.dumps({**event, "account": event.get("account") or account})
    try:
        open_envelope(body)
    except NotAnEvent as error:
        raise StripeAway(f"Stripe listed something else than an event: {error.detail}") from error
    return body


@dataclass(frozen=True, slots=True)
class Seen:
    """An object in a list, asked for at `at`, after `until`: it is at least as new as that."""

    kind: Kind
    item: JsonObject
    account: str | None
    until: datetime
    at: datetime

    @property
    def id(self) -> str:
        return str(self.item["id"])

    @property
    def subject(self) -> str:
        return f"{PATHS[self.kind]}/{self.id}"

    @property
    def payment(self) -> str | None:
        """None for what came of a charge without a PaymentIntent."""
        place: object = self.item
        if self.kind == "invoice_payments":
            place = self.item.get("payment")
        name = "id" if self.kind == "payments" else "payment_intent"
        named = place.get(name) if isinstance(place, dict) else None
        return str(named) if named else None

    def body(self, livemode: bool) -> bytes:
        """The object as Stripe's answer at `until`; `livemode` is for those that do not say it.  Raises StripeAway."""
        said = self.item.get("livemode")
        mode = said if isinstance(said, bool) else livemode
        second = int(self.until.timestamp())
        question = Question(self.subject, 0, second, mode, self.account)
        return answer_body(question, orjson.dumps(self.item), self.until, self.at)
