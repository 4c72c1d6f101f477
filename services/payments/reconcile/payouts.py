"""Payouts taken apart: each line beside the payment it is of, all of them beside what reached the bank."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from services.payments.domain import Fold
from services.payments.fold_records import known_charges, load
from services.payments.gateway import (
    Line,
    Listing,
    PaidOut,
    UnknownToStripe,
    line_of,
    payout_of,
)
from services.payments.reconcile.judge import CHARGES, OWN, Charged, problem_of
from services.payments.reconcile.runs import Cursor, Run, advance
from services.payments.reconcile.walker import Walker, following
from shared import log
from shared.errors import InvalidInput

# A payout that differs is looked at again with each run for this long: what we lack may still come.
LOOKED_AT_AGAIN = timedelta(days=90)
BATCH_LINES = 500
MANUAL = "a manual payout: Stripe does not say which payments it is made of"
CANCELED = "canceled: nothing was sent"
# Its lines are right all the same: the money is on the balance again.
FAILED = "; it failed: nothing has reached the bank"
NOT_YET = "Stripe has not said yet what it is made of"

UPSERT = """
INSERT INTO payouts AS p (id, account, livemode, status, automatic, currency, amount_minor,
    arrival_on, created_at, verdict, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, arrival_on = excluded.arrival_on,
    amount_minor = excluded.amount_minor,
    verdict = CASE WHEN excluded.verdict = 'open' THEN p.verdict ELSE excluded.verdict END,
    detail = CASE WHEN excluded.verdict <> 'open' THEN excluded.detail
        WHEN excluded.status = 'failed' AND p.status <> 'failed' THEN p.detail || $12
        ELSE p.detail END
"""
TO_CHECK = """
SELECT id FROM payouts
WHERE account IS NOT DISTINCT FROM $1 AND verdict IN ('open', 'differs') AND created_at >= $2
  AND checked_in IS DISTINCT FROM $3
  AND ($4::boolean IS NULL OR livemode = $4)
ORDER BY created_at, id LIMIT 1
"""
CHECKED = """
UPDATE payouts SET checked_in = $2, checked_at = $3, detail = coalesce($4, detail) WHERE id = $1
"""
FORGET_LINES = "DELETE FROM payout_lines WHERE payout_id = $1"
KEEP_LINES = """
INSERT INTO payout_lines (id, payout_id, type, source, stripe_payment_id, currency, amount_minor,
    fee_minor, net_minor, created_at)
SELECT new.id, $2, new.type, new.source, new.payment, new.currency, new.amount, new.fee, new.net, new.at
FROM unnest($1::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::timestamptz[])
    AS new (id, type, source, payment, currency, amount, fee, net, at)
ON CONFLICT (id) DO UPDATE SET payout_id = excluded.payout_id,
    stripe_payment_id = excluded.stripe_payment_id, amount_minor = excluded.amount_minor,
    fee_minor = excluded.fee_minor, net_minor = excluded.net_minor
"""
LINES = """
SELECT id, type, source, stripe_payment_id AS payment, NULL AS charge, currency, amount_minor,
    fee_minor, net_minor, created_at
FROM payout_lines WHERE payout_id = $1 AND id > $2 ORDER BY id LIMIT $3
"""
CHARGED = """
SELECT stripe_payment_id AS payment, array_agg(id) AS ids, sum(amount_minor)::bigint AS amount_minor
FROM payout_lines WHERE stripe_payment_id = ANY($1) AND type = ANY($2) GROUP BY 1
"""
JUDGED = """
UPDATE payout_lines SET problem = new.problem
FROM unnest($1::text[], $2::text[]) AS new (id, problem) WHERE payout_lines.id = new.id
"""
ADDED_UP = """
SELECT p.status, p.amount_minor, coalesce(sum(l.net_minor), 0)::bigint AS lines_minor, count(l.id) AS lines,
    count(DISTINCT l.stripe_payment_id) AS payments, count(l.problem) AS problems,
    min(l.id || ': ' || l.problem) AS such_as,
    bool_and(l.currency = p.currency) AS is_one_currency
FROM payouts p
LEFT JOIN payout_lines l ON l.payout_id = p.id AND NOT (l.type = $2 AND l.source = p.id)
WHERE p.id = $1 GROUP BY p.id
"""
VERDICT = """
UPDATE payouts SET verdict = $2, detail = $3, checked_at = $4, checked_in = $5 WHERE id = $1
"""
DIFFERS = """
INSERT INTO reconcile_gaps (run_id, kind, subject, detail, found_at)
VALUES ($1, 'payout', $2, $3, $4)
ON CONFLICT (run_id, subject) DO UPDATE SET detail = excluded.detail
"""
AGREES = """
UPDATE reconcile_gaps SET mended_at = $2 WHERE kind = 'payout' AND subject = $1 AND mended_at IS NULL
"""

logger = log.get("reconcile")


async def walk_payouts(walker: Walker, run: Run) -> Cursor:
    """Note one page of payouts; returns where to go on."""
    listing = Listing("payouts", run.account, run.objects_since, run.until)
    page = await walker.page(listing, run.cursor.after)
    async with walker.pool.acquire() as connection, connection.transaction():
        for item in page.items:
            try:
                payout = payout_of(item)
            except InvalidInput as uncountable:
                logger.error("payout left out", payout=item["id"], reason=uncountable.detail)
            else:
                await _note(connection, payout, run.account)
        next_cursor = following(run, page, Cursor("lines"))
        await advance(connection, run, next_cursor, len(page.items))
    return next_cursor


async def walk_lines(walker: Walker, run: Run) -> Cursor | None:
    """Take the next payout apart, a page at a time; None once there is none left."""
    payout = run.cursor.payout
    if payout is None:
        return await _take_up(walker, run)
    listing = Listing("lines", run.account, payout=payout)
    page = await walker.page(listing, run.cursor.after)
    try:
        lines = [line_of(item) for item in page.items]
    except InvalidInput as uncountable:
        return await _give_up(walker, run, payout, uncountable.detail)
    async with walker.pool.acquire() as connection, connection.transaction():
        if run.cursor.after is None:
            await connection.execute(FORGET_LINES, payout)
        await _keep(connection, payout, lines)
        next_cursor = Cursor("lines", page.next, payout=payout) if page.next else Cursor("lines")
        await advance(connection, run, next_cursor, len(lines))
        if page.next is None:
            await _judge(connection, run, payout, walker.clock())
    return next_cursor


async def _give_up(walker: Walker, run: Run, payout: str, why: str) -> Cursor:
    async with walker.pool.acquire() as connection, connection.transaction():
        await connection.execute(VERDICT, payout, "not_itemisable", why, walker.clock(), run.id)
        await advance(connection, run, Cursor("lines"), 0)
    return Cursor("lines")


async def _note(connection: asyncpg.Connection, payout: PaidOut, account: str | None) -> None:
    verdict, detail = "open", NOT_YET
    if not payout.automatic:
        verdict, detail = "not_itemisable", MANUAL
    elif payout.status == "canceled":
        verdict, detail = "not_itemisable", CANCELED
    await connection.execute(
        UPSERT,
        payout.id,
        account,
        payout.livemode,
        payout.status,
        payout.automatic,
        payout.currency,
        payout.amount_minor,
        payout.arrival_on,
        payout.created_at,
        verdict,
        detail,
        FAILED,
    )


async def _take_up(walker: Walker, run: Run) -> Cursor | None:
    """The next payout that is not settled, asked for again: it may have been itemised meanwhile."""
    async with walker.pool.acquire() as connection:
        since = min(run.objects_since, run.until - LOOKED_AT_AGAIN)
        payout: str | None = await connection.fetchval(
            TO_CHECK, run.account, since, run.id, walker.livemode
        )
    if payout is None:
        return None
    await walker.pause()
    told: PaidOut | None = None
    why: str | None = None
    try:
        told = payout_of(await walker.client.item(f"/v1/payouts/{payout}", run.account))
    except UnknownToStripe as unknown:
        why = unknown.detail
    async with walker.pool.acquire() as connection, connection.transaction():
        if told is not None:
            await _note(connection, told, run.account)
        if told is not None and told.automatic and told.is_itemised:
            next_cursor = Cursor("lines", payout=payout)
        else:
            next_cursor = Cursor("lines")
            await connection.execute(CHECKED, payout, run.id, walker.clock(), why)
        # Without a page: two that are not itemised follow each other with the same cursor.
        await advance(connection, run, next_cursor, 0)
    return next_cursor


async def _keep(connection: asyncpg.Connection, payout: str, lines: Sequence[Line]) -> None:
    charges = {each.charge for each in lines if each.payment is None and each.charge}
    of_charge = await known_charges(connection, charges)
    await connection.execute(
        KEEP_LINES,
        [line.id for line in lines],
        payout,
        [line.type for line in lines],
        [line.source for line in lines],
        [line.payment or of_charge.get(line.charge or "") for line in lines],
        [line.currency for line in lines],
        [line.amount_minor for line in lines],
        [line.fee_minor for line in lines],
        [line.net_minor for line in lines],
        [line.created_at for line in lines],
    )


async def _judge(connection: asyncpg.Connection, run: Run, payout: str, now: datetime) -> None:
    """Each line beside its payment, all of them beside the payout; what differs is a gap until it no longer does."""
    after = ""
    while rows := await connection.fetch(LINES, payout, after, BATCH_LINES):
        lines = [Line(**row) for row in rows]
        after = lines[-1].id
        await _judge_lines(connection, lines)
    found = await connection.fetchrow(ADDED_UP, payout, OWN)
    verdict, detail = _verdict(found)
    await connection.execute(VERDICT, payout, verdict, detail, now, run.id)
    subject = f"/v1/payouts/{payout}"
    if verdict == "differs":
        await connection.execute(DIFFERS, run.id, subject, detail, now)
        logger.error("payout differs", payout=payout, detail=detail)
    else:
        await connection.execute(AGREES, subject, now)


async def _judge_lines(connection: asyncpg.Connection, lines: Sequence[Line]) -> None:
    payments = sorted({line.payment for line in lines if line.payment})
    folds: dict[str, Fold] = {
        name: each.fold for name, each in (await load(connection, payments)).items()
    }
    rows = await connection.fetch(CHARGED, payments, CHARGES)
    charged = {r["payment"]: Charged(frozenset(r["ids"]), r["amount_minor"]) for r in rows}
    nothing = Charged(frozenset(), 0)
    problems = [
        problem_of(line, folds.get(line.payment or ""), charged.get(line.payment or "", nothing))
        for line in lines
    ]
    await connection.execute(JUDGED, [line.id for line in lines], problems)


def _verdict(found: asyncpg.Record) -> tuple[str, str]:
    amount, lines = found["amount_minor"], found["lines_minor"]
    reasons = []
    if found["is_one_currency"] is False:
        reasons.append("its lines are of several currencies")
    elif amount != lines:
        reasons.append(f"its lines add up to {lines}, it is of {amount}: {amount - lines:+d}")
    if found["problems"]:
        reasons.append(f"{found['problems']} lines differ, such as {found['such_as']}")
    if reasons:
        return "differs", "; ".join(reasons)
    failed = FAILED if found["status"] == "failed" else ""
    return "agrees", f"{found['lines']} lines of {found['payments']} payments{failed}"
