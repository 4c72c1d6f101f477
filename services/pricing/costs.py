"""What a subscription's cost is made of, read under lock; and a cost that changed, with its history and its fact.

Everything is set-based: a batch of facts or a chunk of a rollout takes the same few statements as one request.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import RowMapping, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.domain import (
    Box,
    CostKind,
    place_of,
    priced_lines,
)
from services.pricing.scopes import Member
from shared.errors import Conflict
from shared.events import (
    BillingInterval,
    BoxLine,
    CostBreakdown,
    SubscriptionCostChanged,
    SubscriptionStatus,
    TierName,
    derived_id,
)
from shared.outbox import publish
from shared.storefront import Address, ProductVariant, Subscription
from shared.trace import Cause

# currency -> variant -> what it sells for now
Prices = Mapping[str, Mapping[UUID, int]]

REASONS: Mapping[CostKind, str] = {
    "created": "the subscription was priced for the first time",
    "variants": "the box's contents changed",
    "delivery": "the delivery changed",
    "discount": "the loyalty discount changed",
    "config": "a price version was published",
    "revert": "a price version was taken back",
}


class UnreadableSubscription(Conflict):
    title = "The storefront wrote something into the subscription that is no box"


class Subject(BaseModel):
    """A subscription as its row and its delivery address say it now."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    user_id: UUID
    status: SubscriptionStatus
    currency: str
    billing_interval: BillingInterval
    variants: tuple[BoxLine, ...]
    created_at: datetime
    cost_breakdown: CostBreakdown | None
    price_version: int | None
    delivery_type: str | None
    loyalty_discount_minor: int
    country: str | None
    region: str | None

    @classmethod
    def of(cls, row: RowMapping) -> Self:
        """Raises UnreadableSubscription."""
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UnreadableSubscription(
                f"{where}: {first['msg']}", subscription_id=str(row["id"])
            ) from error

    def unpriceable(self) -> str | None:
        """Why there is nothing to price, or None."""
        if self.status == "canceled":
            return "it is canceled"
        if not self.variants:
            return "it has no variants"
        if self.delivery_type is None:
            return "it has no delivery type"
        return "it has no delivery address" if self.country is None else None

    def lines(self) -> tuple[BoxLine, ...]:
        """Its variants; unit prices in a currency it had before count for nothing."""
        if self.cost_breakdown is None or self.cost_breakdown.currency == self.currency:
            return self.variants
        return tuple(line.model_copy(update={"unit_price_minor": None}) for line in self.variants)

    def composition(self) -> tuple[int, ...]:
        """The versions its cost is composed of, in order; rows of earlier releases name one."""
        if self.cost_breakdown is not None and self.cost_breakdown.price_versions:
            return self.cost_breakdown.price_versions
        return () if self.price_version is None else (self.price_version,)

    def delivery(self) -> tuple[str, str]:
        """Its type and its place.  Raises ValueError where there is nothing to price."""
        if self.delivery_type is None or self.country is None:
            raise ValueError(f"subscription {self.id} cannot be priced: {self.unpriceable()}")
        return self.delivery_type, place_of(self.country, self.region)

    def box(self, prices: Prices) -> Box:
        """Raises UnknownVariant, and ValueError where there is nothing to price."""
        lines = priced_lines(self.lines(), prices.get(self.currency, {}), self.currency)
        return Box(self.currency, lines, *self.delivery(), self.loyalty_discount_minor)

    def member(self, tier: TierName) -> Member:
        """What scopes ask of it.  Raises ValueError where there is nothing to price."""
        delivery_type, place = self.delivery()
        variants = frozenset(line.variant_id for line in self.variants)
        return Member(self.id, self.currency, place, delivery_type, variants, tier, self.created_at)


@dataclass(frozen=True)
class Why:
    """Who changed something, when, and the event or request it came with."""

    changed_by: str
    cause: Cause
    at: datetime
    reason: str | None = None  # none: what the kind of change says


@dataclass(frozen=True)
class CostChange:
    """A subscription's new cost, and everything its history has to say about it."""

    subject: Subject
    version: int
    new: CostBreakdown
    kind: CostKind
    effective_at: datetime
    why: Why

    def row(self) -> dict[str, object]:
        old, new = self.subject.cost_breakdown, self.new
        carried = [line.unit_price_minor for line in self.subject.variants]
        refilled = carried != [line.unit_price_minor for line in new.variants]
        return {
            "subscription_id": str(self.subject.id),
            "user_id": str(self.subject.user_id),
            "price_version": self.version,
            "kind": self.kind,
            "currency": new.currency,
            "variants": [v.model_dump(mode="json") for v in new.variants] if refilled else None,
            "variants_changed_at": self.why.at if self.kind in ("created", "variants") else None,
            "old_breakdown": old.model_dump(mode="json") if old else None,
            "new_breakdown": new.model_dump(mode="json"),
            "effective_at": self.effective_at,
            "reason": self.why.reason or REASONS[self.kind],
            "changed_by": self.why.changed_by,
            "cause_id": self.why.cause.id,
        }


# Rows for `Subject.of`.
_ROWS = select(
    *(Subscription.id, Subscription.user_id, Subscription.status, Subscription.currency),
    *(Subscription.billing_interval, Subscription.variants, Subscription.cost_breakdown),
    *(Subscription.created_at, Subscription.price_version, Subscription.delivery_type),
    *(Subscription.loyalty_discount_minor, Address.country, Address.region),
).outerjoin(Address, Address.id == Subscription.delivery_address_id)


async def lock_rows(session: AsyncSession, ids: Collection[UUID]) -> Sequence[RowMapping]:
    """Rows for `Subject.of`, locked in order of id until commit."""
    statement = (
        _ROWS.where(Subscription.id.in_(ids))
        .order_by(Subscription.id)
        .with_for_update(of=Subscription, key_share=True)
    )
    return (await session.execute(statement)).mappings().all()


async def read_row(session: AsyncSession, subscription_id: UUID) -> RowMapping | None:
    """As `lock_rows`, of one that nothing is written to."""
    statement = _ROWS.where(Subscription.id == subscription_id)
    return (await session.execute(statement)).mappings().one_or_none()


async def prices_for(session: AsyncSession, subjects: Iterable[Subject]) -> Prices:
    """Current prices of the variants that some subject has no unit price for."""
    wanted = {
        line.variant_id for s in subjects for line in s.lines() if line.unit_price_minor is None
    }
    return await current_prices(session, wanted)


async def current_prices(session: AsyncSession, variants: Collection[UUID]) -> Prices:
    prices: dict[str, dict[UUID, int]] = {}
    if variants:
        columns = (ProductVariant.currency, ProductVariant.id, ProductVariant.price_minor)
        found = await session.execute(select(*columns).where(ProductVariant.id.in_(variants)))
        for currency, variant_id, price_minor in found:
            prices.setdefault(currency, {})[variant_id] = price_minor
    return prices


async def refill(session: AsyncSession, boxes: Iterable[tuple[Subject, Box]]) -> None:
    """Note again what a box was priced at, where the storefront rewrote its lines without prices."""
    rows = [
        {"id": str(subject.id), "variants": [line.model_dump(mode="json") for line in box.variants]}
        for subject, box in boxes
        if any(line.unit_price_minor is None for line in subject.variants)
    ]
    if rows:
        await session.execute(_HOLD_TRIGGER)
        await session.execute(_REFILL, {"rows": orjson.dumps(rows).decode()})
        await session.execute(_RELEASE_TRIGGER)


async def record(session: AsyncSession, changes: Sequence[CostChange]) -> None:
    """Write each change to its subscription and to the history, and stage its fact.  One per subscription."""
    if not changes:
        return
    rows = {"rows": orjson.dumps([change.row() for change in changes]).decode()}
    await session.execute(_HOLD_TRIGGER)
    await session.execute(_UPDATE, rows)
    await session.execute(_RELEASE_TRIGGER)
    appended = (await session.execute(_APPEND, rows)).all()
    lines = {row.subscription_id: (row.id, row.line_hash.hex()) for row in appended}
    heads = {
        "ids": [row.subscription_id for row in appended],
        "heads": [row.line_hash for row in appended],
    }
    revised = await session.execute(_REVISE, heads)
    revisions: dict[UUID, int] = {row.subscription_id: row.revision for row in revised}
    await publish(
        session,
        [
            (_fact(c, revisions[c.subject.id], lines[c.subject.id]), c.why.cause)
            for c in sorted(changes, key=lambda change: change.subject.id)
        ],
    )


async def stamp(
    session: AsyncSession, ids: Collection[UUID], version: int, price_versions: tuple[int, ...]
) -> None:
    """Say that these subscriptions' costs are those of `version`, and of the whole composition, too."""
    if ids:
        composition = orjson.dumps(price_versions).decode()
        said = {"ids": list(ids), "version": version, "composition": composition}
        await session.execute(_HOLD_TRIGGER)
        await session.execute(_STAMP, said)
        await session.execute(_RELEASE_TRIGGER)


def _fact(change: CostChange, revision: int, line: tuple[int, str]) -> SubscriptionCostChanged:
    """`line`: the id and the hash of its line of the history."""
    subject, old = change.subject, change.subject.cost_breakdown
    return SubscriptionCostChanged(
        id=derived_id(SubscriptionCostChanged.type, subject.id, revision),
        occurred_at=change.why.at,
        customer_id=subject.user_id,
        subscription_id=subject.id,
        revision=revision,
        status=subject.status,
        currency=subject.currency,
        billing_interval=subject.billing_interval,
        price_version=change.version,
        cost_history_id=line[0],
        history_hash=line[1],
        old_breakdown=old,
        new_breakdown=change.new,
        old_total_minor=old.total_minor if old else None,
        new_total_minor=change.new.total_minor,
        effective_at=change.effective_at,
        # The contract's kinds stand; a price that is taken back is a configuration's as well.
        kind="config" if change.kind == "revert" else change.kind,
        reason=change.why.reason or REASONS[change.kind],
        changed_by=change.why.changed_by,
    )


# Not a SubscriptionChanged: what changes here is the price, and subscription_cost_changed says so.
_HOLD_TRIGGER = text("SELECT set_config('farebox.pricing', 'on', true)")
_RELEASE_TRIGGER = text("SELECT set_config('farebox.pricing', '', true)")

_UPDATE = text("""
UPDATE public.subscriptions AS s SET
    variants = coalesce(r.variants, s.variants),
    variants_changed_at = coalesce(r.variants_changed_at, s.variants_changed_at),
    cost_breakdown = r.new_breakdown,
    total_minor = (r.new_breakdown ->> 'total_minor')::bigint,
    admin_percentage_applied = (r.new_breakdown ->> 'admin_percentage')::numeric,
    tax_rate_applied = (r.new_breakdown ->> 'tax_rate')::numeric,
    tax_minor = (r.new_breakdown ->> 'tax_minor')::bigint,
    delivery_cost_minor = (r.new_breakdown ->> 'delivery_minor')::bigint,
    price_version = r.price_version
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
    subscription_id uuid, price_version integer, variants jsonb, variants_changed_at timestamptz,
    new_breakdown jsonb)
WHERE s.id = r.subscription_id
""")

_APPEND = text("""
INSERT INTO subscription_cost_history (subscription_id, user_id, price_version, kind, currency,
    old_breakdown, new_breakdown, old_total_minor, new_total_minor, effective_at, reason, changed_by,
    cause_id, recorded_at, line_hash)
SELECT r.subscription_id, user_id, price_version, kind, currency, old_breakdown, new_breakdown,
    (old_breakdown ->> 'total_minor')::bigint, (new_breakdown ->> 'total_minor')::bigint,
    effective_at, reason, changed_by, cause_id, now(),
    cost_line_hash(v.head, r.subscription_id, user_id, price_version, kind, effective_at, new_breakdown,
        reason, changed_by, cause_id, now())
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
    subscription_id uuid, user_id uuid, price_version integer, kind text, currency text,
    old_breakdown jsonb, new_breakdown jsonb, effective_at timestamptz, reason text,
    changed_by text, cause_id text)
LEFT JOIN subscription_revisions v ON v.subscription_id = r.subscription_id
ORDER BY r.subscription_id
RETURNING subscription_id, id, line_hash
""")

_REVISE = text("""
INSERT INTO subscription_revisions AS r (subscription_id, revision, head)
SELECT id, 1, head FROM unnest(CAST(:ids AS uuid[]), CAST(:heads AS bytea[])) AS h (id, head)
ORDER BY id
ON CONFLICT (subscription_id) DO UPDATE SET revision = r.revision + 1, head = excluded.head
RETURNING r.subscription_id, r.revision
""")

_REFILL = text("""
UPDATE public.subscriptions AS s SET variants = r.variants
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, variants jsonb) WHERE s.id = r.id
""")

_STAMP = text("""
UPDATE public.subscriptions SET price_version = :version,
    cost_breakdown = jsonb_set(cost_breakdown, '{price_versions}', CAST(:composition AS jsonb))
WHERE id = ANY (CAST(:ids AS uuid[]))
""")
