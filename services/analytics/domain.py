"""Which day a fact counts on, and what it adds there.  Pure: no database, no clock.

A payment's newest fact says everything about it; of a subscription every fact adds what it changed against the
fact before.  Either way the days are a function of the set of facts heard, in whatever order they came.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

from shared.clock import business_day
from shared.events import (
    BillingInterval,
    PaymentChanged,
    SubscriptionChanged,
    SubscriptionCostChanged,
)
from shared.money import currency_code, round_minor

Cell = tuple[date, str]  # business day, currency
Measures = dict[str, int]
Amounts = dict[Cell, Measures]  # without zeros
SubscriptionSaid = SubscriptionChanged | SubscriptionCostChanged

# `failed:card_declined` counts the attempts that failed for that reason.
FAILED_FOR = "failed:"

MONTHS_PER_YEAR = 12
INTERVALS_PER_YEAR: dict[BillingInterval, int] = {"week": 52, "month": 12, "quarter": 4, "year": 1}

# What a subscription did, from the status it had to the one it has.
MOVES = {
    ("active", "paused"): "paused",
    ("canceled", "paused"): "paused",
    ("paused", "active"): "resumed",
    ("canceled", "active"): "resumed",
    ("active", "canceled"): "canceled",
    ("paused", "canceled"): "canceled",
}
# Other contents, another delivery or a discount change the cost, not the price.
PRICE_CHANGES = frozenset({"config"})


def payment_days(fact: PaymentChanged, time_zone: ZoneInfo) -> Amounts:
    """All that one payment adds: its attempt on the day it was made, its money on the days it moved.

    A connected account's payment adds nothing: it is not our money.  Raises UnknownCurrency.
    """
    currency = currency_code(fact.currency)
    amounts = _Sum()
    if fact.account is not None:
        return amounts.nonzero()
    created_on = business_day(fact.created_at, time_zone)
    amounts.add((created_on, currency), _attempt(fact))
    if fact.received_minor:
        # The first part of a payment captured in parts counts from its creation until it succeeds.
        day = business_day(fact.succeeded_at or fact.created_at, time_zone)
        amounts.add((day, currency), {"received_count": 1, "gross_minor": fact.received_minor})
    unexplained = {"refund": fact.refunded_minor, "dispute": fact.disputed_minor}
    for movement in fact.movements:
        day = business_day(movement.at, time_zone)
        unexplained[movement.kind] -= movement.amount_minor
        amounts.add((day, currency), {_MEASURE[movement.kind]: movement.amount_minor})
    # Whatever no movement explains stands on the fact's own day, so that the totals agree to the cent.
    heard_on = business_day(fact.occurred_at, time_zone)
    amounts.add((heard_on, currency), {_MEASURE[kind]: unexplained[kind] for kind in unexplained})
    return amounts.nonzero()


def subscription_days(facts: Iterable[SubscriptionSaid], time_zone: ZoneInfo) -> Amounts:
    """All that one subscription adds; `facts` in the order of their revisions."""
    amounts, before = _Sum(), None
    for fact in facts:
        amounts.add_all(subscription_change(before, fact, time_zone))
        before = fact
    return amounts.nonzero()


def subscription_change(
    before: SubscriptionSaid | None, fact: SubscriptionSaid, time_zone: ZoneInfo
) -> Amounts:
    """What `fact` changed against the fact before it.  Raises UnknownCurrency."""
    amounts = _Sum()
    day = business_day(fact.occurred_at, time_zone)
    cell = (day, currency_code(fact.currency))
    if before is None:
        amounts.add(cell, {"new": 1} | ({} if fact.status == "active" else {fact.status: 1}))
    else:
        # In the currency it had; of two facts in one currency only the difference is left.
        amounts.add((day, currency_code(before.currency)), _levels(before, -1))
        if move := MOVES.get((before.status, fact.status)):
            amounts.add(cell, {move: 1})
    amounts.add(cell, _levels(fact, 1))
    amounts.add(cell, _price_change(fact))
    return amounts.nonzero()


def recounted(
    stored: Mapping[int, SubscriptionSaid],
    fresh: Mapping[int, SubscriptionSaid],
    time_zone: ZoneInfo,
) -> dict[int, Amounts]:
    """revision -> what it changed, of the facts of one subscription that now have another one before them.

    `stored` begins with the newest fact older than all of `fresh`, if there is one: nothing changes for that one.
    """
    known = dict(sorted({**stored, **fresh}.items()))
    first = next(iter(known))
    changes = {first: subscription_change(None, known[first], time_zone)} if first in fresh else {}
    for before, revision in pairwise(known):
        if revision in fresh or before in fresh:
            changes[revision] = subscription_change(known[before], known[revision], time_zone)
    return changes


def monthly_minor(total_minor: int, interval: BillingInterval) -> int:
    """What one billing interval's total is worth a month, rounded once, half-even."""
    return round_minor(Decimal(total_minor) * INTERVALS_PER_YEAR[interval] / MONTHS_PER_YEAR)


def difference(after: Amounts, before: Amounts) -> Amounts:
    amounts = _Sum()
    amounts.add_all(after)
    amounts.add_all(before, -1)
    return amounts.nonzero()


def total(parts: Iterable[Amounts]) -> Amounts:
    amounts = _Sum()
    for part in parts:
        amounts.add_all(part)
    return amounts.nonzero()


def dump(amounts: Amounts) -> dict[str, Measures]:
    """For a JSON column: `{"2026-01-31 USD": {"attempts": 1}}`."""
    return {f"{day.isoformat()} {currency}": m for (day, currency), m in sorted(amounts.items())}


def load(stored: Mapping[str, Measures]) -> Amounts:
    cells = ((key.split(" "), measures) for key, measures in stored.items())
    return {(date.fromisoformat(day), currency): dict(m) for (day, currency), m in cells}


def days_between(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


@dataclass(frozen=True)
class Levels:
    """How many subscriptions are active and what they bring in a month, at the end of a day."""

    active: int = 0
    mrr_minor: int = 0

    def after(self, changes: Mapping[str, int]) -> "Levels":
        return Levels(
            self.active + changes.get("active_change", 0),
            self.mrr_minor + changes.get("mrr_change_minor", 0),
        )

    @property
    def arpu_minor(self) -> int | None:
        return share_minor(self.mrr_minor, self.active)


def levels_by_day(
    opening: Levels, days: Sequence[date], changes: Mapping[date, Mapping[str, int]]
) -> dict[date, Levels]:
    levels: dict[date, Levels] = {}
    now = opening
    for day in days:
        now = now.after(changes.get(day, {}))
        levels[day] = now
    return levels


def share_minor(amount_minor: int, count: int) -> int | None:
    return round_minor(Decimal(amount_minor) / count) if count else None


def success_rate(succeeded: int, failed: int) -> str | None:
    """Of the attempts that came to an end, as a decimal of four places; none while none has."""
    ended = succeeded + failed
    return str((Decimal(succeeded) / ended).quantize(Decimal("0.0001"))) if ended else None


_MEASURE = {"refund": "refunded_minor", "dispute": "disputed_minor"}


class _Sum:
    """Amounts being added up."""

    def __init__(self) -> None:
        self._cells: defaultdict[Cell, defaultdict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )

    def add(self, cell: Cell, measures: Mapping[str, int], times: int = 1) -> None:
        for measure, amount in measures.items():
            self._cells[cell][measure] += times * amount

    def add_all(self, amounts: Amounts, times: int = 1) -> None:
        for cell, measures in amounts.items():
            self.add(cell, measures, times)

    def nonzero(self) -> Amounts:
        kept = {
            cell: {measure: amount for measure, amount in measures.items() if amount}
            for cell, measures in self._cells.items()
        }
        return {cell: measures for cell, measures in kept.items() if measures}


def _attempt(fact: PaymentChanged) -> Measures:
    """A failed payment that is tried again is one attempt still: it counts by how it stands now."""
    if fact.status == "succeeded":
        return {"attempts": 1, "attempts_succeeded": 1}
    failed = fact.status == "canceled" or (
        fact.status == "requires_payment_method" and fact.failure_code is not None
    )
    if not failed:
        return {"attempts": 1}
    reason = fact.failure_code or "canceled"
    return {"attempts": 1, "attempts_failed": 1, f"{FAILED_FOR}{reason}": 1}


def _levels(fact: SubscriptionSaid, times: int) -> Measures:
    if fact.status != "active":
        return {}
    return {"active_change": times, "mrr_change_minor": times * _mrr_minor(fact)}


def _mrr_minor(fact: SubscriptionSaid) -> int:
    match fact:
        case SubscriptionCostChanged():
            return monthly_minor(fact.new_total_minor, fact.billing_interval)
        case SubscriptionChanged():
            return monthly_minor(fact.total_minor or 0, fact.billing_interval)


def _price_change(fact: SubscriptionSaid) -> Measures:
    if not isinstance(fact, SubscriptionCostChanged) or fact.old_total_minor is None:
        return {}
    if fact.kind not in PRICE_CHANGES:
        return {}
    old = monthly_minor(fact.old_total_minor, fact.billing_interval)
    new = monthly_minor(fact.new_total_minor, fact.billing_interval)
    return {
        "price_changes": 1,
        "price_mrr_change_minor": new - old if fact.status == "active" else 0,
    }
