"""The parts of Stripe's objects that tell of money, in every API version since 2017.

Fields that came or went with a version are optional; a reference may be an id or the whole object; whatever else
Stripe says is left unread.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _id_of(value: object) -> object:
    return value.get("id") if isinstance(value, dict) else value


def _page(value: object) -> object:
    """A list object's items; absent, null and empty lists are alike."""
    return (value.get("data") if isinstance(value, dict) else value) or []


def _unless_id(value: object) -> object:
    return value if isinstance(value, dict) else None


Reference = Annotated[str | None, BeforeValidator(_id_of)]
Seconds = Annotated[int, Field(ge=0, lt=2**40)]
Amount = Annotated[int, Field(ge=0, lt=2**53)]
SignedAmount = Annotated[int, Field(gt=-(2**53), lt=2**53)]
Metadata = Annotated[dict[str, str], BeforeValidator(lambda value: value or {})]


class Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class BalanceTransaction(Shape):
    id: str
    amount: SignedAmount
    created: Seconds
    currency: str
    fee: SignedAmount = 0
    net: SignedAmount = 0


Settled = Annotated[BalanceTransaction | None, BeforeValidator(_unless_id)]


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
    metadata: Metadata = Field(default_factory=dict)
    payment_intent: Reference = None
    balance_transaction: Settled = None
    refunds: Annotated[list[Refund], BeforeValidator(_page)] = Field(default_factory=list)


class RefundList(Shape):
    object: Literal["list"]
    data: list[Refund]


class PaymentError(Shape):
    code: str | None = None
    decline_code: str | None = None
    type: str | None = None


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
    last_payment_error: PaymentError | None = None
    latest_charge: Reference = None
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


class Asked(Shape):
    """Why Stripe was asked, when the event is its answer: the place that its answer takes."""

    phase: int = 0
    second: Seconds
    at: Seconds
    about: str | None = None


class Event(Shape):
    """A whole event; which object it carries is looked at before it is read as one."""

    id: str
    type: str
    created: Seconds
    livemode: bool = False
    account: str | None = None
    asked: Asked | None = None
