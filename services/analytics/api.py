"""The daily numbers over HTTP, as JSON or CSV."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel
from starlette.responses import Response

from services.analytics.days import (
    SUBSCRIPTION_MEASURES,
    levels_before,
    payment_currencies,
    payment_days_between,
    subscription_days_between,
)
from services.analytics.domain import (
    Levels,
    days_between,
    levels_by_day,
    share_minor,
    success_rate,
)
from services.analytics.handlers import time_zone_of
from services.analytics.models import PaymentDay
from services.analytics.spreadsheet import csv_response, wants_csv
from shared.auth import require
from shared.clock import business_day
from shared.errors import InvalidInput
from shared.money import currency_code
from shared.web import Now, Session

MAX_DAYS = 366  # a leap year
DEFAULT_DAYS = 30
HAPPENED = ("new", "paused", "resumed", "canceled", "price_changes", "price_mrr_change_minor")

router = APIRouter(
    tags=["analytics"], dependencies=[Depends(require("analytics:read", always=False))]
)


class SubscriptionDayView(BaseModel):
    """`active`, `mrr_minor` and their quotient `arpu_minor` stand at the end of the day; the rest happened on it."""

    day: date
    currency: str
    active: int
    new: int
    paused: int
    resumed: int
    canceled: int
    mrr_minor: int
    arpu_minor: int | None
    price_changes: int
    price_mrr_change_minor: int


class PaymentDayView(BaseModel):
    """Attempts by the day they were made, money by the day it moved.

    `success_rate` is of the attempts that ended; `average_minor` of the payments that received money.
    """

    day: date
    currency: str
    attempts: int
    succeeded: int
    failed: int
    failures: dict[str, int]
    success_rate: str | None
    gross_minor: int
    refunded_minor: int
    disputed_minor: int
    net_minor: int
    average_minor: int | None


class SubscriptionDays(BaseModel):
    time_zone: str
    items: list[SubscriptionDayView]


class PaymentDays(BaseModel):
    time_zone: str
    items: list[PaymentDayView]


@dataclass(frozen=True)
class Asked:
    """What a caller wants to see, as it was written."""

    first: Annotated[date | None, Query(alias="from", description="First business day")] = None
    last: Annotated[date | None, Query(alias="to", description="Last one, included")] = None
    currency: Annotated[str | None, Query(description="ISO 4217; all where it is missing")] = None
    format: Annotated[Literal["json", "csv"] | None, Query()] = None
    accept: Annotated[str, Header()] = "*/*"


@dataclass(frozen=True)
class Wanted:
    """The days from `first` to `last`, in one currency or in all."""

    time_zone: str
    first: date
    last: date
    currency: str | None
    as_csv: bool

    @property
    def days(self) -> list[date]:
        return list(days_between(self.first, self.last))

    def file_name(self, what: str) -> str:
        return f"{what}-{self.first}-{self.last}"


async def range_wanted(asked: Annotated[Asked, Depends()], session: Session, now: Now) -> Wanted:
    """The last 30 days where nothing else is said.  Raises InvalidInput and UnknownCurrency."""
    time_zone = await time_zone_of(session)
    last = asked.last or business_day(now, time_zone)
    first = asked.first or date.fromordinal(max(1, last.toordinal() - DEFAULT_DAYS + 1))
    days = (last - first).days + 1
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(
            f"from {first} to {last} is {days} days; ask for 1 to {MAX_DAYS}", days=days
        )
    currency = currency_code(asked.currency) if asked.currency else None
    as_csv = asked.format == "csv" if asked.format else wants_csv(asked.accept)
    return Wanted(str(time_zone), first, last, currency, as_csv)


@router.get("/subscriptions/daily", response_model=SubscriptionDays)
async def subscriptions_daily(
    wanted: Annotated[Wanted, Depends(range_wanted)], session: Session
) -> Response | SubscriptionDays:
    """Subscriptions by day and currency; every day of the range, also those on which nothing changed."""
    opening = await levels_before(session, wanted.first, wanted.currency)
    changes: defaultdict[str, dict[date, dict[str, int]]] = defaultdict(dict)
    for row in await subscription_days_between(session, wanted.first, wanted.last, wanted.currency):
        changes[row.currency][row.day] = {m: getattr(row, m) for m in SUBSCRIPTION_MEASURES}
    currencies = [wanted.currency] if wanted.currency else sorted(changes.keys() | opening.keys())
    items = [
        item
        for currency in currencies
        for item in _subscription_views(wanted, currency, opening[currency], changes[currency])
    ]
    items.sort(key=lambda item: (item.day, item.currency))
    if wanted.as_csv:
        name = wanted.file_name("subscriptions")
        return csv_response(name, list(SubscriptionDayView.model_fields), items)
    return SubscriptionDays(time_zone=wanted.time_zone, items=items)


@router.get("/payments/daily", response_model=PaymentDays)
async def payments_daily(
    wanted: Annotated[Wanted, Depends(range_wanted)], session: Session
) -> Response | PaymentDays:
    """Payments by day and currency; every day of the range, also those on which nobody paid."""
    rows = await payment_days_between(session, wanted.first, wanted.last, wanted.currency)
    found = {(row.day, row.currency): row for row in rows}
    currencies = [wanted.currency] if wanted.currency else await payment_currencies(session)
    items = [
        _payment_view(found.get((day, currency)) or PaymentDay.empty(day, currency))
        for day in wanted.days
        for currency in currencies
    ]
    if wanted.as_csv:
        name = wanted.file_name("payments")
        return csv_response(name, list(PaymentDayView.model_fields), items)
    return PaymentDays(time_zone=wanted.time_zone, items=items)


def _subscription_views(
    wanted: Wanted, currency: str, opening: Levels, changes: Mapping[date, Mapping[str, int]]
) -> Iterator[SubscriptionDayView]:
    for day, level in levels_by_day(opening, wanted.days, changes).items():
        happened = {name: changes.get(day, {}).get(name, 0) for name in HAPPENED}
        yield SubscriptionDayView(
            day=day,
            currency=currency,
            active=level.active,
            mrr_minor=level.mrr_minor,
            arpu_minor=level.arpu_minor,
            **happened,
        )


def _payment_view(row: PaymentDay) -> PaymentDayView:
    return PaymentDayView(
        day=row.day,
        currency=row.currency,
        attempts=row.attempts,
        succeeded=row.attempts_succeeded,
        failed=row.attempts_failed,
        failures=row.failures,
        success_rate=success_rate(row.attempts_succeeded, row.attempts_failed),
        gross_minor=row.gross_minor,
        refunded_minor=row.refunded_minor,
        disputed_minor=row.disputed_minor,
        net_minor=row.gross_minor - row.refunded_minor - row.disputed_minor,
        average_minor=share_minor(row.gross_minor, row.received_count),
    )
