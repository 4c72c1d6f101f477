"""What a payment is worth in points, and which tier that makes.  Pure: no database, no clock.

A payment's lot keeps the rule it was first earned by: whatever happens to the money later, the lot is worth what
is left of it under that same rule, and the difference is booked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from shared.errors import Conflict
from shared.events import PaymentChanged, TierName
from shared.money import exponent

# A point is a whole major unit; of currencies without a minor unit (JPY) it is a hundred.
MINOR_PER_POINT = {0: 100, 2: 100, 3: 1_000, 4: 10_000}

# Points earned in the last 12 months that a tier begins at, highest first.
TIERS: tuple[tuple[TierName, int], ...] = (
    ("platinum", 5_000),
    ("gold", 2_000),
    ("silver", 500),
    ("bronze", 0),
)

# Every version ever in force stays here: lots name the one they were earned by.
PERCENT: dict[str, dict[TierName, int]] = {
    "2026-01": {"bronze": 100, "silver": 125, "gold": 150, "platinum": 200}
}
CURRENT_VERSION = "2026-01"

# Lots older than this cannot count for a tier any more: a year, a leap day and a day to spare.
WINDOW = timedelta(days=367)

Kind = Literal["earned", "reversed", "restored"]


class PaymentChangedCurrency(Conflict):
    title = "A payment that earned points is in another currency now"


@dataclass(frozen=True)
class Rule:
    """`2026-01:gold`: what a payment earns, in percent of a point per major unit."""

    name: str
    percent: int


RULES = {
    f"{version}:{tier}": Rule(f"{version}:{tier}", percent)
    for version, percents in PERCENT.items()
    for tier, percent in percents.items()
}


@dataclass(frozen=True)
class Lot:
    """What one payment is worth now; `peak_points` is the most it was ever worth."""

    payment_id: UUID
    user_id: UUID
    subscription_id: UUID | None
    payment_revision: int
    currency: str
    rule: str
    points: int
    peak_points: int
    earned_at: datetime


@dataclass(frozen=True)
class Standing:
    """A tier, the points of 12 months it rests on, and when it falls if nothing more is earned."""

    tier: TierName
    points: int
    until: datetime | None


@dataclass(frozen=True)
class Account:
    """A customer's account with the lots that may still count for a tier or are about to change."""

    user_id: UUID
    balance_points: int
    tier: TierName
    revision: int
    tier_as_of: datetime
    tier_until: datetime | None
    lots: Mapping[UUID, Lot]
    subscription_points: Mapping[UUID, int]  # by subscription: all its lots, also old ones


@dataclass(frozen=True)
class Booking:
    """One fact, booked.  `points` 0: only noted, there is nothing to tell."""

    before: Account
    account: Account
    lot: Lot
    points: int
    kind: Kind
    standing: Standing | None  # none where the tier did not move

    @property
    def points_revision(self) -> int:
        return self.before.revision + 1


def tier_for(points_12_months: int) -> TierName:
    return next(tier for tier, begins_at in TIERS if points_12_months >= begins_at)


def next_tier(points_12_months: int) -> tuple[TierName, int] | None:
    """The next higher tier and the points still missing; none above platinum."""
    above = [(tier, at - points_12_months) for tier, at in TIERS if at > points_12_months]
    return above[-1] if above else None


def rule_for(tier: TierName) -> Rule:
    return RULES[f"{CURRENT_VERSION}:{tier}"]


def target_points(state: PaymentChanged, rule: Rule) -> int:
    """What the money still held is worth; a fraction of a point is dropped, never rounded up."""
    kept_minor = max(0, state.received_minor - state.refunded_minor - state.disputed_minor)
    return kept_minor * rule.percent // (100 * MINOR_PER_POINT[exponent(state.currency)])


def lapses_at(earned_at: datetime) -> datetime:
    """The same moment a year later; of a 29 February, 1 March."""
    try:
        return earned_at.replace(year=earned_at.year + 1)
    except ValueError:
        return earned_at.replace(year=earned_at.year + 1, month=3, day=1)


def standing_of(lots: Iterable[Lot], at: datetime) -> Standing:
    """The tier at the moment `at`, by what the lots earned in the 12 months before it are worth now."""
    counted = sorted(
        (lot for lot in lots if lot.earned_at <= at < lapses_at(lot.earned_at)),
        key=lambda lot: (lot.earned_at, lot.payment_id),
    )
    points = sum(lot.points for lot in counted)
    return Standing(tier_for(points), points, _falls_at(counted, points))


def book(account: Account, fact: PaymentChanged) -> Booking | None:
    """Bring the payment's lot to what the fact says it is worth.  None: nothing new, or no money of ours came yet.

    Raises PaymentChangedCurrency and UnknownCurrency.
    """
    lot = account.lots.get(fact.payment_id)
    if lot is None:
        if fact.received_minor <= 0 or fact.account is not None:
            return None
        lot = _open_lot(account, fact)
    if fact.revision <= lot.payment_revision:
        return None
    if fact.currency != lot.currency:
        raise PaymentChangedCurrency(
            f"payment {fact.payment_id} earned points in {lot.currency} and is in {fact.currency} now"
        )
    target = target_points(fact, RULES[lot.rule])
    after = replace(
        lot,
        points=target,
        peak_points=max(lot.peak_points, target),
        payment_revision=fact.revision,
        subscription_id=lot.subscription_id or fact.subscription_id,
    )
    return _booking(account, lot, after, fact.occurred_at)


def reconsider_tier(account: Account, at: datetime) -> tuple[Account, Standing | None]:
    """The account with its tier as of `at`, and the new standing if it moved; time never goes back."""
    as_of = max(at, account.tier_as_of)
    standing = standing_of(account.lots.values(), as_of)
    account = replace(account, tier_as_of=as_of, tier_until=standing.until)
    if standing.tier == account.tier:
        return account, None
    return replace(account, tier=standing.tier, revision=account.revision + 1), standing


def _falls_at(oldest_first: list[Lot], points: int) -> datetime | None:
    tier = tier_for(points)
    for lot in oldest_first:
        points -= lot.points
        if tier_for(points) != tier:
            return lapses_at(lot.earned_at)
    return None


def _open_lot(account: Account, fact: PaymentChanged) -> Lot:
    rule = rule_for(standing_of(account.lots.values(), fact.occurred_at).tier)
    return Lot(
        payment_id=fact.payment_id,
        user_id=account.user_id,
        subscription_id=fact.subscription_id,
        payment_revision=0,
        currency=fact.currency,
        rule=rule.name,
        points=0,
        peak_points=0,
        # Of a payment captured in parts this is the first part: it has not succeeded yet.
        earned_at=fact.succeeded_at or fact.occurred_at,
    )


def _booking(account: Account, lot: Lot, after: Lot, occurred_at: datetime) -> Booking:
    points = after.points - lot.points
    kind: Kind = "reversed" if points < 0 else "restored"
    if after.peak_points > lot.peak_points:
        kind = "earned"
    changed = replace(
        account,
        lots={**account.lots, after.payment_id: after},
        subscription_points=_moved(account.subscription_points, lot, after),
        balance_points=account.balance_points + points,
    )
    standing = None
    if points:
        changed = replace(changed, revision=account.revision + 1)
        changed, standing = reconsider_tier(changed, max(occurred_at, after.earned_at))
    return Booking(account, changed, after, points, kind, standing)


def _moved(points_of: Mapping[UUID, int], lot: Lot, after: Lot) -> Mapping[UUID, int]:
    """A payment that only now names its subscription brings all its points along."""
    if after.subscription_id is None:
        return points_of
    already = lot.points if lot.subscription_id is not None else 0
    before = points_of.get(after.subscription_id, 0)
    return {**points_of, after.subscription_id: before + after.points - already}
