"""Payouts and the lines they are made of, in our words; amounts in minor units."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from services.payments.gateway.away import StripeAway
from services.payments.gateway.shapes import BalanceTransaction, Reference, Seconds, SignedAmount
from shared.money import currency_code, from_stripe


class _Payout(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: str
    amount: SignedAmount
    arrival_date: Seconds
    automatic: bool
    created: Seconds
    currency: str
    livemode: bool
    reconciliation_status: str = "completed"  # it was not said before 2022-11-15
    status: str


class _Source(BaseModel):
    model_config = ConfigDict(extra="ignore")
    payment_intent: Reference = None
    charge: Reference = None


class _Line(BalanceTransaction):
    type: str


@dataclass(frozen=True, slots=True)
class PaidOut:
    """A payout; `is_itemised` once Stripe has said all that it is made of."""

    id: str
    status: str
    automatic: bool
    is_itemised: bool
    currency: str
    amount_minor: int
    arrival_on: date
    created_at: datetime
    livemode: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One movement on the balance; `payment` where Stripe names it, `charge` where it names only that."""

    id: str
    type: str
    source: str | None
    payment: str | None
    charge: str | None
    currency: str
    amount_minor: int
    fee_minor: int
    net_minor: int
    created_at: datetime


def payout_of(item: Mapping[str, object]) -> PaidOut:
    """Raises StripeAway for what is none, InvalidInput for money that we cannot count."""
    try:
        told = _Payout.model_validate(item)
    except ValidationError as error:
        raise StripeAway(f"Stripe answered with no payout: {error}") from error
    currency = currency_code(told.currency)
    return PaidOut(
        id=told.id,
        status=told.status,
        automatic=told.automatic,
        is_itemised=told.reconciliation_status == "completed",
        currency=currency,
        amount_minor=from_stripe(told.amount, currency),
        arrival_on=datetime.fromtimestamp(told.arrival_date, UTC).date(),
        created_at=datetime.fromtimestamp(told.created, UTC),
        livemode=told.livemode,
    )


def line_of(item: Mapping[str, object]) -> Line:
    """Raises StripeAway for what is none, InvalidInput for money that we cannot count, such as 29.50 ISK."""
    try:
        told = _Line.model_validate(item)
        shown = item.get("source")
        source = _Source.model_validate(shown if isinstance(shown, dict) else {})
    except ValidationError as error:
        raise StripeAway(f"Stripe listed no balance transaction: {error}") from error
    currency = currency_code(told.currency)
    amounts = [from_stripe(each, currency) for each in (told.amount, told.fee, told.net)]
    is_charge = bool(told.source and told.source.startswith(("ch_", "py_")))
    return Line(
        id=told.id,
        type=told.type,
        source=told.source,
        payment=source.payment_intent,
        charge=told.source if is_charge else source.charge,
        currency=currency,
        amount_minor=amounts[0],
        fee_minor=amounts[1],
        net_minor=amounts[2],
        created_at=datetime.fromtimestamp(told.created, UTC),
    )
