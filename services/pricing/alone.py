"""Subscriptions that SQL leaves alone, priced one by one by the pure function: new, unreadable, or just changed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import RowMapping, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.campaign import Campaign, Group, Outcome, Verdict, code_of
from services.pricing.composition import NothingToBuildOn, choose, numbers
from services.pricing.costs import Prices, Subject, UnreadableSubscription, current_prices
from services.pricing.domain import offered, same_cents
from services.pricing.models import UserTier
from services.pricing.pricing_sql import BEFORE
from services.pricing.reprice import FIRST_TIER, TIER
from services.pricing.timing import Situation
from shared.errors import FareboxError
from shared.events import BillingInterval, CostBreakdown, TierName, VariantLine
from shared.storefront import Address, Subscription

UNPRICEABLE = {
    "it is canceled": "canceled",
    "it has no variants": "no_variants",
    "it has no delivery type": "no_delivery_type",
    "it has no delivery address": "no_delivery_address",
}


@dataclass(frozen=True)
class Result:
    """What a version makes of one subscription: a new cost, or an outcome without one."""

    subscription_id: UUID
    outcome: Outcome
    code: str | None = None
    detail: str | None = None
    subject: Subject | None = None
    new: CostBreakdown | None = None
    tier: TierName = FIRST_TIER
    restores: bool = False
    when: "Periods | None" = None

    def situation(self, place: str) -> Situation:
        """Raises ValueError where there is no price to plan for."""
        if self.when is None or self.subject is None or self.new is None:
            raise ValueError(f"subscription {self.subscription_id} has no price to plan for")
        old = self.subject.cost_breakdown
        return Situation(
            self.subject.created_at,
            self.when.period_end,
            self.subject.billing_interval,
            place,
            self.when.next_delivery_on,
            old is not None and self.new.total_minor > old.total_minor,
            self.when.period_start,
        )


class Periods(BaseModel):
    """What a subscription's turn depends on, beside what it costs."""

    model_config = ConfigDict(frozen=True)

    period_start: datetime | None
    period_end: datetime | None
    next_delivery_on: date | None
    billing_interval: BillingInterval


@dataclass(frozen=True)
class Beside:
    """What pricing one subscription takes beside its row."""

    catalogue: Prices
    tiers: Mapping[UUID, TierName]
    before: Mapping[UUID, CostBreakdown]  # what a version to be reverted took it from


async def price_alone(
    session: AsyncSession, campaign: Campaign, ids: Collection[UUID]
) -> list[Result]:
    """In order of id; who is not there any more is excluded.  Locks nothing."""
    rows = await _rows(session, ids)
    gone = set(ids) - {row["id"] for row in rows}
    results = [Result(i, "excluded", "deleted", "it was deleted") for i in gone]
    subjects: list[tuple[Subject, Periods, TierName]] = []
    for row in rows:
        try:
            read = Subject.of(row), Periods.model_validate(row)
        except UnreadableSubscription as error:
            results.append(Result(row["id"], "failed", code_of(error), error.detail))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            detail = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            results.append(Result(row["id"], "failed", "unreadable_subscription", detail))
        else:
            subjects.append((*read, TIER.validate_python(row["tier"] or FIRST_TIER)))
    beside = Beside(
        await current_prices(
            session, {line.variant_id for s, *_ in subjects for line in s.lines()}
        ),
        {subject.id: tier for subject, _, tier in subjects},
        await _before(session, campaign, [subject.id for subject, *_ in subjects]),
    )
    for subject, periods, tier in subjects:
        result = price_one(campaign, subject, beside)
        results.append(replace(result, when=periods, tier=tier))
    return sorted(results, key=lambda result: result.subscription_id)


def price_one(campaign: Campaign, subject: Subject, beside: Beside) -> Result:
    """Never raises for what a row may hold: it fails or is excluded with the reason, and stops nobody else."""
    reason = subject.unpriceable()
    if reason is not None:
        return Result(subject.id, "excluded", UNPRICEABLE[reason], reason, subject)
    before = beside.before.get(subject.id)
    delivery_type, place = subject.delivery()
    try:
        on = subject.composition() or _never_priced(campaign, subject, beside)
        earlier = None if before is None else before.price_versions
        group = Group(on, subject.currency, delivery_type, place, earlier)
        verdict = campaign.verdict(group)
        if verdict.terms is None:
            outcome = verdict.outcome or "failed"
            return Result(subject.id, outcome, verdict.code, verdict.detail, subject)
        prices = offered(
            verdict.terms, beside.catalogue.get(subject.currency, {}), subject.currency
        )
        box = subject.box({subject.currency: prices})
        new = campaign.priced(verdict, box, given(campaign, verdict, box.variants, before, prices))
    except FareboxError as error:
        return Result(subject.id, "failed", code_of(error), error.detail, subject)
    old = subject.cost_breakdown
    same = old is not None and same_cents(old, new)
    result = Result(subject.id, "kept" if same else "moved", None, None, subject, new)
    return replace(result, code="same_cents" if same else None, restores=verdict.restores)


def given(
    campaign: Campaign,
    verdict: Verdict,
    lines: Sequence[VariantLine],
    before: CostBreakdown | None,
    offers: Mapping[UUID, int],
) -> Mapping[UUID, int]:
    """Unit prices that lines get: those the version names; of what it takes back, those from before.

    A line that was not there before, and still carries the price that is taken back, is offered anew.
    """
    currency = verdict.currency
    prices = {} if verdict.restores else dict(campaign.named(currency))
    if campaign.reverts is None:
        return prices
    taken_back = campaign.reverts.changes.variant_prices.get(currency, {})
    known = before.variants if before is not None and verdict.restores else ()
    carried = {line.variant_id: line.unit_price_minor for line in known}
    for line in lines:
        variant = line.variant_id
        if variant in taken_back and variant in carried:
            prices[variant] = carried[variant]
        elif taken_back.get(variant) == line.unit_price_minor and variant in offers:
            prices.setdefault(variant, offers[variant])
    return prices


def _never_priced(campaign: Campaign, subject: Subject, beside: Beside) -> tuple[int, ...]:
    """As if it had just been priced by what is in force beside this version."""
    member = subject.member(beside.tiers.get(subject.id, FIRST_TIER))
    others = [layer for layer in campaign.in_force if layer.number != campaign.layer.number]
    try:
        return numbers(choose(member, others, (), ()))
    except NothingToBuildOn:
        return ()


async def _rows(session: AsyncSession, ids: Collection[UUID]) -> Sequence[RowMapping]:
    """As costs.lock_rows, and what their turn depends on."""
    statement = (
        select(
            *(Subscription.id, Subscription.user_id, Subscription.status, Subscription.currency),
            *(Subscription.billing_interval, Subscription.variants, Subscription.cost_breakdown),
            *(Subscription.created_at, Subscription.price_version, Subscription.delivery_type),
            *(Subscription.period_start, Subscription.period_end, Subscription.next_delivery_on),
            *(Subscription.loyalty_discount_minor, Address.country, Address.region, UserTier.tier),
        )
        .outerjoin(Address, Address.id == Subscription.delivery_address_id)
        .outerjoin(UserTier, UserTier.user_id == Subscription.user_id)
        .where(Subscription.id.in_(ids))
        .order_by(Subscription.id)
    )
    return (await session.execute(statement)).mappings().all()


async def _before(
    session: AsyncSession, campaign: Campaign, ids: Sequence[UUID]
) -> Mapping[UUID, CostBreakdown]:
    """By subscription, the cost that the version to be reverted took it from."""
    if campaign.reverts is None or not ids:
        return {}
    values = {"ids": ids, "reverts": campaign.reverts.number}
    found: dict[UUID, CostBreakdown] = {}
    for row in await session.execute(_BEFORE, values):
        versions = tuple(number for number in row.versions if number is not None)
        old = CostBreakdown.model_validate(row.old_breakdown)
        found[row.id] = old.model_copy(update={"price_versions": versions})
    return found


_BEFORE = text(
    "SELECT s.id, b.versions, b.old_breakdown FROM public.subscriptions s"
    f" {BEFORE} WHERE s.id = ANY (CAST(:ids AS uuid[])) AND b.old_breakdown IS NOT NULL"
).columns(versions=JSONB, old_breakdown=JSONB)
