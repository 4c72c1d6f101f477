"""What must hold in pricing at any moment; read by `farebox audit`."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from services.pricing import audit_history
from services.pricing.audit_history import LIKE_NOW
from services.pricing.layers import Layers, stored_layers
from services.pricing.models import Rollout, SubscriptionCostHistory
from services.pricing.pricing_sql import covered
from services.pricing.recomputing import Composed, fault_of
from shared.audit import CheckResult, currencies

PAGE_ROWS = 5_000  # of the cost history held in memory at once
SHOWN = 3  # offenders named in a line

# Tables without a schema are pricing's own: its connections see that schema alone.
IN_FORCE = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(version::text) FILTER (WHERE wrong)
    FROM (
        SELECT version,
            effective_to IS DISTINCT FROM lead(effective_from) OVER of_scope
                OR status = 'active'
                    AND count(*) FILTER (WHERE status = 'active') OVER (PARTITION BY scope_id) > 1 AS wrong
        FROM pricing_configs WHERE status IN ('scheduled', 'active', 'retired')
        WINDOW of_scope AS (PARTITION BY scope_id ORDER BY effective_from)
    ) v
""")
# Another composition for the same cents is noted on the row, without a line.
CHAIN = text(f"""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(subscription_id::text) FILTER (WHERE wrong)
    FROM (
        SELECT subscription_id, {LIKE_NOW} || old_breakdown - 'price_versions' IS DISTINCT FROM {LIKE_NOW}
            || lag(new_breakdown) OVER (PARTITION BY subscription_id ORDER BY id) - 'price_versions'
            OR old_total_minor IS DISTINCT FROM
                lag(new_total_minor) OVER (PARTITION BY subscription_id ORDER BY id) AS wrong
        FROM subscription_cost_history
    ) h
""")
# No upper bound: who waits for his renewal or keeps his price is priced by a version that another has replaced.
WINDOWS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT h.id, v.effective_from IS NULL OR h.effective_at < v.effective_from AS wrong
        FROM subscription_cost_history h JOIN pricing_configs v ON v.version = h.price_version
    ) w
""")
PRESENT = text(f"""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT s.id,
            {LIKE_NOW} || s.cost_breakdown - 'price_versions'
                IS DISTINCT FROM {LIKE_NOW} || h.new_breakdown - 'price_versions'
            OR s.total_minor IS DISTINCT FROM h.new_total_minor
            OR (s.tax_minor, s.delivery_cost_minor, s.admin_percentage_applied, s.tax_rate_applied)
                IS DISTINCT FROM ((h.new_breakdown ->> 'tax_minor')::bigint,
                    (h.new_breakdown ->> 'delivery_minor')::bigint,
                    (h.new_breakdown ->> 'admin_percentage')::numeric,
                    (h.new_breakdown ->> 'tax_rate')::numeric) AS wrong
        FROM public.subscriptions s LEFT JOIN (
            SELECT DISTINCT ON (subscription_id) * FROM subscription_cost_history
            ORDER BY subscription_id, id DESC
        ) h ON h.subscription_id = s.id
    ) p
""")
# Finished: everybody on the list has an outcome, and whoever was not moved has a reason.
ROLLOUTS = text("""
    SELECT coalesce(sum(listed), 0), count(*) FILTER (WHERE wrong),
        min(price_version::text) FILTER (WHERE wrong)
    FROM (
        SELECT price_version, count(i.subscription_id) AS listed,
            r.finished_at IS NOT NULL AND count(i.subscription_id) <> count(i.outcome)
                OR r.status = 'done' AND r.finished_at IS NULL
                OR bool_or(i.outcome IN ('excluded', 'deferred', 'failed')
                    AND i.code IS NULL AND i.detail IS NULL)
                OR r.drifted < count(*) FILTER (WHERE i.code = 'changed')
                OR r.status IN ('listing', 'running') AND r.drifted > r.drift_limit AS wrong
        FROM rollouts r LEFT JOIN rollout_items i USING (price_version)
        GROUP BY price_version, r.status, r.finished_at, r.drifted, r.drift_limit
    ) r
""")
# Held to what was approved: everybody in the preview is on the list, and whom the rollout moved got those cents,
# unless another version that waited for him when the preview was made has moved him since.
HELD = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT p.subscription_id AS id,
            i.subscription_id IS NULL AND coalesce(s.status, 'canceled') <> 'canceled'
            OR i.outcome = 'moved' AND coalesce(i.code, '') <> 'accepted'
                AND p.new_total_minor IS DISTINCT FROM h.new_total_minor
                AND NOT EXISTS (SELECT FROM rollout_items o
                    JOIN pricing_configs oc ON oc.version = o.price_version
                    WHERE o.subscription_id = p.subscription_id AND o.outcome IN ('moved', 'kept')
                        AND o.price_version <> r.price_version AND oc.published_at <= v.started_at
                        AND (o.due_at > v.started_at OR oc.effective_from > v.started_at)
                        AND h.new_breakdown -> 'price_versions' @> to_jsonb(o.price_version)) AS wrong
        FROM rollouts r
        JOIN pricing_configs c ON c.version = r.price_version
        JOIN previews v ON v.id = r.preview_id
        JOIN preview_items p ON p.preview_id = v.id
        LEFT JOIN public.subscriptions s ON s.id = p.subscription_id
        LEFT JOIN rollout_items i
            ON i.price_version = r.price_version AND i.subscription_id = p.subscription_id
        LEFT JOIN outbox o ON o.type = 'pricing.config_published'
            AND (o.payload ->> 'price_version')::int = r.price_version
            AND coalesce(o.payload ->> 'withdrawn', 'false') = 'false'
        LEFT JOIN LATERAL (
            SELECT new_total_minor, new_breakdown FROM subscription_cost_history h
            WHERE h.subscription_id = p.subscription_id AND h.price_version = r.price_version
                AND h.cause_id = o.id::text
            ORDER BY h.id DESC LIMIT 1
        ) h ON true
        WHERE r.status = 'done' AND o.id IS NOT NULL
        UNION ALL
        SELECT NULL, v.hash IS DISTINCT FROM c.approved_hash
        FROM rollouts r JOIN pricing_configs c ON c.version = r.price_version
        JOIN previews v ON v.id = r.preview_id
    ) held
""")
# After the rollout of a version in force, whoever it covers and who is not priced by it was left out for a stated
# reason.  Covered is whoever was so when he was last priced: what the storefront wrote since is being priced.
FORGOTTEN = """
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT s.id, NOT s.versions @> to_jsonb(CAST(:version AS integer))
            AND (i.outcome IS NULL OR i.outcome IN ('moved', 'kept')
                AND coalesce(i.code, i.detail, 'same_cents') IN ('same_cents', 'accepted')) AS wrong
        FROM (
            SELECT id, user_id, created_at, cost_breakdown ->> 'currency' AS currency,
                cost_breakdown ->> 'delivery_type' AS delivery_type,
                cost_breakdown -> 'variants' AS variants, cost_breakdown ->> 'place' AS place,
                coalesce(nullif(cost_breakdown -> 'price_versions', '[]'),
                    jsonb_build_array(price_version)) AS versions
            FROM public.subscriptions WHERE status <> 'canceled' AND cost_breakdown IS NOT NULL
                AND variants <> '[]' AND delivery_type IS NOT NULL AND delivery_address_id IS NOT NULL
        ) s
        CROSS JOIN LATERAL (SELECT split_part(s.place, '-', 1) AS country,
            nullif(split_part(s.place, '-', 2), '') AS region) a
        LEFT JOIN user_tiers u ON u.user_id = s.user_id
        LEFT JOIN rollout_items i ON i.price_version = :version AND i.subscription_id = s.id
        WHERE {covered}
    ) f
"""
REVISIONS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT coalesce(r.subscription_id::text, o.id) AS id,
            o.newest IS DISTINCT FROM r.revision OR o.facts IS DISTINCT FROM r.revision
                OR o.revisions IS DISTINCT FROM r.revision OR o.caused IS DISTINCT FROM o.facts AS wrong
        FROM subscription_revisions r FULL JOIN (
            SELECT payload ->> 'subscription_id' AS id, count(*) AS facts,
                max((payload ->> 'revision')::bigint) AS newest,
                count(DISTINCT (payload ->> 'revision')::bigint) AS revisions,
                count(headers ->> 'ce_causationid') AS caused
            FROM outbox
            WHERE type IN ('pricing.subscription_changed', 'pricing.subscription_cost_changed') GROUP BY 1
        ) o ON o.id = r.subscription_id::text
    ) compared
""")
FACTS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT coalesce(h.id, o.id) AS id, o.facts IS DISTINCT FROM 1 OR h.id IS NULL
            OR o.total IS DISTINCT FROM h.new_total_minor OR o.cause IS DISTINCT FROM h.cause_id AS wrong
        FROM subscription_cost_history h FULL JOIN (
            SELECT (payload ->> 'cost_history_id')::bigint AS id, count(*) AS facts,
                min((payload ->> 'new_total_minor')::bigint) AS total,
                min(headers ->> 'ce_causationid') AS cause
            FROM outbox WHERE type = 'pricing.subscription_cost_changed' GROUP BY 1
        ) o ON o.id = h.id
    ) compared
""")
CURRENCIES = text("""
    SELECT currency, count(*) FROM (
        SELECT currency FROM subscription_cost_history
        UNION ALL SELECT currency FROM public.subscriptions
    ) c GROUP BY currency
""")

CHECKS = (
    (
        "S6",
        IN_FORCE,
        "versions: one of a scope in force at any instant, each ends where the next begins",
    ),
    ("S6", CHAIN, "cost lines: each starts from the cost before it"),
    ("S6", WINDOWS, "cost lines: in effect since their version is in force, or later"),
    ("S6", PRESENT, "subscriptions: cost as the newest line says"),
    *audit_history.CHECKS,
    ("S7", ROLLOUTS, "rollouts: moved + kept + excluded + deferred + failed = listed"),
    ("S7", HELD, "rollouts: everybody of the approved preview, and its cents"),
    ("S2", REVISIONS, "subscriptions: revisions of their facts are contiguous"),
    ("S2", FACTS, "cost lines: each has exactly one subscription_cost_changed"),
)


async def checks(session: AsyncSession) -> list[CheckResult]:
    """S6 of versions and cost lines, S7 of rollouts, S2 of subscriptions' facts, S5 of currencies."""
    results = [await _check(session, *check) for check in CHECKS]
    known = await stored_layers(session)
    return [
        *results,
        await _forgotten(session, known),
        await _recomputed(session, known),
        await _currencies(session),
    ]


async def _check(session: AsyncSession, id_: str, query: TextClause, what: str) -> CheckResult:
    row = (await session.execute(query)).one()
    counted, wrong, first = int(row[0]), int(row[1]), row[2]
    detail = f"pricing {what}" if not wrong else f"pricing {what}: {wrong} wrong, first {first}"
    return CheckResult(id_, wrong == 0, counted, detail)


async def _forgotten(session: AsyncSession, known: Layers) -> CheckResult:
    """S7: nobody is left at an older version without a reason, scope by scope."""
    done = set(await session.scalars(select(Rollout.price_version).where(Rollout.status == "done")))
    counted, wrong, first = 0, 0, list[str]()
    for version in known.versions.values():
        if version.status != "active" or version.number not in done:
            continue
        who = covered(version.layer.scope)
        query = text(FORGOTTEN.format(covered=who.condition))
        row = (await session.execute(query, {**who.values, "version": version.number})).one()
        counted, wrong = counted + int(row[0]), wrong + int(row[1])
        first += [f"{row[2]} of version {version.number}"] if row[1] else []
    what = "pricing subscriptions: none left at an older version without a reason"
    found = f": {wrong} wrong, first {'; '.join(first[:SHOWN])}" if wrong else ""
    return CheckResult("S7", wrong == 0, counted, what + found)


async def _recomputed(session: AsyncSession, versions: Layers) -> CheckResult:
    """S6: every cost line, computed again from the inputs and the versions it names."""
    known = Composed(versions.all)
    counted, wrong, first = 0, 0, list[str]()
    async for lines in _pages(session):
        counted += len(lines)
        for line in lines:
            if fault := fault_of(line, known):
                wrong += 1
                first = [*first, f"line {line.id} {fault}"][:SHOWN]
    what = "pricing cost lines: recomputed from what they name, to the cent"
    found = f": {wrong} wrong, first {'; '.join(first)}" if wrong else ""
    return CheckResult("S6", not wrong, counted, what + found)


async def _pages(session: AsyncSession) -> AsyncIterator[Sequence[SubscriptionCostHistory]]:
    line, after = SubscriptionCostHistory, 0
    said = (line.new_breakdown, line.price_version, line.new_total_minor, line.currency)
    lines_of = select(line).options(load_only(line.id, *said, raiseload=True)).order_by(line.id)
    while True:
        statement = lines_of.where(line.id > after).limit(PAGE_ROWS)
        lines = (await session.scalars(statement)).all()
        if not lines:
            return
        yield lines
        after = lines[-1].id
        session.expunge_all()


async def _currencies(session: AsyncSession) -> CheckResult:
    found = (await session.execute(CURRENCIES)).all()
    return currencies("pricing", {row[0]: row[1] for row in found})
