"""What must hold of what Stripe was asked to do, and of the periods that are charged; read by `farebox audit`."""

from collections.abc import Sequence

from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.gateway import answer_id
from services.payments.models import StripeEvent
from services.payments.orders.models import StripeOrder
from shared.audit import CheckResult

# Whoever is to put the key right has been told at once; after this long it is a fault.
HELD_SECONDS = 3_600
# A paid period comes back from pricing within seconds; in an hour of trouble L1 says so too.
MOVES_ON_SECONDS = 600
# Ids compared at once.
CHUNK_ORDERS = 5_000

# Each of these gives: how many were looked at, how many are wrong, and one of those.
ANSWERED = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(caller) FILTER (WHERE wrong)
    FROM (
        SELECT r.caller || ' ' || r.idempotency_key AS caller,
            o.id IS NULL OR (r.status IS NOT NULL AND o.status = 'open') AS wrong
        FROM api_requests r LEFT JOIN stripe_orders o ON o.id = r.order_id
    ) asked
""")
# What was given back since leaves the period free; a dispute lost does too.
PAID_TWICE = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(period) FILTER (WHERE wrong)
    FROM (
        SELECT subscription_id || ' from ' || period AS period, count(*) > 1 AS wrong
        FROM (
            SELECT DISTINCT o.subscription_id, p.stripe_id,
                (o.parameters->'metadata'->>'period_start')::timestamptz AS period
            FROM stripe_orders o JOIN payment_intents p ON p.stripe_id = o.stripe_payment_id
            WHERE o.kind = 'create' AND o.subscription_id IS NOT NULL
                AND o.parameters->'metadata' ? 'period_start'
                AND p.received_minor > p.refunded_minor + p.disputed_minor
        ) paid GROUP BY subscription_id, period
    ) periods
""")
# A refund that failed may be made again.
GIVEN_BACK = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(stripe_id) FILTER (WHERE wrong)
    FROM (
        SELECT p.stripe_id, sum(o.amount_minor) > p.received_minor AS wrong
        FROM stripe_orders o JOIN payment_intents p ON p.stripe_id = o.stripe_payment_id
        WHERE o.kind = 'refund' AND o.status = 'done'
            AND coalesce(p.fold->'refunds'->o.stripe_object_id->>'status', '')
                NOT IN ('failed', 'canceled')
        GROUP BY p.stripe_id, p.received_minor
    ) refunded
""")
HELD = text("""
    SELECT count(*), count(*) FILTER (WHERE created_at < now() - make_interval(secs => :seconds)
        AND failure_code IS NOT NULL AND failure_code <> 'withdrawing'), min(failure_code)
    FROM stripe_orders WHERE status = 'open'
""")
TOLD = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT coalesce(r.id, o.id) AS id, r.revision IS DISTINCT FROM coalesce(o.facts, 0)
            OR o.facts <> o.last_revision OR o.uncaused > 0
            OR (r.status = 'paid' AND o.last_status NOT IN ('paid', 'recovered'))
            OR (r.status IN ('past_due', 'given_up') AND o.last_status <> r.status) AS wrong
        FROM renewals r
        FULL JOIN (
            SELECT (payload->>'renewal_id')::uuid AS id, count(*) AS facts,
                max((payload->>'revision')::bigint) AS last_revision,
                count(*) FILTER (WHERE headers->>'ce_causationid' IS NULL) AS uncaused,
                (array_agg(payload->>'status'
                    ORDER BY (payload->>'revision')::bigint DESC))[1] AS last_status
            FROM outbox WHERE type = 'payments.renewal_changed' GROUP BY 1
        ) o USING (id)
        WHERE r.id IS NULL OR r.revision > 0 OR o.id IS NOT NULL OR r.status = 'paid'
    ) compared
""")
PAID = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT r.id, r.total_minor > 0 AND (
            p.status IS DISTINCT FROM 'succeeded' OR p.currency <> r.currency
            -- What the API was asked for is followed at the API's amount.
            OR (o.renewal_id = r.id AND p.received_minor <> r.total_minor)) AS wrong
        FROM renewals r
        LEFT JOIN payment_intents p ON p.stripe_id = r.stripe_payment_id
        LEFT JOIN stripe_orders o ON o.id = r.order_id
        WHERE r.status = 'paid'
    ) paid
""")
# Of two paid periods that overlap a customer pays one day twice.
OVERLAPS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT id, period_start < lag(period_end) OVER (
            PARTITION BY subscription_id ORDER BY period_start) AS wrong
        FROM renewals WHERE status = 'paid'
    ) paid
""")
STANDS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id::text) FILTER (WHERE wrong)
    FROM (
        SELECT r.id, b.status = 'active' AND b.period_end <= r.period_start
            AND r.ended_at < now() - make_interval(secs => :seconds) AS wrong
        FROM renewals r JOIN billable_subscriptions b USING (subscription_id)
        WHERE r.status = 'paid'
    ) paid
""")


async def checks(session: AsyncSession) -> list[CheckResult]:
    return [
        await _answers_are_facts(session),
        await _look(session, "S11", ANSWERED, "requests answered before their order had ended"),
        await _look(session, "S11", PAID_TWICE, "periods paid more than once"),
        await _look(session, "S11", GIVEN_BACK, "payments with more ordered back than came"),
        await _held(session),
        await _look(session, "S12", TOLD, "renewals whose changes are not each one caused fact"),
        await _look(session, "S12", PAID, "paid renewals without the payment of their amount"),
        await _look(session, "S12", OVERLAPS, "paid periods that overlap"),
        await _look(
            session, "S12", STANDS, "paid periods that never began", {"seconds": MOVES_ON_SECONDS}
        ),
    ]


async def _answers_are_facts(session: AsyncSession) -> CheckResult:
    """What Stripe answered to an order it has done is among the raw events."""
    done = select(StripeOrder.id).where(StripeOrder.status == "done")
    counted, missing = 0, []
    rows = await session.stream_scalars(done.execution_options(yield_per=CHUNK_ORDERS))
    async for orders in rows.partitions(CHUNK_ORDERS):
        counted += len(orders)
        missing += await _unanswered(session, [answer_id(each) for each in orders])
    detail = f"{len(missing)} orders done without Stripe's answer among the events"
    if missing:
        detail += f", such as {missing[0]}"
    return CheckResult("S11", not missing, counted, detail)


async def _unanswered(session: AsyncSession, ids: Sequence[str]) -> list[str]:
    known = set(await session.scalars(select(StripeEvent.id).where(StripeEvent.id.in_(ids))))
    return [each for each in ids if each not in known]


async def _held(session: AsyncSession) -> CheckResult:
    counted, long, code = (await session.execute(HELD, {"seconds": HELD_SECONDS})).one()
    detail = f"{long} orders that Stripe has not listened to for an hour"
    return CheckResult("S11", long == 0, counted, detail + (f": {code}" if long else ""))


async def _look(
    session: AsyncSession,
    check: str,
    statement: TextClause,
    what: str,
    given: dict[str, int] | None = None,
) -> CheckResult:
    counted, wrong, example = (await session.execute(statement, given or {})).one()
    detail = f"{wrong} {what}" + (f", such as {example}" if wrong else "")
    return CheckResult(check, wrong == 0, counted, detail)
