"""What a change within a billing period would give back and ask for: from the price on the subscription to the one
it would get, by the code that would price it.  Nothing is stored."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import numbers
from services.pricing.costs import Subject, read_row
from services.pricing.domain import NotInThisState, cost
from services.pricing.layers import NoPriceInForce, layers
from services.pricing.proration import (
    By,
    NotInThisPeriod,
    ProratedLine,
    Proration,
    Window,
    charge_lines,
    credit_lines,
    prorate,
)
from services.pricing.reprice import context_of, decide, priceable_at
from services.pricing.scopes import FIRST, LAST
from services.pricing.subscriptions import SubscriptionNotFound, UnknownAddress
from shared.errors import Conflict
from shared.events import BoxLine, CostBreakdown
from shared.storefront import Address, Subscription


class NotPricedYet(Conflict):
    title = "The subscription has no price yet"


@dataclass(frozen=True)
class Change:
    """What a customer would change; None: nothing about that."""

    lines: tuple[BoxLine, ...] | None = (
        None  # at the prices of then, but for the box it has already
    )
    delivery_type: str | None = None
    delivery_address_id: UUID | None = None
    loyalty_discount_minor: int | None = None


@dataclass(frozen=True)
class Counting:
    """When it would change, and how time is counted: by the business's days or by seconds."""

    at: datetime
    by: By
    zone: ZoneInfo


@dataclass(frozen=True)
class Prorated:
    """The lines of the credit add up to it, and so do those of the charge."""

    window: Window
    money: Proration
    old: CostBreakdown
    new: CostBreakdown

    @property
    def credited(self) -> tuple[ProratedLine, ...]:
        return credit_lines(self.old, self.money)

    @property
    def charged(self) -> tuple[ProratedLine, ...]:
        return charge_lines(self.new, self.money)


async def prorated(
    session: AsyncSession, subscription_id: UUID, change: Change, counting: Counting
) -> Prorated:
    """Raises SubscriptionNotFound, NotInThisState, NotPricedYet, NotInThisPeriod, UnknownAddress, and what pricing
    the change would raise."""
    row = await read_row(session, subscription_id)
    if row is None:
        raise SubscriptionNotFound(f"there is no subscription {subscription_id}")
    subject = Subject.of(row)
    if subject.status == "canceled":
        raise NotInThisState("the subscription is canceled", subscription_status="canceled")
    old = subject.cost_breakdown
    if old is None:
        reason = subject.unpriceable() or "it has not been priced so far"
        raise NotPricedYet(f"subscription {subscription_id}: {reason}")
    if subject.currency != old.currency:
        raise NotPricedYet(f"subscription {subscription_id} has no price in {subject.currency} yet")
    window = await _window(session, subscription_id, counting)
    window.share()  # a time outside of the period is said before anything is priced
    changed = await _changed(session, subject, change)
    new = await _priced(session, changed, old, counting.at)
    money = prorate(old.total_minor, new.total_minor, window, old.currency)
    return Prorated(window, money, old, new)


async def _window(session: AsyncSession, subscription_id: UUID, counting: Counting) -> Window:
    """Where the storefront wrote an infinity, or a slip that calendars end at, there is no period to count."""
    row = Subscription
    period = select(row.period_start, row.period_end).where(
        row.id == subscription_id,
        row.period_start.between(FIRST, LAST),
        row.period_end.between(FIRST, LAST),
    )
    found = (await session.execute(period)).one_or_none()
    if found is None:
        raise NotInThisPeriod(f"subscription {subscription_id} has no period that ends")
    return Window(found.period_start, found.period_end, counting.at, counting.by, counting.zone)


async def _changed(session: AsyncSession, subject: Subject, change: Change) -> Subject:
    """The row as the change would leave it: another box at new prices, the same one at its own."""
    said: dict[str, object] = {}
    if change.lines is not None and _contents(change.lines) != _contents(subject.variants):
        said["variants"] = change.lines
    if change.delivery_type is not None:
        said["delivery_type"] = change.delivery_type
    if change.loyalty_discount_minor is not None:
        said["loyalty_discount_minor"] = change.loyalty_discount_minor
    if change.delivery_address_id is not None:
        statement = select(Address.country, Address.region).where(
            Address.id == change.delivery_address_id, Address.user_id == subject.user_id
        )
        there = (await session.execute(statement)).one_or_none()
        if there is None:
            raise UnknownAddress(
                f"user {subject.user_id} has no address {change.delivery_address_id}"
            )
        said |= {"country": there.country, "region": there.region}
    return subject.model_copy(update=said)


async def _priced(
    session: AsyncSession, changed: Subject, old: CostBreakdown, at: datetime
) -> CostBreakdown:
    """As `reprice` would: what is neither changed nor due costs what it costs."""
    versions = await layers(session)
    if not priceable_at(versions, at):
        raise NoPriceInForce(f"no price version is in force at {at.isoformat()}; publish one")
    if (reason := changed.unpriceable()) is not None:
        raise NotPricedYet(f"subscription {changed.id}: {reason}")
    context = await context_of(session, versions, [changed], {changed.id: at})
    decision = decide(changed, context, at)
    if decision.kind is None:
        return old
    return cost(decision.terms, decision.box, numbers(decision.layers))


def _contents(lines: tuple[BoxLine, ...]) -> list[tuple[UUID, int]]:
    return [(line.variant_id, line.quantity) for line in lines]
