"""A chunk of subscriptions on its way through pricing_sql: whose turn it is, groups asked for, samples computed again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import RowMapping, TextClause
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.alone import given
from services.pricing.campaign import Campaign, Group, row_of
from services.pricing.domain import Box
from services.pricing.pricing_sql import LOCK, Shape, covered, members
from shared.errors import Conflict
from shared.events import CostBreakdown

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
# A narrow scope's next members may be far away: looked for among this many subscriptions at a time.
WINDOW_ROWS = 20_000
# A statement reads its groups anew each time: the rare ones only where they are asked for.
COMMON_GROUPS = 200
GROUPS_KEPT = 20_000  # some 10 MB


class Disagreement(Conflict):
    title = "SQL and the pure rule do not agree on a cost"


class Asked(BaseModel):
    """A group as pricing_sql asks for it, or names it in a sample."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    versions: tuple[int | None, ...]
    before: tuple[int | None, ...] | None = None
    currency: str
    delivery_type: str
    place: str

    def group(self) -> Group:
        before = None if self.before is None else _numbers(self.before)
        on = _numbers(self.versions)
        return Group(on, self.currency, self.delivery_type, self.place, before)


class Sample(BaseModel):
    """One row as SQL priced it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    versions: tuple[int | None, ...]
    before: tuple[int | None, ...] | None = None
    old: CostBreakdown
    new: dict[str, object]


ASKED: TypeAdapter[list[Asked]] = TypeAdapter(list[Asked])
SAMPLES: TypeAdapter[list[Sample]] = TypeAdapter(list[Sample])


@dataclass
class Known:
    """Groups' terms as pricing_sql reads them, remembered from chunk to chunk of one version."""

    key: object = None
    rows: dict[Asked, dict[str, object]] = field(default_factory=dict)

    def of(self, key: object) -> Self:
        """Emptied where it is about another version, or the same one in other circumstances."""
        if key != self.key or len(self.rows) > GROUPS_KEPT:
            self.key, self.rows = key, {}
        return self

    def common(self) -> list[Asked]:
        """Those met first are met most: every chunk is told of them without asking."""
        return list(islice(self.rows, COMMON_GROUPS))

    def row(self, campaign: Campaign, asked: Asked) -> dict[str, object]:
        if asked not in self.rows:
            self.rows[asked] = row_of(campaign, asked.group()) | _as_asked(asked)
        return self.rows[asked]


@dataclass(frozen=True)
class Turn:
    """Whose turn it is, and up to which id everybody has had it."""

    ids: Sequence[UUID]
    first: UUID
    reached: UUID

    @property
    def over(self) -> bool:
        return self.reached == LAST_ID


@dataclass(frozen=True)
class Answer:
    """What a statement says of a chunk: its own rows, and whom it left alone."""

    rows: Sequence[RowMapping]
    alone: Sequence[UUID]


def shape_of(campaign: Campaign) -> Shape:
    return Shape(bool(campaign.layer.changes.variant_prices), campaign.reverts is not None)


async def next_turn(
    session: AsyncSession, campaign: Campaign, reached: UUID | None, rows: int
) -> Turn:
    """The next `rows` at most of those the scope covers, after `reached`."""
    first = FIRST_ID if reached is None else UUID(int=reached.int + 1)
    scope = covered(campaign.layer.scope)
    most = rows if campaign.layer.scope.everything else max(rows, WINDOW_ROWS)
    values = scope.values | {"first": first, "most": most, "end": LAST_ID, "rows": rows}
    found = (await session.execute(members(scope.condition), values)).one()
    ids: Sequence[UUID] = found.ids
    return Turn(ids, first, ids[-1] if len(ids) == rows else found.last or LAST_ID)


async def lock_free(
    session: AsyncSession, ids: Sequence[UUID]
) -> tuple[Sequence[UUID], Sequence[UUID]]:
    """Lock those that nobody else is changing, in order of id, without waiting; the others come back second.

    What the caller then does before it commits, the storefront may wait for.
    """
    ours: Sequence[UUID] = []
    if ids:
        ours = (await session.execute(LOCK, {"ids": ids})).one().ours
    locked = set(ours)
    return ours, [each for each in ids if each not in locked]


async def ask(
    session: AsyncSession,
    statement: TextClause,
    values: Mapping[str, object],
    campaign: Campaign,
    known: Known,
) -> Answer:
    """Run `statement` for its `ids`; once more for the groups it did not know yet.

    Raises Disagreement.
    """
    fixed = dict(values)
    if campaign.layer.changes.variant_prices:
        fixed["prices"] = _prices(campaign)
    if campaign.reverts is not None:
        fixed["reverts"] = campaign.reverts.number
    asked, rows, alone = known.common(), list[RowMapping](), list[UUID]()
    while True:
        groups = dumps([known.row(campaign, each) for each in asked])
        row = (await session.execute(statement, fixed | {"groups": groups})).mappings().one()
        _check(campaign, row["sample"])
        rows.append(row)
        alone += row["alone"] or ()
        if not row["waiting"]:
            return Answer(rows, alone)
        # Those alone, whatever becomes of their rows meanwhile: the others are done.
        fixed["ids"] = row["waiting"]
        asked = ASKED.validate_python(row["unknown"])


def dumps(value: object) -> str:
    """Canonical JSON; the driver's own UUIDs are none of orjson's."""
    option = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=str, option=option).decode()


def _check(campaign: Campaign, sample: object) -> None:
    """The pure rule computes again what SQL did.  Raises Disagreement."""
    for row in SAMPLES.validate_python(sample or []):
        old = row.old
        asked = Asked(
            versions=row.versions,
            before=row.before,
            currency=old.currency,
            delivery_type=old.delivery_type,
            place=old.place,
        )
        verdict = campaign.verdict(asked.group())
        box = Box(
            *(old.currency, old.variants, old.delivery_type, old.place),
            old.loyalty_discount_minor,
        )
        again = campaign.priced(verdict, box, given(campaign, verdict, old.variants, None, {}))
        if again.model_dump(mode="json") != row.new:
            raise Disagreement(
                f"subscription {row.id}: SQL says {row.new.get('total_minor')},"
                f" the rule {again.total_minor}",
                subscription_id=str(row.id),
            )


def _as_asked(asked: Asked) -> dict[str, object]:
    """The very values SQL compares with, whatever they were read as."""
    before = None if asked.before is None else list(asked.before)
    return {"versions": list(asked.versions), "before": before}


def _prices(campaign: Campaign) -> str:
    rows = [
        {"currency": currency, "variant": str(variant), "price": price}
        for currency, prices in campaign.layer.changes.variant_prices.items()
        for variant, price in prices.items()
    ]
    return dumps(rows)


def _numbers(versions: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(number for number in versions if number is not None)
