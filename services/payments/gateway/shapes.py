"""The parts of Stripe's objects that tell of money, in every API version since 2017.

Fields that came or went with a version are optional; a reference may be an id or the whole object; whatever else
Stripe says is left unread.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.payments.gateway.envelope import account_of


def _id_of(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


def _page(value: object) -> object:
    """A list object's items; absent, null and empty lists are alike."""
    return (value.get("data") if isinstance(value, dict) else value) or []


def _method(value: object) -> object:
    """What a charge was paid with; of the kind's own part only what is read here, whichever kind it is."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    own = value.get(kind) if isinstance(kind, str) else None
    # What was read once and written down again has no part of its own any more.
    part = own if isinstance(own, dict) else value
    return {
        "type": kind,
        "three_d_secure": _result(part.get("three_d_secure")),
        "mandate": part.get("mandate"),
    }


def _result(value: object) -> object:
    """How 3-D Secure ended.  Until 2019 it was said in two yes or no."""
    if not isinstance(value, dict):
        return value
    if "result" in value or "succeeded" not in value:
        return value.get("result")
    if not value["succeeded"]:
        return "failed"
    return "authenticated" if value.get("authenticated") else "attempt_acknowledged"


def _object(value: object) -> object:
    """A whole object; where only its id is given, nothing is read of it."""
    return value if isinstance(value, dict) else None


def _texts(value: object) -> object:
    """Metadata are texts; whatever else somebody put among them names nothing of ours."""
    if not isinstance(value, dict):
        return {}
    return {name: each for name, each in value.items() if isinstance(each, str)}


Reference = Annotated[str | None, BeforeValidator(_id_of)]
Seconds = Annotated[int, Field(ge=0, lt=2**40)]
Amount = Annotated[int, Field(ge=0, lt=2**53)]
SignedAmount = Annotated[int, Field(gt=-(2**53), lt=2**53)]
Metadata = Annotated[dict[str, str], BeforeValidator(_texts)]


class Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class BalanceTransaction(Shape):
    object: Literal["balance_transaction"] = "balance_transaction"
    id: str
    amount: SignedAmount
    created: Seconds
    currency: str
    fee: SignedAmount = 0
    net: SignedAmount = 0
    source: Reference = None
    type: str | None = None


class MethodDetails(Shape):
    type: str | None = None
    three_d_secure: str | None = None
    mandate: Reference = None


class Source(Shape):
    """What cards and bank debits were called until 2019; a card is an object of its own."""

    object: str | None = None
    type: str | None = None

    @property
    def kind(self) -> str | None:
        return self.type if self.object == "source" else self.object


class Refund(Shape):
    object: Literal["refund"]
    id: str
    amount: Amount
    created: Seconds
    currency: str
    # Refunds had no status in the oldest versions: what was made had succeeded.
    status: str | None = None
    charge: Reference = None
    payment_intent: Reference = None
    balance_transaction: Reference = None


class Review(Shape):
    object: Literal["review"]
    id: str
    charge: Reference = None
    closed_reason: str | None = None
    created: Seconds
    open: bool
    payment_intent: Reference = None
    reason: str


class Charge(Shape):
    object: Literal["charge"]
    id: str
    created: Seconds
    currency: str
    amount: Amount
    amount_captured: Amount | None = None
    amount_refunded: Amount | None = None
    captured: bool = False
    paid: bool = False
    status: str | None = None
    metadata: Metadata = Field(default_factory=dict)
    payment_intent: Reference = None
    invoice: Reference = None
    payment_method_details: Annotated[MethodDetails | None, BeforeValidator(_method)] = None
    source: Annotated[Source | None, BeforeValidator(_object)] = None
    balance_transaction: BalanceTransaction | str | None = None
    # Whole where it is asked for.
    review: Annotated[Review | None, BeforeValidator(_object)] = None
    refunds: Annotated[list[Refund], BeforeValidator(_page)] = Field(default_factory=list)


class RefundList(Shape):
    object: Literal["list"]
    data: list[Refund]


class PaymentError(Shape):
    code: str | None = None
    decline_code: str | None = None
    type: str | None = None
    charge: Reference = None
    payment_method: Annotated[MethodDetails | None, BeforeValidator(_object)] = None
    # In its place until 2019-02-11.
    source: Annotated[Source | None, BeforeValidator(_object)] = None


class PaymentIntent(Shape):
    object: Literal["payment_intent"]
    id: str
    amount: Amount
    # Neither was there in 2017.
    amount_capturable: Amount | None = None
    amount_received: Amount | None = None
    canceled_at: Seconds | None = None
    created: Seconds
    currency: str
    customer: Reference = None
    last_payment_error: PaymentError | None = None
    payment_method: Reference = None
    setup_future_usage: str | None = None
    invoice: Reference = None
    latest_charge: Charge | str | None = None
    metadata: Metadata = Field(default_factory=dict)
    status: str
    # Until 2022-11-15; afterwards `latest_charge`, which may be expanded.
    charges: Annotated[list[Charge], BeforeValidator(_page)] = Field(default_factory=list)


class Dispute(Shape):
    object: Literal["dispute"]
    id: str | None = None
    amount: Amount
    charge: Reference = None
    created: Seconds
    currency: str
    payment_intent: Reference = None
    status: str
    balance_transactions: Annotated[list[BalanceTransaction], BeforeValidator(_page)] = Field(
        default_factory=list
    )


class Paid(Shape):
    """Which payment an invoice's part was paid with."""

    payment_intent: Reference = None


class InvoicePayment(Shape):
    object: Literal["invoice_payment"] = "invoice_payment"
    invoice: Reference = None
    payment: Paid | None = None


class Described(Shape):
    metadata: Metadata = Field(default_factory=dict)


class Parent(Shape):
    subscription_details: Described | None = None


class Invoice(Shape):
    object: Literal["invoice"]
    id: str | None = None  # one that is to come has none
    charge: Reference = None
    metadata: Metadata = Field(default_factory=dict)
    payment_intent: Reference = None
    # Since 2025-03-31 in the place of `payment_intent`, and shown only where it is asked for.
    payments: Annotated[list[InvoicePayment], BeforeValidator(_page)] = Field(default_factory=list)
    # The subscription's own metadata moved from the one to the other in the same version.
    subscription_details: Described | None = None
    parent: Parent | None = None


class DisputeList(Shape):
    object: Literal["list"]
    data: list[Dispute]


class BookedList(Shape):
    object: Literal["list"]
    data: list[BalanceTransaction]


class Asked(Shape):
    """Why Stripe was asked, when the event is its answer: the place that its answer takes."""

    phase: int = 0
    second: Seconds
    at: Seconds
    about: str | None = None
    # When Stripe was asked, where the answer counts as told at an earlier second.
    seen_at: Seconds | None = None


class Event(Shape):
    """A whole event; which object it carries is looked at before it is read as one."""

    id: str
    type: str
    created: Seconds
    livemode: bool = False
    account: str | None = None
    context: str | None = None
    asked: Asked | None = None

    @property
    def of_account(self) -> str:
        return account_of(self.account, self.context) or ""
