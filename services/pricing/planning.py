"""When a version reaches each subscription of a chunk, where that is not at once for everybody."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.alone import Result
from services.pricing.campaign import Campaign, Outcome
from services.pricing.chunk import Known, ask, shape_of
from services.pricing.pricing_sql import Shape, left, priced
from services.pricing.timing import Due, Situation, Stays
from shared.events import BillingInterval, CostBreakdown


class Placed(BaseModel):
    """A row that SQL priced, or gave its group's verdict, and what its turn depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    user_id: UUID
    verdict: Outcome | None
    code: str | None
    detail: str | None
    place: str
    created_at: datetime
    period_start: datetime | None
    period_end: datetime | None
    billing_interval: BillingInterval
    next_delivery_on: date | None
    old: CostBreakdown
    new: CostBreakdown | None


PLACED: TypeAdapter[list[Placed]] = TypeAdapter(list[Placed])


@dataclass(frozen=True)
class Plan:
    """One subscription's turn: when, or why never, and what its customer is to be told."""

    subscription_id: UUID
    user_id: UUID
    turn: Due | Stays
    old: CostBreakdown | None
    new: CostBreakdown


@dataclass(frozen=True)
class Settled:
    """One that its group's verdict decided: there is nothing to wait for."""

    subscription_id: UUID
    outcome: Outcome
    code: str | None
    detail: str | None


@dataclass(frozen=True)
class Planned:
    """A chunk's plans, whom the verdict settled, and whom SQL left alone."""

    plans: Sequence[Plan]
    settled: Sequence[Settled]
    alone: Sequence[UUID]


async def plan_chunk(
    session: AsyncSession, campaign: Campaign, ids: Sequence[UUID], known: Known
) -> Planned:
    """Raises Disagreement."""
    answer = await ask(session, _statement(shape_of(campaign)), {"ids": ids}, campaign, known)
    plans: list[Plan] = []
    settled: list[Settled] = []
    for row in answer.rows:
        for placed in PLACED.validate_python(row["placed"] or []):
            if placed.verdict is not None or placed.new is None:
                outcome = placed.verdict or "failed"
                settled.append(Settled(placed.id, outcome, placed.code, placed.detail))
                continue
            turn = campaign.plan(_situation(placed, placed.new))
            plans.append(Plan(placed.id, placed.user_id, turn, placed.old, placed.new))
    return Planned(plans, settled, answer.alone)


def plans_alone(campaign: Campaign, results: Iterable[Result]) -> list[Plan]:
    """The same for those priced one by one; who has no price has no turn."""
    return [
        Plan(
            result.subscription_id,
            result.subject.user_id,
            campaign.plan(result.situation(result.new.place)),
            result.subject.cost_breakdown,
            result.new,
        )
        for result in results
        if result.new is not None and result.subject is not None
    ]


def _situation(placed: Placed, new: CostBreakdown) -> Situation:
    return Situation(
        placed.created_at,
        placed.period_end,
        placed.billing_interval,
        placed.place,
        placed.next_delivery_on,
        new.total_minor > placed.old.total_minor,
        placed.period_start,
    )


def _statement(shape: Shape) -> TextClause:
    return text(f"""
WITH {priced(shape)}
SELECT (SELECT jsonb_agg(jsonb_build_object('id', id, 'user_id', user_id, 'verdict', verdict, 'code', code,
        'detail', detail, 'place', place, 'created_at', created_at, 'period_start', period_start,
        'period_end', period_end, 'billing_interval', billing_interval,
        'next_delivery_on', next_delivery_on, 'old', old, 'new', new)) FROM priced) AS placed,
    {left(shape)}
""")
