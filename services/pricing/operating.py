"""What an operator does to a rollout, each step with who and why; and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CursorResult, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.campaign import OUTCOMES, Outcome
from services.pricing.counting import about_how_many
from services.pricing.decisions import Decision, note
from services.pricing.models import Preview, Rollout, RolloutItem
from services.pricing.scopes import Scope
from services.pricing.versions import drift_limit, get_config
from shared.errors import Conflict, NotFound

# What the preview says no to, and somebody looked at: done as it comes out now.
ACCEPTED = "accepted"
# What failed is still held to the preview: what nobody approved is deferred, and somebody may accept it.
RETRIED = "retried"
# At a time: no transaction takes longer than a second.
AGAIN_ROWS = 20_000
# Deferred for the preview's sake; what was canceled or replaced is not taken up again.
HELD_TO_PREVIEW = ("changed", "new_since_preview")


class RolloutNotStarted(NotFound):
    title = "This price version's rollout has not started"


class RolloutNotInThisState(Conflict):
    title = "The rollout is not in a state for this"


@dataclass(frozen=True)
class Progress:
    """How far a rollout is; `outcomes` and `todo` add up to `listed`, and `later` of the `todo` wait for their time."""

    price_version: int
    status: str
    listed: int
    todo: int
    later: int
    expected: int  # as many as the preview counted; without one, about as many as there are
    outcomes: dict[Outcome, int]
    codes: dict[Outcome, dict[str, int]]
    drifted: int
    drift_limit: int | None
    detail: str | None
    next_due_at: datetime | None
    started_at: datetime
    finished_at: datetime | None


async def progress(session: AsyncSession, version: int, now: datetime) -> Progress:
    """Raises VersionNotFound, RolloutNotStarted."""
    rollout = await _rollout(session, version)
    item = RolloutItem
    statement = select(item.outcome, item.code, func.count()).where(item.price_version == version)
    rows = (await session.execute(statement.group_by(item.outcome, item.code))).all()
    outcomes = dict.fromkeys(OUTCOMES, 0)
    codes: dict[Outcome, dict[str, int]] = {outcome: {} for outcome in OUTCOMES}
    for outcome, code, count in rows:
        for known in OUTCOMES:
            if outcome == known:
                outcomes[known] += count
                codes[known] |= {code: count} if code else {}
    waiting = select(func.count(), func.min(item.due_at)).where(
        item.price_version == version, item.outcome.is_(None), item.due_at > now
    )
    later, next_due_at = (await session.execute(waiting)).one()
    listed = sum(count for *_, count in rows)
    return Progress(
        price_version=version,
        status=rollout.status,
        listed=listed,
        todo=listed - sum(outcomes.values()),
        later=later,
        expected=await _expected(session, rollout),
        outcomes=outcomes,
        codes={outcome: found for outcome, found in codes.items() if found},
        drifted=rollout.drifted,
        drift_limit=rollout.drift_limit,
        detail=rollout.detail,
        next_due_at=next_due_at,
        started_at=rollout.started_at,
        finished_at=rollout.finished_at,
    )


async def pause(session: AsyncSession, version: int, decision: Decision) -> Rollout:
    """Nobody is moved until it is resumed.  Raises VersionNotFound, RolloutNotStarted, RolloutNotInThisState."""
    rollout = await _in(session, version, ("listing", "running"), "pause")
    rollout.resume_status, rollout.status = rollout.status, "paused"
    return await _decided(session, rollout, "paused", decision)


async def resume(session: AsyncSession, version: int, decision: Decision) -> Rollout:
    """It goes on where it was; one that drift had stopped may drift as far again.

    Raises VersionNotFound, RolloutNotStarted, RolloutNotInThisState.
    """
    rollout = await _in(session, version, ("paused", "stopped"), "resume")
    if rollout.drift_limit is not None and rollout.drifted > rollout.drift_limit:
        rollout.drift_limit = rollout.drifted + await _first_limit(session, rollout)
    rollout.status, rollout.resume_status = rollout.resume_status or "listing", None
    return await _decided(session, rollout, "resumed", decision)


async def cancel(session: AsyncSession, version: int, decision: Decision) -> Rollout:
    """Whoever was not moved yet ends as deferred; who was stays so: a version that reverts it takes that back.

    Raises VersionNotFound, RolloutNotStarted, RolloutNotInThisState.
    """
    states = ("listing", "running", "paused", "stopped")
    rollout = await _in(session, version, states, "cancel")
    if rollout.status in ("listing", "running"):
        rollout.resume_status = rollout.status
    rollout.status = "canceled"
    return await _decided(session, rollout, "canceled", decision)


async def apply_deferred(session: AsyncSession, version: int, decision: Decision) -> int:
    """Move those that were deferred because they are not what the preview said, as they come out now.

    How many of them, AGAIN_ROWS at most: ask again until there are none.

    Raises VersionNotFound, RolloutNotStarted, RolloutNotInThisState.
    """
    rollout = await _in(session, version, ("running", "done"), "apply deferred results of")
    which = Which("deferred", HELD_TO_PREVIEW, ACCEPTED)
    return await _again(session, rollout, which, "deferred applied", decision)


async def retry_failed(session: AsyncSession, version: int, decision: Decision) -> int:
    """Try again what failed, AGAIN_ROWS at most, how many; what is not what the preview said is deferred.

    Raises VersionNotFound, RolloutNotStarted, RolloutNotInThisState.
    """
    rollout = await _in(session, version, ("running", "done"), "retry failures of")
    which = Which("failed", None, RETRIED)
    return await _again(session, rollout, which, "failures retried", decision)


@dataclass(frozen=True)
class Which:
    """Items to take up again, and how they are marked."""

    outcome: Outcome
    codes: Sequence[str] | None
    mark: str


async def _again(
    session: AsyncSession,
    rollout: Rollout,
    which: Which,
    action: str,
    decision: Decision,
) -> int:
    values: Mapping[str, object] = {
        "version": rollout.price_version,
        "now": decision.at,
        "outcome": which.outcome,
        "codes": None if which.codes is None else list(which.codes),
        "mark": which.mark,
        "rows": AGAIN_ROWS,
    }
    done = await session.execute(_AGAIN, values)
    count = done.rowcount if isinstance(done, CursorResult) else 0
    if count:
        rollout.status, rollout.finished_at = "running", None
    await _decided(session, rollout, action, decision)
    return count


async def _rollout(session: AsyncSession, version: int, *, lock: bool = False) -> Rollout:
    await get_config(session, version)
    rollout = await session.get(Rollout, version, populate_existing=True, with_for_update=lock)
    if rollout is None:
        raise RolloutNotStarted(f"price version {version} is not in force yet", version=version)
    return rollout


async def _in(session: AsyncSession, version: int, states: Sequence[str], action: str) -> Rollout:
    rollout = await _rollout(session, version, lock=True)
    if rollout.status not in states:
        raise RolloutNotInThisState(
            f"cannot {action} it: the rollout is {rollout.status}", rollout_status=rollout.status
        )
    return rollout


async def _decided(
    session: AsyncSession, rollout: Rollout, action: str, decision: Decision
) -> Rollout:
    rollout.detail = decision.why
    rollout.changed_by, rollout.changed_at = decision.by, decision.at
    await note(session, rollout.price_version, f"rollout {action}", decision)
    return rollout


async def _first_limit(session: AsyncSession, rollout: Rollout) -> int:
    config = await get_config(session, rollout.price_version)
    preview = await session.get_one(Preview, rollout.preview_id)
    return drift_limit(preview.totals["outcomes"]["moved"], config.drift_limit_percent)


async def _expected(session: AsyncSession, rollout: Rollout) -> int:
    if rollout.preview_id is not None:
        statement = select(Preview.counted).where(Preview.id == rollout.preview_id)
        return await session.scalar(statement) or 0
    return await about_how_many(session, Scope())


# In effect from when somebody said so: what was paid in between stays what it was.
_AGAIN = text("""
UPDATE rollout_items i SET outcome = NULL, detail = NULL, code = :mark, due_at = :now,
    effective_at = greatest(i.effective_at, :now)
FROM (
    SELECT subscription_id FROM rollout_items WHERE price_version = :version AND outcome = :outcome
        AND (CAST(:codes AS text[]) IS NULL OR code = ANY (CAST(:codes AS text[])))
    LIMIT :rows
) again
WHERE i.price_version = :version AND i.subscription_id = again.subscription_id
""")
