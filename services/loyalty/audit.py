"""What must hold in loyalty at any moment; read by `farebox audit`."""

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.audit import CheckResult, currencies

# Tables without a schema are loyalty's own: its connections see that schema alone.
BALANCES = text("""
    SELECT count(*), count(*) FILTER (
        WHERE a.balance_points <> coalesce(t.points, 0) OR a.balance_points <> coalesce(l.points, 0)
            OR a.balance_points < 0
    ), min(a.user_id::text) FILTER (
        WHERE a.balance_points <> coalesce(t.points, 0) OR a.balance_points <> coalesce(l.points, 0)
            OR a.balance_points < 0
    )
    FROM loyalty_accounts a
    LEFT JOIN (
        SELECT user_id, sum(points) AS points FROM points_transactions GROUP BY user_id
    ) t USING (user_id)
    LEFT JOIN (SELECT user_id, sum(points) AS points FROM points_lots GROUP BY user_id) l
        USING (user_id)
""")
LOTS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(payment_id::text) FILTER (WHERE wrong)
    FROM (
        SELECT payment_id, l.user_id IS NULL OR l.points <> coalesce(t.points, 0)
            OR l.payment_revision < t.newest OR t.users > 1 OR t.rules > 1
            OR t.repeated > 0 OR t.rule <> l.rule OR t.user_id <> l.user_id AS wrong
        FROM points_lots l
        FULL JOIN (
            SELECT payment_id, sum(points) AS points, max(payment_revision) AS newest,
                count(DISTINCT user_id) AS users, count(DISTINCT rule) AS rules,
                count(*) - count(DISTINCT payment_revision) AS repeated,
                min(rule) AS rule, (array_agg(user_id))[1] AS user_id
            FROM points_transactions GROUP BY payment_id
        ) t USING (payment_id)
    ) compared
""")
# A transaction and its fact, side by side: neither may stand alone, and they say the same.
FACTS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(payment_id::text) FILTER (WHERE wrong)
    FROM (
        SELECT payment_id, t.points IS NULL OR o.facts IS DISTINCT FROM 1
            OR t.points <> o.points OR o.causes <> 1 OR o.cause <> t.event_id::text AS wrong
        FROM points_transactions t
        FULL JOIN (
            SELECT (payload->>'payment_id')::uuid AS payment_id,
                (payload->>'payment_revision')::bigint AS payment_revision,
                count(*) AS facts, min((payload->>'points')::bigint) AS points,
                count(headers->>'ce_causationid') AS causes, min(headers->>'ce_causationid') AS cause
            FROM outbox WHERE type = 'loyalty.points_changed' GROUP BY 1, 2
        ) o USING (payment_id, payment_revision)
    ) compared
""")
REVISIONS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(user_id::text) FILTER (WHERE wrong)
    FROM (
        SELECT user_id, a.revision IS NULL OR a.revision <> coalesce(o.facts, 0)
            OR o.distinct_revisions <> o.facts OR o.newest <> o.facts OR o.uncaused > 0 AS wrong
        FROM loyalty_accounts a
        FULL JOIN (
            SELECT aggregateid::uuid AS user_id, count(*) AS facts,
                count(DISTINCT (payload->>'revision')::bigint) AS distinct_revisions,
                max((payload->>'revision')::bigint) AS newest,
                count(*) FILTER (WHERE headers->>'ce_causationid' IS NULL) AS uncaused
            FROM outbox WHERE aggregatetype = 'loyalty' GROUP BY aggregateid
        ) o USING (user_id)
    ) compared
""")
CURRENCIES = text("SELECT currency, count(*) FROM points_lots GROUP BY currency")


async def checks(session: AsyncSession) -> list[CheckResult]:
    """S8 of balances and lots, S2 of the ledger's facts and of the accounts' revisions, S5 of currencies."""
    return [
        await _check(session, "S8", BALANCES, "accounts: balance = transactions = open lots, >= 0"),
        await _check(
            session, "S8", LOTS, "lots: booked once per payment and revision, by one rule"
        ),
        await _check(session, "S2", FACTS, "transactions: each has exactly one points_changed"),
        await _check(session, "S2", REVISIONS, "accounts: revisions of their facts are contiguous"),
        await _currencies(session),
    ]


async def _check(session: AsyncSession, id_: str, query: TextClause, what: str) -> CheckResult:
    row = (await session.execute(query)).one()
    counted, wrong, first = int(row[0]), int(row[1]), row[2]
    detail = f"loyalty {what}" if not wrong else f"loyalty {what}: {wrong} wrong, first {first}"
    return CheckResult(id_, wrong == 0, counted, detail)


async def _currencies(session: AsyncSession) -> CheckResult:
    found = (await session.execute(CURRENCIES)).all()
    return currencies("loyalty", {row[0]: row[1] for row in found})
