"""A published version on its way to every subscription its scope covers: one walk by id, in chunks that each commit alone.

Whose turn has come is moved at once, whose comes later is put on the list with the time, and moved then.  What a
chunk writes is one transaction: killed anywhere, the next step goes on where the last commit stood.  Each result is
held against the preview that was approved.  Everybody ends as moved, kept, excluded, deferred or failed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.alone import Result
from services.pricing.campaign import Campaign
from services.pricing.chunk import Disagreement, Known, Turn, dumps, lock_free, next_turn
from services.pricing.costs import Why
from services.pricing.layers import Layers, Version, current_versions
from services.pricing.listing import list_chunk, plan_again
from services.pricing.models import Rollout
from services.pricing.moving import Chunk, ended_item, item, move_chunk, settle, stop
from services.pricing.pricing_sql import covered, membership
from services.pricing.reprice import WALKS
from services.pricing.rollout_sql import APPLIED, DUE, MISSING, NEXT, PUT_OFF, SETTLE, WAITING, WALK
from services.pricing.versions import activate_due
from shared import log
from shared.clock import Clock
from shared.db import Sessions
from shared.events import ConfigPublished, derived_id
from shared.trace import Cause

# Subscriptions locked together: the storefront waits for one chunk at most, which is to take this long.
CHUNK_SECONDS = 0.06
CHUNK_ROWS = 1_000
CHUNK_ROWS_RANGE = (500, 4_000)
# Only put on a list: nobody waits for them.
GIVE_UP_ROWS = 5_000
# How long a subscription that somebody else is changing is left alone.
BUSY = timedelta(seconds=1)
UTC = ZoneInfo("UTC")

logger = log.get("rollout")


@dataclass
class Memory:
    """What a worker remembers between chunks, and how large they are; nothing is lost with it."""

    known: Known = field(default_factory=Known)
    zone: ZoneInfo = UTC
    rows: int = CHUNK_ROWS

    def took(self, seconds: float) -> None:
        """Larger chunks on a machine that is faster, smaller ones where it is busy: never twice or half at once."""
        least, most = CHUNK_ROWS_RANGE
        wanted = self.rows * min(1.5, max(0.5, CHUNK_SECONDS / max(seconds, 1e-6)))
        self.rows = min(most, max(least, int(wanted)))


async def run_once(
    sessions: Sessions, clock: Clock, chunk_rows: int | None = None, memory: Memory | None = None
) -> int:
    """One step in one transaction: activate what is due, list, move or finish.  0: nothing to do.

    Without `chunk_rows` chunks are as large as the time allows that they may take.
    """
    memory = memory or Memory()
    now, began, version = clock(), time.perf_counter(), 0
    try:
        async with sessions.begin() as session:
            if await activate_due(session, now):
                return 1
            rollout = await _next(session, now)
            if rollout is None:
                return 0
            version = rollout.price_version
            done = await _step(session, rollout, now, chunk_rows or memory.rows, memory)
        memory.took(time.perf_counter() - began)
        return done
    except Disagreement as error:
        memory.known.of(None)
        async with sessions.begin() as session:
            rollout = await session.get_one(Rollout, version, with_for_update=True)
            if rollout.status in ("listing", "running"):
                stop(rollout, error.detail, now)
    return 1


async def _next(session: AsyncSession, now: datetime) -> Rollout | None:
    """One worker for each rollout: another one takes the next, or has nothing to do."""
    found: Rollout | None = await session.scalar(select(Rollout).from_statement(NEXT), {"now": now})
    return found


async def _step(
    session: AsyncSession, rollout: Rollout, now: datetime, rows: int, memory: Memory
) -> int:
    known = await current_versions(session)
    version = known.versions[rollout.price_version]
    campaign = _campaign(known, version, rollout, memory.zone)
    if rollout.status == "done":
        rollout.status, rollout.finished_at = "running", None
    if rollout.status == "canceled":
        return await _give_up(session, rollout, campaign, now)
    key = ("rollout", version.number, campaign.replaced_by)
    chunk = Chunk(
        session,
        rollout,
        campaign,
        _why(version, now),
        (),
        _newer(known, version),
        memory.known.of(key),
    )
    if rollout.status == "listing":
        return await _walk(chunk, rows)
    ids = (await session.scalars(DUE, {"version": chunk.version, "now": now, "rows": rows})).all()
    if not ids:
        return _finish(rollout, now)
    return await _carry_out(replace(chunk, ids=sorted(ids)))


def _campaign(known: Layers, version: Version, rollout: Rollout, zone: ZoneInfo) -> Campaign:
    newer = [
        other
        for other in known.versions.values()
        if other.layer.scope_id == version.layer.scope_id
        and other.status == "active"
        and other.effective_from > version.effective_from
    ]
    campaign = Campaign(
        version.layer,
        known.all,
        version.timing,
        rollout.started_at,
        zone,
        known.current(version.effective_from),
        None if version.reverts is None else known.versions[version.reverts].layer,
    )
    at_once = [n for n in newer if replace(campaign, timing=n.timing).at_once]
    return replace(campaign, replaced_by=at_once[0].number if at_once else None)


def _newer(known: Layers, version: Version) -> list[int]:
    return [
        other.number
        for other in known.versions.values()
        if other.layer.scope_id == version.layer.scope_id
        and (other.effective_from, other.number) > (version.effective_from, version.number)
    ]


def _why(version: Version, now: datetime) -> Why:
    cause = Cause(str(derived_id(ConfigPublished.type, version.number)))
    return Why(version.published_by, cause, now, version.reason)


async def _walk(chunk: Chunk, rows: int) -> int:
    """The next subscriptions.  Those created from now on are priced by this version anyway."""
    rollout, campaign = chunk.rollout, chunk.campaign
    at_once = campaign.at_once or campaign.replaced_by is not None
    await chunk.session.execute(WALK, {"walks": WALKS, "version": chunk.version})
    turn = await next_turn(chunk.session, campaign, rollout.listed_to, rows)
    # Before any row is locked: from then on the storefront may wait.
    await _reached(chunk.session, rollout, turn)
    if turn.ids and at_once:
        ours, busy = await lock_free(chunk.session, turn.ids)
        if ours:
            await move_chunk(replace(chunk, ids=ours))
        await settle(chunk, [item(each, None) | {"due_at": chunk.why.at} for each in busy])
    elif turn.ids:
        await list_chunk(replace(chunk, ids=turn.ids))
    return 1


async def _reached(session: AsyncSession, rollout: Rollout, turn: Turn) -> None:
    """Whoever the preview knew and the walk did not find up to here is excluded."""
    values = {"version": rollout.price_version, "preview": rollout.preview_id}
    if rollout.preview_id is not None:
        between = {"first": turn.first, "last": turn.reached, "found": turn.ids}
        await session.execute(MISSING, values | between)
    rollout.listed_to = turn.reached
    if turn.over and rollout.status == "listing":
        rollout.status = "running"
    elif turn.over and rollout.resume_status == "listing":
        rollout.resume_status = "running"
    await session.flush()


async def _carry_out(chunk: Chunk) -> int:
    """Move those whose time has come, as they are now."""
    here = await _still_covered(chunk)
    ids = here.ids if chunk.campaign.replaced_by is not None else await plan_again(here)
    ours, busy = await lock_free(chunk.session, ids)
    if busy:
        put_off = {"version": chunk.version, "ids": busy, "due_at": chunk.why.at + BUSY}
        await chunk.session.execute(PUT_OFF, put_off)
    if ours and not chunk.campaign.layer.scope.everything:
        # Now that nobody changes them any more: another tier is in no digest.
        ours = (await _still_covered(replace(chunk, ids=ours))).ids
    if ours:
        await move_chunk(replace(chunk, ids=ours, applied=await _applied(chunk)))
    return len(chunk.ids)


async def _still_covered(chunk: Chunk) -> Chunk:
    """Without those who are not there any more, or whom it is not for any more: they end here."""
    scope = covered(chunk.campaign.layer.scope)
    statement = membership(scope.condition)
    found = await chunk.session.execute(statement, scope.values | {"ids": chunk.ids})
    there: dict[UUID, bool] = {row.id: row.covered for row in found}
    gone = [Result(i, "excluded", "deleted", "it was deleted") for i in chunk.ids if i not in there]
    left = [
        Result(i, "excluded", "left_scope", "this version is not for it any more")
        for i, is_covered in there.items()
        if not is_covered
    ]
    await settle(chunk, [*map(ended_item, gone), *map(ended_item, left)])
    return replace(chunk, ids=[i for i, is_covered in there.items() if is_covered])


async def _applied(chunk: Chunk) -> Why | None:
    found = (await chunk.session.execute(APPLIED, {"version": chunk.version})).one_or_none()
    if found is None:
        return None
    return Why(found.decided_by, Cause(found.cause_id), chunk.why.at, found.reason)


async def _give_up(
    session: AsyncSession, rollout: Rollout, campaign: Campaign, now: datetime
) -> int:
    """Whom a canceled rollout had not come to yet ends as deferred: nobody is left without an outcome."""
    if rollout.resume_status == "listing":
        turn = await next_turn(session, campaign, rollout.listed_to, GIVE_UP_ROWS)
        await _canceled(session, rollout, turn.ids)
        await _reached(session, rollout, turn)
        return 1
    values = {"version": rollout.price_version, "rows": GIVE_UP_ROWS}
    ids = (await session.scalars(WAITING, values)).all()
    await _canceled(session, rollout, ids)
    if not ids:
        rollout.finished_at = now
        logger.info("rollout canceled", version=rollout.price_version)
    return 1


async def _canceled(session: AsyncSession, rollout: Rollout, ids: Sequence[UUID]) -> None:
    rows = [item(subscription_id, "deferred", "canceled") for subscription_id in ids]
    await session.execute(SETTLE, {"version": rollout.price_version, "rows": dumps(rows)})


def _finish(rollout: Rollout, now: datetime) -> int:
    rollout.status, rollout.finished_at = "done", now
    logger.info("rollout done", version=rollout.price_version)
    return 1
