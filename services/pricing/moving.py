"""A chunk of a rollout whose turn has come: priced, held against the preview, written, said and remembered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.alone import Result, price_alone
from services.pricing.campaign import DETAILS, Campaign, Outcome
from services.pricing.chunk import Known, ask, dumps, shape_of
from services.pricing.costs import CostChange, Why, record, stamp
from services.pricing.domain import CostKind
from services.pricing.models import Rollout
from services.pricing.rollout_sql import RULE_ALONE, SETTLE, move
from shared import log
from shared.events import SubscriptionCostChanged, derived_id

logger = log.get("rollout")


@dataclass(frozen=True)
class Chunk:
    """Some subscriptions of one rollout, locked, and what their history lines say of why."""

    session: AsyncSession
    rollout: Rollout
    campaign: Campaign
    why: Why
    ids: Sequence[UUID]
    newer: Sequence[int]  # versions of the same scope that take effect later
    known: Known
    applied: Why | None = None  # of results that an operator took up again

    @property
    def version(self) -> int:
        return self.rollout.price_version

    @property
    def again(self) -> Why:
        return self.applied or self.why

    def values(self) -> dict[str, object]:
        return {
            "ids": self.ids,
            "version": self.version,
            "preview": self.rollout.preview_id,
            "newer": self.newer,
            "effective_from": self.campaign.layer.effective_from,
            "now": self.why.at,
            "reason": self.why.reason,
            "changed_by": self.why.changed_by,
            "cause": self.why.cause.id,
            "schema": SubscriptionCostChanged.dataschema(),
            "trace": derived_id("rollout", self.version).hex,
            "details": dumps(DETAILS),
            "applied_reason": self.again.reason,
            "applied_by": self.again.changed_by,
            "applied_cause": self.again.cause.id,
        }


async def move_chunk(chunk: Chunk) -> None:
    """Price, compare, write, say, those locked: whoever is plain in SQL, the others one by one."""
    session, campaign = chunk.session, chunk.campaign
    statement = move(shape_of(campaign))
    answer = await ask(session, statement, chunk.values(), campaign, chunk.known)
    drifted = sum(int(row["drifted"]) for row in answer.rows)
    if answer.alone:
        drifted += await _move_alone(chunk, await price_alone(session, campaign, answer.alone))
    _note_drift(chunk, drifted)


async def _move_alone(chunk: Chunk, results: Sequence[Result]) -> int:
    """How many came out otherwise than they were previewed."""
    rows = [_asked(result) for result in results]
    values = chunk.values() | {"rows": dumps(rows)}
    rulings = {row.id: row for row in await chunk.session.execute(RULE_ALONE, values)}
    drifted = 0
    changes: list[CostChange] = []
    items: list[dict[str, object]] = []
    for result in results:
        ruling = rulings[result.subscription_id]
        judged = result
        if result.new is not None:
            judged = _judged(result, ruling.ruling, ruling.accepted)
        drifted += judged.code == "changed" or (ruling.previewed and _otherwise(judged))
        items.append(ended_item(judged) | {"effective_at": ruling.effective_at})
        if judged.outcome == "moved":
            why = chunk.again if ruling.accepted else chunk.why
            changes.append(_change(chunk.version, judged, ruling.effective_at, why))
        elif judged.outcome == "kept" and ruling.ruling is None and judged.new is not None:
            ids = [judged.subscription_id]
            await stamp(chunk.session, ids, chunk.version, judged.new.price_versions)
    await record(chunk.session, changes)
    await settle(chunk, items)
    return drifted


def _asked(result: Result) -> dict[str, object]:
    """As RULE_ALONE reads it."""
    return {
        "id": result.subscription_id,
        "created_at": None if result.subject is None else result.subject.created_at,
        "new": None if result.new is None else result.new.model_dump(mode="json"),
    }


def _otherwise(result: Result) -> bool:
    """Of one that was previewed as moved: whether that is not its customer's own doing."""
    return result.outcome == "failed" or result.code == "never_moved"


def _judged(result: Result, ruling: str | None, accepted: bool) -> Result:
    if ruling is not None:
        outcome: Outcome = "kept" if ruling == "not_told" else "deferred"
        return replace(result, outcome=outcome, code=ruling, detail=None)
    if result.restores:
        return replace(result, code="grandfathered")
    return replace(result, code="accepted") if accepted and result.code is None else result


def _change(version: int, result: Result, at: datetime, why: Why) -> CostChange:
    if result.subject is None or result.new is None:
        raise ValueError(f"subscription {result.subscription_id} has no new cost")
    if result.subject.cost_breakdown is None:
        since = max(why.at, at)
        return CostChange(result.subject, version, result.new, "created", since, why)
    kind: CostKind = "revert" if result.restores else "config"
    return CostChange(result.subject, version, result.new, kind, at, why)


def _note_drift(chunk: Chunk, changed: int) -> None:
    rollout = chunk.rollout
    rollout.drifted += changed
    limit = rollout.drift_limit
    if changed and limit is not None and rollout.drifted > limit:
        reason = f"{rollout.drifted} results are not the approved ones; the limit is {limit}"
        stop(rollout, reason, chunk.why.at)


async def settle(chunk: Chunk, items: Sequence[dict[str, object]]) -> None:
    """What became of each, or when it is due."""
    if items:
        values = {"version": chunk.version, "rows": dumps(items)}
        await chunk.session.execute(SETTLE, values)


def item(
    subscription_id: UUID,
    outcome: Outcome | None,
    code: str | None = None,
    detail: str | None = None,
) -> dict[str, object]:
    """A row of rollout_items as SETTLE reads it; without an outcome it waits."""
    said = detail or (None if code is None else DETAILS.get(code))
    return {"id": subscription_id, "outcome": outcome, "code": code, "detail": said}


def ended_item(result: Result) -> dict[str, object]:
    return item(result.subscription_id, result.outcome, result.code, result.detail)


def stop(rollout: Rollout, reason: str, now: datetime) -> None:
    """By itself: somebody is to look at it before it goes on."""
    rollout.resume_status, rollout.status = rollout.status, "stopped"
    rollout.detail, rollout.changed_by, rollout.changed_at = reason, "farebox", now
    logger.error("rollout stopped", version=rollout.price_version, reason=reason)
