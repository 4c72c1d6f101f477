"""What must hold in pricing at any moment; read by `farebox audit`."""

from collections.abc import AsyncIterator, Iterable, Sequence

from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.domain import Box, Terms, cost
from services.pricing.drafts import stored_terms
from services.pricing.models import PricingConfig, SubscriptionCostHistory
from shared.audit import CheckResult, currencies
from shared.errors import FareboxError
from shared.events import CostBreakdown

PAGE_ROWS = 5_000  # of the cost history held in memory at once
SHOWN = 3  # offenders named in a line

# Tables without a schema are pricing's own: its connections see that schema alone.
IN_FORCE = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(version::text) FILTER (WHERE wrong)
    FROM (
        SELECT version,
            effective_to IS DISTINCT FROM lead(effective_from) OVER (ORDER BY effective_from)
                OR status = 'active' AND count(*) FILTER (WHERE status = 'active') OVER () > 1 AS wrong
        FROM pricing_configs WHERE status IN ('scheduled', 'active', 'retired')
    ) v
""")
CHAIN = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(subscription_id::text) FILTER (WHERE wrong)
    FROM (
        SELECT subscription_id, old_breakdown IS DISTINCT FROM lag(new_breakdown)
            OVER (PARTITION BY subscription_id ORDER BY id) AS wrong
        FROM subscription_cost_history
    ) h
""")
# A line whose writer began before its version's end was known may lie behind it, by no more than a request lasts
# and clocks differ.
WINDOWS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT h.id, v.effective_from IS NULL OR h.effective_at < v.effective_from
            OR h.effective_at > v.effective_to + interval '60 s' AS wrong
        FROM subscription_cost_history h JOIN pricing_configs v ON v.version = h.price_version
    ) w
""")
PRESENT = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT s.id, s.cost_breakdown IS DISTINCT FROM h.new_breakdown
            OR s.total_minor IS DISTINCT FROM h.new_total_minor
            OR s.tax_minor IS DISTINCT FROM (h.new_breakdown ->> 'tax_minor')::bigint AS wrong
        FROM public.subscriptions s LEFT JOIN (
            SELECT DISTINCT ON (subscription_id) * FROM subscription_cost_history
            ORDER BY subscription_id, id DESC
        ) h ON h.subscription_id = s.id
    ) p
""")
ROLLOUTS = text("""
    SELECT coalesce(sum(listed), 0), count(*) FILTER (WHERE wrong),
        min(price_version::text) FILTER (WHERE wrong)
    FROM (
        SELECT price_version, count(i.subscription_id) AS listed,
            r.status = 'done' AND count(i.subscription_id) <> count(i.outcome)
                OR r.status = 'listing' AND count(i.outcome) > 0 AND c.status = 'active' AS wrong
        FROM rollouts r JOIN pricing_configs c ON c.version = r.price_version
        LEFT JOIN rollout_items i USING (price_version)
        GROUP BY price_version, r.status, c.status
    ) r
""")
# After the active version's rollout, whoever is priced by an older one was left out for a stated reason.
FORGOTTEN = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT s.id, v.effective_from < active.effective_from
            AND coalesce(i.outcome NOT IN ('excluded', 'failed'), true) AS wrong
        FROM public.subscriptions s
        JOIN pricing_configs v ON v.version = s.price_version
        CROSS JOIN (
            SELECT c.version, c.effective_from FROM pricing_configs c
            JOIN rollouts r ON r.price_version = c.version
            WHERE c.status = 'active' AND r.status = 'done'
        ) active
        LEFT JOIN rollout_items i
            ON i.price_version = active.version AND i.subscription_id = s.id
        WHERE s.status <> 'canceled'
    ) f
""")
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
            FROM outbox WHERE aggregatetype = 'pricing' GROUP BY 1
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
    ("S6", IN_FORCE, "versions: one in force at any instant, each ends where the next begins"),
    ("S6", CHAIN, "cost lines: each starts from the cost before it"),
    ("S6", WINDOWS, "cost lines: in effect while their version is in force"),
    ("S6", PRESENT, "subscriptions: cost as the newest line says"),
    ("S7", ROLLOUTS, "rollouts: moved + kept + excluded + deferred + failed = listed"),
    ("S7", FORGOTTEN, "subscriptions: none left at an older version without a reason"),
    ("S2", REVISIONS, "subscriptions: revisions of their facts are contiguous"),
    ("S2", FACTS, "cost lines: each has exactly one subscription_cost_changed"),
)


async def checks(session: AsyncSession) -> list[CheckResult]:
    """S6 of versions and cost lines, S7 of rollouts, S2 of subscriptions' facts, S5 of currencies."""
    results = [await _check(session, *check) for check in CHECKS]
    return [*results, await _recomputed(session), await _currencies(session)]


async def _check(session: AsyncSession, id_: str, query: TextClause, what: str) -> CheckResult:
    row = (await session.execute(query)).one()
    counted, wrong, first = int(row[0]), int(row[1]), row[2]
    detail = f"pricing {what}" if not wrong else f"pricing {what}: {wrong} wrong, first {first}"
    return CheckResult(id_, wrong == 0, counted, detail)


async def _recomputed(session: AsyncSession) -> CheckResult:
    """S6: every cost line, computed again from the inputs and the version it names."""
    terms = {
        config.version: stored_terms(
            config.admin_percentage, config.delivery_cost_minor, config.tax_rates
        )
        for config in await session.scalars(select(PricingConfig))
    }
    counted, wrong = 0, list[str]()
    async for lines in _pages(session):
        counted += len(lines)
        wrong += [found for line in lines if (found := fault_of(line, terms[line.price_version]))]
    fine = "pricing cost lines: recomputed from what they name, to the cent"
    return CheckResult("S6", not wrong, counted, _shown(wrong) or fine)


async def _pages(session: AsyncSession) -> AsyncIterator[Sequence[SubscriptionCostHistory]]:
    after = 0
    while True:
        line = SubscriptionCostHistory
        statement = select(line).where(line.id > after).order_by(line.id).limit(PAGE_ROWS)
        lines = (await session.scalars(statement)).all()
        if not lines:
            return
        yield lines
        after = lines[-1].id
        session.expunge_all()


def fault_of(line: SubscriptionCostHistory, terms: Terms) -> str | None:
    """What is wrong with a line of the cost history, or None."""
    try:
        said = CostBreakdown.model_validate(line.new_breakdown)
        box = Box(
            said.currency,
            said.variants,
            said.delivery_type,
            said.place,
            said.loyalty_discount_minor,
        )
        again = cost(terms, box)
    except (FareboxError, ValueError) as error:
        return f"line {line.id}: {error}"
    if again != said:
        return f"line {line.id} says {said.total_minor}, recomputed it is {again.total_minor}"
    if (line.new_total_minor, line.currency) != (said.total_minor, said.currency):
        return f"line {line.id} says {line.new_total_minor} and {said.total_minor}"
    return None


async def _currencies(session: AsyncSession) -> CheckResult:
    found = (await session.execute(CURRENCIES)).all()
    return currencies("pricing", {row[0]: row[1] for row in found})


def _shown(wrong: Iterable[str]) -> str:
    found = list(wrong)
    return f"pricing: {len(found)} wrong: {'; '.join(found[:SHOWN])}" if found else ""
