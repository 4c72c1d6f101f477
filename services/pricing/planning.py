"""When a version reaches each subscription of a chunk, where that is not at once for everybody."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import assert_never
from uuid import UUID

from pydantic import BaseModel, ConfigDict
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
        for found in row["placed"] or ():
            made = _planned(campaign, found)
            match made:
                case Plan():
                    plans.append(made)
                case Settled():
                    settled.append(made)
                case _:
                    assert_never(made)
    return Planned(plans, settled, answer.alone)


def _planned(campaign: Campaign, found: Mapping[str, object]) -> Plan | Settled:
    """Never raises: a row may say anything, and stops nobody else."""
    try:
        placed = Placed.model_validate(found)
        if placed.verdict is not None or placed.new is None:
            return Settled(placed.id, placed.verdict or "failed", placed.code, placed.detail)
        turn = campaign.plan(_situation(placed, placed.new))
    except (ValueError, OverflowError) as error:
        return unplanned(UUID(str(found["id"])), error)
    return Plan(placed.id, placed.user_id, turn, placed.old, placed.new)


def unplanned(subscription_id: UUID, error: Exception) -> Settled:
    first = str(error).splitlines()[0]
    return Settled(subscription_id, "failed", "no_turn", f"its turn cannot be told: {first}")


def plans_alone(campaign: Campaign, results: Iterable[Result]) -> tuple[list[Plan], list[Settled]]:
    """The same for those priced one by one; who has no price has no turn."""
    plans: list[Plan] = []
    settled: list[Settled] = []
    for result in results:
        if result.new is None or result.subject is None:
            continue
        subject, new = result.subject, result.new
        try:
            turn = campaign.plan(result.situation(new.place))
        except (ValueError, OverflowError) as error:
            settled.append(unplanned(subject.id, error))
            continue
        plans.append(Plan(subject.id, subject.user_id, turn, subject.cost_breakdown, new))
    return plans, settled


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
