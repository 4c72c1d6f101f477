"""What is true inside the sandbox: mutable objects, money in int minor units, and who is told."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from embedded.stripe_sandbox.exchange import exchanged, told_rate
from embedded.stripe_sandbox.ids import Ids

# A JSON object in one of Stripe's shapes.
JsonObject = dict[str, Any]

API_VERSION = "2026-08-26.dahlia"
# Funds become available two days later, as on Stripe's fast schedule.
SETTLES_AFTER_SECONDS = 2 * 86_400
# Events of these endings say what the object was before.
UPDATES = (".updated", ".captured", ".refunded", ".closed", ".failed")


class IllegalTransition(Exception):
    """Stripe would refuse this; `code` is the code that it would answer with."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Transaction:
    """One movement on the merchant's balance; `amount_minor` is negative when money leaves.

    `moved_minor` is the same in the payment's own currency, where the balance is held in another.
    """

    id: str
    created: int
    kind: str
    category: str
    amount_minor: int
    fee_minor: int
    currency: str
    source: str
    available_on: int
    moved_minor: int
    payout_id: str | None = None
    exchange_rate: float | None = None

    @property
    def net_minor(self) -> int:
        return self.amount_minor - self.fee_minor


@dataclass(frozen=True)
class PaymentError:
    """Why the last attempt failed; `decline_code` is the issuer's word, when there was one."""

    code: str
    message: str
    decline_code: str | None = None
    charge_id: str | None = None
    kind: str = "card_error"


@dataclass
class Charge:
    id: str
    created: int
    intent_id: str
    amount_minor: int
    currency: str
    status: str
    method: str
    captured: bool = False
    captured_minor: int = 0
    error: PaymentError | None = None
    # One for each capture.
    transaction_ids: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    three_d_secure: str | None = None
    mandate_id: str | None = None
    review_id: str | None = None

    @property
    def transaction_id(self) -> str | None:
        """The latest: the one that the charge names."""
        return self.transaction_ids[-1] if self.transaction_ids else None


@dataclass
class Refund:
    id: str
    created: int
    intent_id: str
    charge_id: str
    amount_minor: int
    currency: str
    status: str
    reason: str | None
    metadata: dict[str, str]
    failure_reason: str | None = None
    transaction_id: str | None = None
    failure_transaction_id: str | None = None
    # Of what a partial capture left: nothing of it was ever received.
    is_release: bool = False


@dataclass
class Dispute:
    id: str
    created: int
    intent_id: str
    charge_id: str
    amount_minor: int
    currency: str
    status: str
    reason: str
    has_evidence: bool = False
    livemode: bool = False
    transactions: list[Transaction] = field(default_factory=list)


@dataclass
class Review:
    """Somebody at the merchant is to look at a payment; `closed_reason` once that is over."""

    id: str
    created: int
    intent_id: str
    charge_id: str
    closed_reason: str | None = None


@dataclass
class Customer:
    id: str
    created: int
    metadata: dict[str, str]
    method_id: str | None = None
    account: str | None = None


@dataclass
class Method:
    """A saved payment method; its next attempt ends as the first of `outcomes` says, the last one stays."""

    id: str
    created: int
    kind: str
    outcomes: list[str]
    customer_id: str | None = None
    mandate_id: str | None = None
    account: str | None = None


@dataclass
class Payout:
    id: str
    created: int
    amount_minor: int
    currency: str
    automatic: bool
    transaction_id: str
    arrival_date: int
    status: str = "pending"
    reconciliation: str = "not_applicable"
    failure_code: str | None = None
    failure_transaction_id: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    last_event_at: int = 0
    livemode: bool = False
    account: str | None = None


@dataclass
class Intent:
    id: str
    created: int
    amount_minor: int
    currency: str
    status: str
    capture_method: str
    method_types: list[str]
    metadata: dict[str, str]
    method: str | None = None
    customer: str | None = None
    description: str | None = None
    capturable_minor: int = 0
    received_minor: int = 0
    error: PaymentError | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    charges: list[Charge] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    last_event_at: int = 0
    setup_future_usage: str | None = None
    # To the customer's bank and back; only where that was asked for by name.
    may_redirect: bool = False
    # How the customer proved to be the customer in the attempt under way.
    three_d_secure: str | None = None
    mandate_id: str | None = None
    review: Review | None = None
    invoice_id: str | None = None
    livemode: bool = False
    account: str | None = None
    # The currency of the balance that its money goes to, where that is another one.
    settles_in: str | None = None

    @property
    def latest_charge(self) -> Charge | None:
        return self.charges[-1] if self.charges else None


@dataclass
class Invoice:
    """Of a subscription that Stripe's own billing bills."""

    id: str
    created: int
    subscription: str
    paid_by: Intent | None = None
    paid_at: int | None = None


@dataclass
class InvoicePart:
    """What was paid of an invoice with one PaymentIntent."""

    id: str
    created: int
    invoice: Invoice


@dataclass(frozen=True)
class Request:
    """The API call that caused an event; both null when Stripe, or its dashboard, did it alone."""

    id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Event:
    """One fact as generated: `snapshot` is the object as it was at that moment."""

    id: str
    type: str
    created: int
    intent_id: str
    snapshot: JsonObject
    previous: JsonObject | None
    request: Request
    livemode: bool = False
    account: str | None = None


Sink = Callable[[Event], None]


class Ledger:
    """All objects by id, the simulated clock, and the sink that hears of every event."""

    def __init__(self, ids: Ids, now: int, sink: Sink) -> None:
        self.ids = ids
        self.now = now
        self.sink = sink
        self.request = Request()
        self.intents: dict[str, Intent] = {}
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[str, Dispute] = {}
        self.transactions: dict[str, Transaction] = {}
        self.reviews: dict[str, Review] = {}
        self.invoices: dict[str, Invoice] = {}
        self.invoice_parts: dict[str, InvoicePart] = {}
        self.customers: dict[str, Customer] = {}
        self.methods: dict[str, Method] = {}
        self.payouts: dict[str, Payout] = {}
        # What happens by itself when the clock gets there: (second, number, payment, action).
        self.agenda: list[tuple[int, int, str, str]] = []
        self._told: dict[str, JsonObject] = {}

    def emit(self, type_: str, about: Intent | Payout, snapshot: JsonObject) -> None:
        """Tell the sink.  The events of one payment, or payout, never run backwards in time."""
        about.last_event_at = max(self.now, about.last_event_at)
        told = self._told.get(snapshot["id"])
        self._told[snapshot["id"]] = snapshot
        self.sink(
            Event(
                id=self.ids.new("evt"),
                type=type_,
                created=about.last_event_at,
                intent_id=about.id,
                snapshot=snapshot,
                previous=_changed(type_, told, snapshot),
                request=self.request,
                livemode=about.livemode,
                account=about.account,
            )
        )

    def account_of(self, object_id: str) -> str | None:
        """The connected account that an object belongs to; none is the platform's own."""
        for made in (self.charges, self.refunds, self.disputes, self.reviews):
            if part := made.get(object_id):
                return self.intents[part.intent_id].account
        if transaction := self.transactions.get(object_id):
            return self.account_of(transaction.source)
        paid = self.invoice_parts.get(object_id)
        invoice = paid.invoice if paid else self.invoices.get(object_id)
        if invoice and invoice.paid_by:
            return invoice.paid_by.account
        for owned in (self.intents, self.payouts, self.customers, self.methods):
            if whole := owned.get(object_id):
                return whole.account
        return None

    def later(self, intent: Intent, action: str, after_seconds: int) -> None:
        """Let `action` of `story.ACTIONS` happen when the clock has moved on so far."""
        heapq.heappush(
            self.agenda, (self.now + after_seconds, len(self.transactions), intent.id, action)
        )

    def told(self, object_id: str) -> JsonObject | None:
        """The snapshot that the last event about this object carried."""
        return self._told.get(object_id)

    def book(self, kind: str, category: str, amounts: tuple[int, int], of: Charge | Refund) -> str:
        """Record (amount, fee) on the balance; returns the transaction's id."""
        return self.record(kind, category, amounts, (of.currency, of.id)).id

    def record(
        self, kind: str, category: str, amounts: tuple[int, int], of: tuple[str, str]
    ) -> Transaction:
        """Record (amount, fee) in a currency for a source object."""
        amount_minor, fee_minor = amounts
        currency, source = of
        balance = self._settles_in(source) or currency
        pair = (currency, balance)
        is_exchanged = balance != currency
        if is_exchanged:
            amount_minor = exchanged(amount_minor, pair, self.now)
            fee_minor = exchanged(fee_minor, pair, self.now)
        transaction = Transaction(
            id=self.ids.new("txn"),
            created=self.now,
            kind=kind,
            category=category,
            amount_minor=amount_minor,
            fee_minor=fee_minor,
            currency=balance,
            source=source,
            available_on=self.now + SETTLES_AFTER_SECONDS,
            moved_minor=amounts[0],
            exchange_rate=told_rate(pair, self.now) if is_exchanged else None,
        )
        self.transactions[transaction.id] = transaction
        return transaction

    def _settles_in(self, source: str) -> str | None:
        for made in (self.charges, self.refunds, self.disputes):
            if part := made.get(source):
                return self.intents[part.intent_id].settles_in
        return None


def _changed(type_: str, told: JsonObject | None, snapshot: JsonObject) -> JsonObject | None:
    # Stripe sends previous_attributes with updates, and never with payment_intent.* (24 samples).
    if told is None or not type_.endswith(UPDATES) or type_.startswith("payment_intent."):
        return None
    changed = {key: told.get(key) for key in snapshot if told.get(key) != snapshot[key]}
    return changed or None
