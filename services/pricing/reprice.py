"""Bring subscriptions' costs in line with what their rows say: whatever a customer or the storefront changed.

Each is priced by the versions in force of the scopes that cover it, but for those whose rollouts hold it back:
there it stays on the version it was on.  A walk that is on its way has to pause first, so that nobody waits for rows
that wait for it; the row locks come next, then what rollouts have said so far: a rollout that has not come to a row
yet finds it as this leaves it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer, choose, compose, numbers
from services.pricing.costs import (
    CostChange,
    Prices,
    Subject,
    Why,
    current_prices,
    lock_rows,
    record,
    refill,
    stamp,
)
from services.pricing.domain import (
    Box,
    CostKind,
    Terms,
    cost,
    kind_of_change,
    moved_lines,
    offered,
    same_cents,
)
from services.pricing.layers import Layers
from services.pricing.models import Rollout, RolloutItem, UserTier
from shared import log
from shared.events import TierName

# Why a rollout that is through with a subscription left it where it was, for longer than it lasted.
HOLDING_CODES = ("grandfathered", "not_told", "never_moved")
UNPRICED = ("excluded", "failed")
# Any number no other advisory lock of this database uses; the second part is a version's.
WALKS = 7_400_302
# Who has never earned a point.
FIRST_TIER: TierName = "bronze"
TIER: TypeAdapter[TierName] = TypeAdapter(TierName)

logger = log.get("pricing")


@dataclass(frozen=True)
class Offer:
    """What some versions amount to in one currency, and what variants sell for under them."""

    terms: Terms
    prices: Mapping[UUID, int]


@dataclass(frozen=True)
class Context:
    """What a batch is priced with, beside each subscription's own row."""

    layers: Layers
    current: Mapping[datetime, tuple[Layer, ...]]  # by when each row was written
    tiers: Mapping[UUID, TierName]  # by user; whoever is not in it is FIRST_TIER
    catalogue: Prices
    held: Mapping[UUID, frozenset[int]]  # versions whose rollouts keep a subscription where it is
    # Composed once for all who are priced alike: there may be thousands of rates and prices.
    composed: dict[tuple[tuple[int, ...], str], Offer] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What a subscription is priced by now, and how its box comes out of it; kind None: as it was."""

    layers: tuple[Layer, ...]
    terms: Terms
    box: Box
    kind: CostKind | None

    @property
    def newest(self) -> int:
        """The version a cost line is named after."""
        return newest(self.layers)


def newest(layers: Iterable[Layer]) -> int:
    return max(layers, key=lambda layer: (layer.effective_from, layer.number)).number


async def reprice(
    session: AsyncSession, layers: Layers, whys: Mapping[UUID, Why]
) -> list[CostChange]:
    """Price what differs from its row; a subscription whose cost is right already is not touched.

    Raises NoDeliveryCost, NoTaxRate, UnknownVariant, UnreadableSubscription.
    """
    await session.execute(_WALKING, {"walks": WALKS})
    rows = await lock_rows(session, whys)
    subjects = [s for row in rows if _priceable(s := Subject.of(row), layers, whys[s.id])]
    written = {subject.id: whys[subject.id].at for subject in subjects}
    context = await context_of(session, layers, subjects, written)
    changes: list[CostChange] = []
    unchanged: list[tuple[Subject, Box]] = []
    stamped: dict[tuple[int, tuple[int, ...]], list[UUID]] = {}
    for subject in subjects:
        why = whys[subject.id]
        decision = decide(subject, context, why.at)
        if decision.kind is None:
            unchanged.append((subject, decision.box))
            continue
        old, composition = subject.cost_breakdown, numbers(decision.layers)
        new = cost(decision.terms, decision.box, composition)
        if decision.kind == "config" and old is not None and same_cents(old, new):
            unchanged.append((subject, decision.box))
            stamped.setdefault((decision.newest, composition), []).append(subject.id)
            continue
        since = max(why.at, *(layer.effective_from for layer in decision.layers))
        changes.append(CostChange(subject, decision.newest, new, decision.kind, since, why))
    await refill(session, unchanged)
    for (newest, composition), ids in stamped.items():
        await stamp(session, ids, newest, composition)
    await record(session, changes)
    return changes


def decide(subject: Subject, context: Context, at: datetime) -> Decision:
    """What a priceable subscription that was written at `at` is priced by, and whether its cost is another now.

    Raises UnknownVariant.
    """
    published = context.layers.versions
    # One that was withdrawn on the eve of its time falls away as a scope does that covers it no more.
    on = [published[number].layer for number in subject.composition() if number in published]
    member = subject.member(context.tiers.get(subject.user_id, FIRST_TIER))
    held = context.held.get(subject.id, frozenset())
    layers = choose(member, context.current[at], on, held)
    offer = _offer(context, layers, subject.currency)
    box = subject.box({subject.currency: offer.prices})
    kind = kind_of_change(subject.cost_breakdown, box)
    if subject.cost_breakdown is None or numbers(layers) == subject.composition():
        return Decision(layers, offer.terms, box, kind)
    moved = moved_lines(box.variants, renamed_prices(box, on, layers, offer.prices))
    return Decision(layers, offer.terms, replace(box, variants=moved), kind or "config")


def renamed_prices(
    box: Box, on: Sequence[Layer], layers: Sequence[Layer], offers: Mapping[UUID, int]
) -> Mapping[UUID, int]:
    """Unit prices that go with a changed composition: what a version that is new names, and what one whose scope
    covers the subscription no more had named, where the line still carries that price."""
    before, scopes = {layer.number for layer in on}, {layer.scope_id for layer in layers}
    named = {
        variant
        for layer in layers
        if layer.number not in before
        for variant in layer.changes.variant_prices.get(box.currency, {})
    }
    for layer in on:
        if layer.scope_id not in scopes:
            prices = layer.changes.variant_prices.get(box.currency, {})
            named |= {
                line.variant_id
                for line in box.variants
                if prices.get(line.variant_id) == line.unit_price_minor
            }
    return {variant: offers[variant] for variant in named if variant in offers}


def _offer(context: Context, layers: tuple[Layer, ...], currency: str) -> Offer:
    key = numbers(layers), currency
    if key not in context.composed:
        terms, catalogue = compose(layers), context.catalogue.get(currency, {})
        context.composed[key] = Offer(terms, offered(terms, catalogue, currency))
    return context.composed[key]


def _priceable(subject: Subject, layers: Layers, why: Why) -> bool:
    if priceable_at(layers, why.at) and subject.unpriceable() is None:
        return True
    reason = subject.unpriceable() or "no price version is in force"
    logger.info("subscription not priced", subscription_id=str(subject.id), reason=reason)
    return False


def priceable_at(layers: Layers, at: datetime) -> bool:
    """Whether there is a version for everything to price by."""
    return any(layer.scope.everything for layer in layers.current(at))


async def context_of(
    session: AsyncSession,
    layers: Layers,
    subjects: Sequence[Subject],
    written: Mapping[UUID, datetime],
) -> Context:
    """What `decide` needs to know of priceable subscriptions, by when each is `written`."""
    current = {at: layers.current(at) for at in written.values()}
    wanted = {
        line.variant_id
        for subject in subjects
        for line in subject.lines()
        # A cohort's price may fall away with it.
        if line.unit_price_minor is None or len(subject.composition()) > 1
    }
    return Context(
        layers,
        current,
        await tiers_of(session, layers, {subject.user_id for subject in subjects}),
        await current_prices(session, wanted),
        await _held(session, [(s, current[written[s.id]]) for s in subjects], layers),
    )


def asks_for_tiers(layers: Layers) -> bool:
    return any(version.layer.scope.tiers for version in layers.versions.values())


async def tiers_of(
    session: AsyncSession, layers: Layers, users: Collection[UUID]
) -> Mapping[UUID, TierName]:
    """Tiers as last heard, where any version asks for them."""
    if not users or not asks_for_tiers(layers):
        return {}
    found = await session.execute(
        select(UserTier.user_id, UserTier.tier).where(UserTier.user_id.in_(users))
    )
    return {user_id: TIER.validate_python(tier) for user_id, tier in found}


async def _held(
    session: AsyncSession, subjects: Sequence[tuple[Subject, tuple[Layer, ...]]], layers: Layers
) -> Mapping[UUID, frozenset[int]]:
    """By subscription, the versions in force whose rollouts keep it, or have not come to it yet."""
    behind: dict[int, list[Subject]] = {}
    for subject, current in subjects:
        for layer in current:
            new = layer.number not in subject.composition()
            if new and subject.composition() and subject.created_at < layer.effective_from:
                behind.setdefault(layer.number, []).append(subject)
    if not behind:
        return {}
    # How far a walk is does not change before the caller's transaction ends: nobody who joins a cohort meanwhile
    # is passed by unseen.  Most of these locks are held since _WALKING; a walk may have begun since.
    for number in sorted(behind):
        await session.execute(select(func.pg_advisory_xact_lock_shared(WALKS, number)))
    held: dict[UUID, set[int]] = {}
    for number, subscription_id in await _kept(session, behind, planned_versions(layers)):
        held.setdefault(subscription_id, set()).add(number)
    rollouts = await session.scalars(select(Rollout).where(Rollout.price_version.in_(behind)))
    walks = {rollout.price_version: rollout for rollout in rollouts}
    for number, waiting in behind.items():
        for subject in waiting:
            if not passed(walks.get(number), subject.id):
                held.setdefault(subject.id, set()).add(number)
    return {subscription_id: frozenset(versions) for subscription_id, versions in held.items()}


def passed(rollout: Rollout | None, subscription_id: UUID) -> bool:
    """Whether a rollout's walk has come by this subscription."""
    if rollout is None:
        return False
    reached = rollout.listed_to is not None and subscription_id <= rollout.listed_to
    return rollout.status == "done" or reached


def planned_versions(layers: Layers) -> list[int]:
    """Those in force that do not reach everybody at once: whoever was there before has a turn, or never has."""
    return [
        number
        for number, version in layers.versions.items()
        if version.status == "active" and not version.timing.at_once
    ]


async def _kept(
    session: AsyncSession, behind: Mapping[int, Sequence[Subject]], planned: Sequence[int]
) -> Sequence[tuple[int, UUID]]:
    """Who could not be priced when his turn was planned has none yet: it is planned when it can be."""
    unplanned = RolloutItem.price_version.in_(planned) & RolloutItem.outcome.in_(UNPRICED)
    ids = {subject.id for subjects in behind.values() for subject in subjects}
    statement = select(RolloutItem.price_version, RolloutItem.subscription_id).where(
        RolloutItem.price_version.in_(behind),
        RolloutItem.subscription_id.in_(ids),
        or_(
            RolloutItem.outcome.is_(None),
            RolloutItem.outcome == "deferred",
            RolloutItem.code.in_(HOLDING_CODES),
            unplanned,
        ),
    )
    return [(row.price_version, row.subscription_id) for row in await session.execute(statement)]


# A chunk takes a fraction of 100 ms: waited for before rows are locked, not by whoever waits for those rows besides.
_WALKING = text("""
SELECT pg_advisory_xact_lock_shared(:walks, price_version)
FROM (SELECT price_version FROM rollouts WHERE status = 'listing' ORDER BY price_version OFFSET 0) walking
""")
