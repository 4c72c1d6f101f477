"""A chunk of a rollout that comes later, or never: noted with the time, and whoever is to be told is."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from services.pricing.alone import price_alone
from services.pricing.chunk import dumps
from services.pricing.moving import Chunk, ended_item, item, settle
from services.pricing.operating import ACCEPTED, RETRIED
from services.pricing.planning import Plan, plan_chunk, plans_alone
from services.pricing.rollout_sql import NOTIFY, REDATE, TURNS
from services.pricing.timing import Due, Stays
from shared.events import NoticeDue, derived_id
from shared.outbox import publish
from shared.trace import Cause

AGAIN = (ACCEPTED, RETRIED)


async def list_chunk(chunk: Chunk) -> None:
    """Note when each is due, tell whom to tell, and settle those who never are."""
    session, campaign = chunk.session, chunk.campaign
    planned = await plan_chunk(session, campaign, chunk.ids, chunk.known)
    results = await price_alone(session, campaign, planned.alone) if planned.alone else []
    alone, unplanned = plans_alone(campaign, results)
    plans = [*planned.plans, *alone]
    settled = [
        item(s.subscription_id, s.outcome, s.code, s.detail) for s in (*planned.settled, *unplanned)
    ] + [ended_item(result) for result in results if result.new is None]
    notices = [plan for plan in plans if isinstance(plan.turn, Due) and plan.turn.notify_by]
    await settle(chunk, settled + [_planned(plan, chunk.version) for plan in plans])
    await _notify(chunk, notices)


async def plan_again(chunk: Chunk) -> Sequence[UUID]:
    """Whose time has really come, as subscriptions are now; another time is noted, and who stays ends here.

    Never before the day that a notice named; what an operator took up again is not planned any more.
    """
    session, campaign = chunk.session, chunk.campaign
    values = {"version": chunk.version, "ids": chunk.ids}
    turns = {row.subscription_id: row for row in await session.execute(TURNS, values)}
    ids = [i for i in chunk.ids if turns[i].code not in AGAIN]
    if campaign.at_once or not ids:
        return chunk.ids
    planned = await plan_chunk(session, campaign, ids, chunk.known)
    results = await price_alone(session, campaign, planned.alone) if planned.alone else []
    later: list[dict[str, object]] = []
    ended: list[dict[str, object]] = []
    untold: list[UUID] = []
    not_now: set[UUID] = set()
    for plan in (*planned.plans, *plans_alone(campaign, results)[0]):
        said = turns[plan.subscription_id]
        match plan.turn:
            case Stays(code=code):
                ended.append(item(plan.subscription_id, "kept", code))
            case Due() as due if due.notify_by is not None and said.notice_id is None:
                untold.append(plan.subscription_id)
            case Due() as due:
                at = due.at
                if said.notice_id is not None and said.effective_at is not None:
                    at = max(at, said.effective_at)
                due_at = at - (due.at - due.carry_out_at)
                if due_at > chunk.why.at:
                    not_now.add(plan.subscription_id)
                later.append({"id": plan.subscription_id, "due_at": due_at, "effective_at": at})
    await settle(chunk, ended)
    if later:
        await session.execute(REDATE, {"version": chunk.version, "rows": dumps(later)})
    if untold:
        # It was no rise when it was planned, and is one now: told from today.
        today = replace(campaign, started=chunk.why.at)
        await list_chunk(replace(chunk, ids=untold, campaign=today))
    not_now |= {UUID(str(row["id"])) for row in ended} | set(untold)
    return [i for i in chunk.ids if i not in not_now]


def _planned(plan: Plan, version: int) -> dict[str, object]:
    match plan.turn:
        case Stays(code=code):
            return item(plan.subscription_id, "kept", code)
        case Due() as due:
            notice = _notice_id(version, plan.subscription_id) if due.notify_by else None
            return item(plan.subscription_id, None) | {
                "due_at": due.carry_out_at,
                "effective_at": due.at,
                "notice_id": notice,
            }


async def _notify(chunk: Chunk, plans: Sequence[Plan]) -> None:
    facts: list[tuple[NoticeDue, Cause]] = []
    for plan in plans:
        if not isinstance(plan.turn, Due) or plan.turn.notify_by is None:
            continue
        facts.append((_notice_due(chunk, plan, plan.turn, plan.turn.notify_by), chunk.why.cause))
    if not facts:
        return
    rows = [
        {
            "id": fact.notice_id,
            "subscription_id": fact.subscription_id,
            "user_id": fact.customer_id,
            "effective_at": fact.effective_at,
            "notify_by": fact.notify_by,
        }
        for fact, _ in facts
    ]
    values = {"version": chunk.version, "now": chunk.why.at, "rows": dumps(rows)}
    await chunk.session.execute(NOTIFY, values)
    await publish(chunk.session, facts)


def _notice_due(chunk: Chunk, plan: Plan, due: Due, notify_by: datetime) -> NoticeDue:
    old = plan.old
    return NoticeDue(
        id=derived_id(NoticeDue.type, chunk.version, plan.subscription_id),
        occurred_at=chunk.why.at,
        customer_id=plan.user_id,
        notice_id=_notice_id(chunk.version, plan.subscription_id),
        subscription_id=plan.subscription_id,
        price_version=chunk.version,
        currency=plan.new.currency,
        old_total_minor=old.total_minor if old else 0,
        new_total_minor=plan.new.total_minor,
        old_breakdown=old,
        new_breakdown=plan.new,
        effective_at=due.at,
        notify_by=notify_by,
        reason=chunk.why.reason or "",
    )


def _notice_id(version: int, subscription_id: UUID) -> UUID:
    return derived_id("pricing.notice", version, subscription_id)
