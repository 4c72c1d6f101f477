"""What a draft would do to every subscription it covers: computed in chunks by what later does it, then hashed.

Killed anywhere, the next step goes on where the last commit stood.  Nothing is locked but the preview's own row:
the storefront writes on, and whoever changes meanwhile is held against what the preview said of him.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import assert_never
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter
from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.alone import Result, price_alone
from services.pricing.campaign import DETAILS, Campaign
from services.pricing.chunk import FIRST_ID, Disagreement, Known, ask, dumps, next_turn, shape_of
from services.pricing.layers import as_layer, layers
from services.pricing.models import Preview, PriceScope, PricingConfig
from services.pricing.planning import Plan, Settled, plan_chunk, plans_alone
from services.pricing.pricing_sql import STEPS, Shape, left, priced, said_by, said_in
from services.pricing.timing import Due, Stays, Timing
from services.pricing.totals import Counted, Extreme, Totals, bucket_of
from services.pricing.versions import overtaken_by
from shared import log
from shared.clock import Clock
from shared.db import Sessions

# A fraction of a second; nobody waits for it.
WALK_ROWS = 5_000
# One link of the hash chain: what a preview's hash is does not hang on how it was walked.
LINK_ROWS = 20_000
UNFINISHED = ("running", "hashing")
UTC = ZoneInfo("UTC")
COUNTED: TypeAdapter[list[Counted]] = TypeAdapter(list[Counted])
EXTREME: TypeAdapter[list[Extreme]] = TypeAdapter(list[Extreme])

logger = log.get("preview")


@dataclass
class Walker:
    """What a worker remembers between chunks; nothing of it is lost with the worker."""

    known: Known = field(default_factory=Known)
    zone: ZoneInfo = UTC
    rows: int = WALK_ROWS
    link_rows: int = LINK_ROWS


async def run_once(sessions: Sessions, clock: Clock, walker: Walker | None = None) -> int:
    """One step of one preview in one transaction.  0: nothing to do."""
    walker = walker or Walker()
    number = 0
    try:
        async with sessions.begin() as session:
            found = await _next(session)
            if found is None:
                return 0
            number = found[0].id
            await _step(session, *found, clock, walker)
    except Disagreement as error:
        walker.known.of(None)
        async with sessions.begin() as session:
            preview = await session.get_one(Preview, number, with_for_update=True)
            if preview.status in UNFINISHED:
                preview.status, preview.detail = "failed", error.detail
        logger.error("preview failed", error=error.detail)
    return 1


async def _next(session: AsyncSession) -> tuple[Preview, PricingConfig] | None:
    """The oldest unfinished preview and its draft, both locked: the draft first, as whoever edits it does.

    One worker for each: another one takes the next step later.
    """
    unfinished = select(Preview.id, Preview.price_version).where(Preview.status.in_(UNFINISHED))
    found = (await session.execute(unfinished.order_by(Preview.id).limit(1))).one_or_none()
    if found is None:
        return None
    config = await session.get(
        *(PricingConfig, found.price_version),
        with_for_update={"skip_locked": True, "key_share": True},
    )
    preview = await session.get(Preview, found.id, with_for_update={"skip_locked": True})
    if config is None or preview is None or preview.status not in UNFINISHED:
        return None
    return preview, config


async def _step(
    session: AsyncSession, preview: Preview, config: PricingConfig, clock: Clock, walker: Walker
) -> None:
    if config.status != "draft" or config.draft_revision != preview.draft_revision:
        preview.status = "stale"
    elif other := await overtaken_by(session, preview):
        preview.status = "stale"
        preview.detail = f"price version {other} was published meanwhile: preview it again"
    elif preview.status == "running":
        await _walk(session, preview, await _campaign(session, preview, config, walker), walker)
    else:
        await _link(session, preview, config, clock, walker)


async def _campaign(
    session: AsyncSession, preview: Preview, config: PricingConfig, walker: Walker
) -> Campaign:
    """The draft as if it took effect as the preview says."""
    scope = await session.get_one(PriceScope, config.scope_id)
    published = await layers(session)
    layer = as_layer(config, scope.definition, preview.effective_from)
    return Campaign(
        layer,
        {**published.all, layer.number: layer},
        Timing.model_validate(config.timing),
        # Its rollout begins when it takes effect, not before.
        max(preview.started_at, preview.effective_from),
        walker.zone,
        published.current(preview.effective_from),
        None if config.reverts is None else published.all[config.reverts],
    )


async def _walk(
    session: AsyncSession, preview: Preview, campaign: Campaign, walker: Walker
) -> None:
    known = walker.known.of(("preview", preview.id))
    await session.execute(_PLANNED)
    turn = await next_turn(session, campaign, preview.listed_to, walker.rows)
    totals = Totals.of(preview.totals)
    if turn.ids:
        chunk = Chunk(session, preview, campaign, turn.ids)
        results = await _in_sql(chunk, known, totals)
        await _one_by_one(chunk, results, totals)
    preview.totals = totals.model_dump(mode="json")
    preview.counted += len(turn.ids)
    preview.listed_to = turn.reached
    if turn.over:
        preview.status, preview.listed_to = "hashing", None


@dataclass(frozen=True)
class Chunk:
    session: AsyncSession
    preview: Preview
    campaign: Campaign
    ids: Sequence[UUID]


async def _in_sql(chunk: Chunk, known: Known, totals: Totals) -> list[Result]:
    """Write the items that SQL prices; returns the others, priced one by one."""
    session, campaign = chunk.session, chunk.campaign
    plans: list[dict[str, object]] = []
    ids, alone = chunk.ids, set[UUID]()
    if not campaign.at_once:
        planned = await plan_chunk(session, campaign, ids, known)
        plans = [_planned(plan) for plan in planned.plans]
        plans += [_unplanned(settled) for settled in planned.settled]
        # Who had no plan of SQL's gets his price where he gets a plan, whatever became of his row meanwhile.
        alone.update(planned.alone)
        ids = [each for each in ids if each not in alone]
    values = {
        "ids": ids,
        "preview": chunk.preview.id,
        "plans": dumps(plans),
        "floors": dumps(totals.floors()),
        "details": dumps(DETAILS),
    }
    answer = await ask(session, statement(shape_of(campaign)), values, campaign, known)
    for row in answer.rows:
        for counted in COUNTED.validate_python(row["counted"] or []):
            totals.add(counted)
        totals.note(EXTREME.validate_python(row["extremes"] or []))
    return await price_alone(session, campaign, alone.union(answer.alone))


async def _one_by_one(chunk: Chunk, results: Sequence[Result], totals: Totals) -> None:
    planned: dict[UUID, dict[str, object]] = {}
    if not chunk.campaign.at_once:
        made, unplanned = plans_alone(chunk.campaign, results)
        failed = {settled.subscription_id: settled for settled in unplanned}
        results = [_failed(result, failed.get(result.subscription_id)) for result in results]
        planned = {plan.subscription_id: _planned(plan) for plan in made}
    rows = [_item(result, planned.get(result.subscription_id)) for result in results]
    if not rows:
        return
    await chunk.session.execute(_ALONE, {"preview": chunk.preview.id, "rows": dumps(rows)})
    for result, row in zip(results, rows, strict=True):
        counted = Counted.model_validate(row | {"tier": result.tier} | _difference(row))
        totals.add(counted)
        if counted.bucket and counted.old_minor is not None:
            totals.note([Extreme.model_validate(row | {"subscription_id": row["id"]})])


def _failed(result: Result, settled: Settled | None) -> Result:
    if settled is None:
        return result
    return replace(
        result, outcome=settled.outcome, code=settled.code, detail=settled.detail, new=None
    )


def _item(result: Result, plan: dict[str, object] | None) -> dict[str, object]:
    """A row of preview_items, and what totals ask for."""
    subject, new = result.subject, result.new
    old = None if subject is None or subject.cost_breakdown is None else subject.cost_breakdown
    stays = plan is not None and plan["code"] is not None
    outcome = "kept" if stays else result.outcome
    code = plan["code"] if plan is not None and stays else result.code
    after = old if stays or (new is None and outcome == "kept") else new
    return {
        "id": result.subscription_id,
        "outcome": outcome,
        "code": "restored" if result.restores and code is None else code,
        "reason": result.detail or DETAILS.get(str(code)),
        "currency": None if subject is None else subject.currency,
        "place": None if new is None else new.place,
        "delivery_type": None if subject is None else subject.delivery_type,
        "old_minor": None if old is None else old.total_minor,
        "new_minor": None if after is None else after.total_minor,
        "new": None if new is None else new.model_dump(mode="json"),
        "due_at": None if plan is None else plan["due_at"],
    }


def _difference(row: dict[str, object]) -> dict[str, object]:
    old, new = row["old_minor"], row["new_minor"]
    if not isinstance(old, int) or not isinstance(new, int):
        return {"bucket": None}
    return {"bucket": bucket_of(new - old, STEPS)}


def _planned(plan: Plan) -> dict[str, object]:
    match plan.turn:
        case Due(at=at):
            return {"id": plan.subscription_id, "outcome": None, "code": None, "due_at": at}
        case Stays(code=code):
            return {"id": plan.subscription_id, "outcome": "kept", "code": code, "due_at": None}
        case _:
            assert_never(plan.turn)


def _unplanned(settled: Settled) -> dict[str, object]:
    return {
        "id": settled.subscription_id,
        "outcome": settled.outcome,
        "code": settled.code,
        "detail": settled.detail,
    }


async def _link(
    session: AsyncSession, preview: Preview, config: PricingConfig, clock: Clock, walker: Walker
) -> None:
    """The chain's next link over the items in order of id; the last one makes the hash."""
    after = preview.listed_to or FIRST_ID
    values = {
        "preview": preview.id,
        "chain": preview.chain,
        "after": after,
        "rows": walker.link_rows,
    }
    link = (await session.execute(_LINK, values)).one()
    preview.chain = link.chain
    if link.last is not None:
        preview.listed_to = link.last
    if link.counted == walker.link_rows:
        return
    digest = hashlib.sha256(preview.chain + dumps(preview.totals).encode()).hexdigest()
    preview.status, preview.hash, preview.finished_at = "done", digest, clock()
    # First the one, then the other: the database looks for the preview that a version names.
    await session.flush()
    config.status, config.preview_hash = "previewed", digest
    logger.info("preview done", version=config.version, preview_hash=digest)


@lru_cache(maxsize=4)
def statement(shape: Shape) -> TextClause:
    return text(f"""
WITH {priced(shape)}, plans AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:plans AS jsonb)) AS l (id uuid, outcome text, code text,
        detail text, due_at timestamptz)
), judged AS (
    SELECT p.id, p.currency, p.place, p.delivery_type, coalesce(u.tier, 'bronze') AS tier,
        coalesce(p.detail, l.detail) AS detail,
        CASE WHEN p.verdict IS NOT NULL THEN p.verdict WHEN l.outcome IS NOT NULL THEN l.outcome
            WHEN p.same THEN 'kept' ELSE 'moved' END AS outcome,
        CASE WHEN p.verdict IS NOT NULL THEN p.code WHEN l.code IS NOT NULL THEN l.code
            WHEN p.same THEN 'same_cents' ELSE p.code END AS code,
        coalesce(l.outcome, p.verdict) = 'kept' AS stays, p.old_total,
        CASE WHEN l.outcome = 'failed' THEN NULL ELSE p.total END AS total,
        {said_in("p", shape)} AS digest, l.due_at
    FROM valued p LEFT JOIN plans l USING (id) LEFT JOIN user_tiers u ON u.user_id = p.user_id
), items AS MATERIALIZED (
    SELECT *, CASE WHEN stays THEN old_total ELSE total END AS new_total,
        CASE WHEN stays THEN 0 ELSE coalesce(total - old_total, 0) END AS difference FROM judged OFFSET 0
), stored AS (
    INSERT INTO preview_items (preview_id, subscription_id, outcome, code, reason, currency,
        old_total_minor, new_total_minor, digest, due_at)
    SELECT CAST(:preview AS bigint), id, outcome, code,
        coalesce(detail, CAST(:details AS jsonb) ->> code), currency, old_total, new_total, digest, due_at
    FROM items ORDER BY id
), counted AS (
    SELECT outcome, code, currency, place, delivery_type, tier,
        CASE WHEN difference = 0 THEN 0 WHEN difference > 0
            THEN steps[width_bucket(difference, steps)] ELSE - steps[width_bucket(- difference, steps)]
            END AS bucket,
        count(*) AS count, sum(old_total) AS old_minor, sum(new_total) AS new_minor
    FROM items, (SELECT ARRAY[{", ".join(map(str, STEPS))}]::bigint[] AS steps) s
    GROUP BY 1, 2, 3, 4, 5, 6, 7
), extremes AS (
    SELECT id AS subscription_id, currency, old_total AS old_minor, new_total AS new_minor FROM items
    WHERE difference >= coalesce((CAST(:floors AS jsonb) -> currency ->> 'rise')::bigint, 1)
        OR difference <= coalesce((CAST(:floors AS jsonb) -> currency ->> 'fall')::bigint, -1)
)
SELECT (SELECT jsonb_agg(to_jsonb(counted)) FROM counted) AS counted,
    (SELECT jsonb_agg(to_jsonb(extremes)) FROM extremes) AS extremes,{left(shape)}
""")


_ALONE = text(f"""
INSERT INTO preview_items (preview_id, subscription_id, outcome, code, reason, currency,
    old_total_minor, new_total_minor, digest, due_at)
SELECT CAST(:preview AS bigint), id, outcome, code, reason, currency, old_minor, new_minor,
    {said_by("new")}, due_at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, outcome text, code text, reason text,
    currency text, old_minor bigint, new_minor bigint, new jsonb, due_at timestamptz)
ORDER BY id
""")

# A chunk stays in memory, and is planned for once and not anew for each list of ids.
_PLANNED = text(
    "SELECT set_config('work_mem', '64MB', true), set_config('plan_cache_mode', 'force_generic_plan', true)"
)

_LINK = text("""
SELECT sha256(CAST(:chain AS bytea) || coalesce(string_agg(
        uuid_send(subscription_id) || convert_to(outcome || ' ' || coalesce(code, ''), 'UTF8')
        || int8send(coalesce(old_total_minor, -1)) || int8send(coalesce(new_total_minor, -1))
        || int8send(digest) || timestamptz_send(coalesce(due_at, 'epoch')), '' ORDER BY subscription_id), ''))
        AS chain,
    count(*) AS counted, (array_agg(subscription_id ORDER BY subscription_id DESC))[1] AS last
FROM (
    SELECT * FROM preview_items WHERE preview_id = :preview AND subscription_id > :after
    ORDER BY subscription_id LIMIT :rows
) items
""")
