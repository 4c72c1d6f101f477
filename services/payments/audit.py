"""What must hold in payments at any moment; read by `farebox audit`."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import TextClause, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments import audit_doing
from services.payments.gateway import Delivered, NotAnEvent, open_envelope
from services.payments.models import StripeEvent
from services.payments.rebuild import rebuild
from shared.audit import CheckResult
from shared.money import EXPONENTS

# An event that nobody has looked at for this long is forgotten: the fold takes a batch in well under a second.
FORGOTTEN_SECONDS = 300
# Bodies held in memory at once: some 5 kB each.
CHUNK_EVENTS = 500

# Tables without a schema are payments' own: its connections see that schema alone.
FORGOTTEN = text("""
    SELECT count(*) FROM stripe_events
    WHERE status = 'received' AND waiting_for IS NULL
        AND received_at < now() - make_interval(secs => :seconds)
""")
# What is waited for comes within seconds, or Stripe is asked after a minute; its own troubles last hours.
WAITED_SECONDS = 6 * 3_600
# A parked event is money that an operator must look at; an hour is for the one who is looking.
PARKED_SECONDS = 3_600
LEFT = text("""
    SELECT count(*) FILTER (WHERE status = 'parked') AS parked,
        count(*) FILTER (WHERE status = 'parked' AND processed_at < now()
            - make_interval(secs => :parked_seconds)) AS parked_long,
        min(id) FILTER (WHERE status = 'parked') AS such_as,
        count(*) FILTER (WHERE status = 'received') AS waiting_long
    FROM stripe_events
    WHERE status = 'parked' OR (status = 'received' AND waiting_for IS NOT NULL
        AND received_at < now() - make_interval(secs => :waited_seconds))
""")
OLDEST = text("SELECT min(stripe_created_at) FROM stripe_events WHERE type NOT LIKE 'farebox.%'")
MISSING = text("""
    SELECT id FROM unnest(CAST(:ids AS text[])) AS id
    WHERE NOT EXISTS (SELECT FROM stripe_events e WHERE e.id = id.id)
""")
FACTS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(stripe_id) FILTER (WHERE wrong)
    FROM (
        SELECT p.stripe_id, p.revision IS DISTINCT FROM o.facts OR o.uncaused > 0 AS wrong
        FROM payment_intents p
        FULL JOIN (
            SELECT (payload->>'payment_id')::uuid AS id, count(*) AS facts,
                count(*) FILTER (WHERE headers->>'ce_causationid' IS NULL) AS uncaused
            FROM outbox WHERE type = 'payments.payment_changed' GROUP BY 1
        ) o USING (id)
    ) compared
""")
REVISIONS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(stripe_id) FILTER (WHERE wrong)
    FROM (
        SELECT stripe_id, revision <> place
            OR (before IN ('succeeded', 'canceled') AND status <> before) AS wrong
        FROM (
            SELECT payload->>'stripe_id' AS stripe_id, payload->>'status' AS status,
                (payload->>'revision')::bigint AS revision,
                row_number() OVER payment AS place,
                lag(payload->>'status') OVER payment AS before
            FROM outbox WHERE type = 'payments.payment_changed'
            WINDOW payment AS (
                PARTITION BY payload->>'payment_id' ORDER BY (payload->>'revision')::bigint
            )
        ) facts
    ) walked
""")
AMOUNTS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(stripe_id) FILTER (WHERE wrong)
    FROM (
        SELECT stripe_id, NOT (
            refunded_minor + disputed_minor <= received_minor AND received_minor <= amount_minor
            AND capturable_minor <= amount_minor AND currency = ANY(:currencies)
            AND (anomaly IS NULL OR NOT anomaly ~ 'succeeded and canceled|Stripe says')
        ) AS wrong
        FROM payment_intents
    ) looked_at
""")


async def checks(session: AsyncSession) -> list[CheckResult]:
    return [
        await stored_events(session),
        await _look(session, "S2", FACTS, "payments whose changes are not each one caused fact"),
        await revisions(session),
        await _look(session, "S5", AMOUNTS, "payments whose amounts or ends contradict each other"),
        *await audit_doing.checks(session),
    ]


async def stored_events(session: AsyncSession) -> CheckResult:
    """S1 as far as our own rows can tell; what Stripe delivered and we lack, only its event list knows."""
    forgotten = await session.scalar(FORGOTTEN, {"seconds": FORGOTTEN_SECONDS}) or 0
    statement = select(StripeEvent.id, StripeEvent.type, StripeEvent.body)
    counted, torn = 0, []
    rows = await session.stream(statement.execution_options(yield_per=CHUNK_EVENTS))
    async for event_id, event_type, body in rows:
        counted += 1
        if not _is_whole(event_id, event_type, body):
            torn.append(event_id)
    limits = {"parked_seconds": PARKED_SECONDS, "waited_seconds": WAITED_SECONDS}
    left = (await session.execute(LEFT, limits)).one()
    detail = f"{len(torn)} events not as they came, {forgotten} never looked at"
    if torn:
        detail += f", such as {torn[0]}"
    detail += f"; {left.waiting_long} wait for more than {WAITED_SECONDS // 3_600} hours"
    detail += f"; {left.parked} parked, {left.parked_long} of them for more than an hour"
    if left.parked:
        detail += f", such as {left.such_as}"
    ok = not (torn or forgotten or left.waiting_long or left.parked_long)
    return CheckResult("S1", ok, counted, detail)


def _is_whole(event_id: str, event_type: str, body: bytes) -> bool:
    try:
        head = open_envelope(body)
    except NotAnEvent:
        return False
    return (head.id, head.type) == (event_id, event_type)


async def oldest_event(session: AsyncSession) -> datetime | None:
    """When Stripe made the first event that its webhooks brought us."""
    oldest: datetime | None = await session.scalar(OLDEST)
    return oldest


async def delivered_are_stored(session: AsyncSession, delivered: Sequence[str]) -> CheckResult:
    """S1 against Stripe's own list: what it has a 2xx for has its row.  Ask for the list before the snapshot."""
    missing = (await session.scalars(MISSING, {"ids": list(delivered)})).all()
    detail = f"{len(missing)} of {len(delivered)} events that Stripe delivered have no row"
    if missing:
        detail += f", such as {missing[0]}"
    if isinstance(delivered, Delivered) and delivered.is_cut:
        detail += "; Stripe has delivered more, older ones, which were not compared"
    return CheckResult("S1", not missing, len(delivered), detail)


async def revisions(session: AsyncSession) -> CheckResult:
    """S4, and that every row is the fold of its events."""
    wanted = "facts out of step or leaving a final status"
    walked = await _look(session, "S4", REVISIONS, wanted)
    rebuilt = await rebuild(session)
    detail = f"{walked.detail}; {rebuilt.agreed} payments refolded alike"
    if rebuilt.differed:
        stripe_id, what = rebuilt.differed[0]
        detail += f", {len(rebuilt.differed)} not, such as {stripe_id}: {what}"
    return CheckResult("S4", walked.ok and rebuilt.ok, walked.counted, detail)


async def _look(session: AsyncSession, check: str, statement: TextClause, what: str) -> CheckResult:
    given = {"currencies": sorted(EXPONENTS)} if statement is AMOUNTS else {}
    counted, wrong, example = (await session.execute(statement, given)).one()
    detail = f"{wrong} {what}" + (f", such as {example}" if wrong else "")
    return CheckResult(check, wrong == 0, counted, detail)
