"""The cost history as CSV, page by page: in the order of the lines' ids, so that it goes on where it was broken off.

A line gets its id before it is committed, so one with a lower id may come after one with a higher.  An export ends at
a line before which nobody is still writing: going on after the last one read misses none.
"""

import asyncio
import csv
import io
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.models import SubscriptionCostHistory
from services.pricing.subscriptions import check_there
from shared.db import Sessions
from shared.errors import Unavailable
from shared.spreadsheet import cell

PAGE_ROWS = 1_000  # held in memory at once; some 400 kB
# Whoever adds lines commits within two seconds: a chunk of a rollout is the longest.
SETTLE_SECONDS = 10.0
POLL_SECONDS = 0.05
LINE_END = "\r\n"  # RFC 4180

COLUMNS = (
    *("id", "subscription_id", "user_id", "effective_at", "recorded_at", "kind"),
    *("price_version", "price_versions", "currency", "old_total_minor", "new_total_minor"),
    *("subtotal_minor", "admin_percentage", "fee_minor", "delivery_type", "delivery_minor"),
    *("loyalty_discount_minor", "taxable_minor", "place", "tax_rate", "tax_inclusive"),
    *("tax_minor", "rounding_minor", "variants", "reason", "changed_by", "cause_id", "line_hash"),
)


class StillWriting(Unavailable):
    title = "Lines are being added for longer than an export waits"


@dataclass(frozen=True)
class Extract:
    """Lines after one id up to another, of one subscription or of all, and how many they are."""

    subscription_id: UUID | None
    after: int
    last: int
    count: int


async def extract(sessions: Sessions, subscription_id: UUID | None, after: int) -> Extract:
    """Raises SubscriptionNotFound, StillWriting."""
    async with sessions() as session:
        if subscription_id is not None:
            await check_there(session, subscription_id)
        last = await _settled(session)
        line = SubscriptionCostHistory
        statement = select(func.count()).where(line.id > after, line.id <= last)
        if subscription_id is not None:
            statement = statement.where(line.subscription_id == subscription_id)
        count = await session.scalar(statement)
    return Extract(subscription_id, after, last, count or 0)


async def rows(sessions: Sessions, wanted: Extract) -> AsyncIterator[str]:
    """The heading, then pages of lines, each read in a transaction of its own."""
    yield _written([COLUMNS])
    after = wanted.after
    while after < wanted.last:
        async with sessions() as session:
            page = await _page(session, wanted, after)
        if not page:
            return
        yield _written([[_flat(value) for value in row] for row in page])
        after = page[-1].id


async def _settled(session: AsyncSession) -> int:
    """The newest line there is, once everybody who was adding lines when it was looked up is through.

    Whoever takes an id holds the table's lock for writers first, and until his lines are seen.
    """
    last = await session.scalar(select(func.max(SubscriptionCostHistory.id))) or 0
    writing = set(await session.scalars(_WRITERS))
    give_up_at = time.monotonic() + SETTLE_SECONDS
    while writing:
        if time.monotonic() >= give_up_at:
            raise StillWriting(f"{len(writing)} transactions; send the same again")
        await asyncio.sleep(POLL_SECONDS)
        writing &= set(await session.scalars(_WRITERS))
    return last


async def _page(session: AsyncSession, wanted: Extract, after: int) -> list[Row[tuple[object]]]:
    part: dict[str, object] = {"after": after, "last": wanted.last, "rows": PAGE_ROWS}
    if wanted.subscription_id is None:
        return list(await session.execute(_PAGE, part))
    part["subscription"] = wanted.subscription_id
    return list(await session.execute(_PAGE_OF_ONE, part))


def _written(lines: Iterable[Sequence[str | int]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator=LINE_END).writerows(lines)
    return out.getvalue()


def _flat(value: object) -> str | int:
    """A cell within one line of the file: whoever reads it by lines reads it right."""
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            written = cell(value)
            return " ".join(written.splitlines()) if isinstance(written, str) else written


_WRITERS = text("""
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
    AND relation = CAST('subscription_cost_history' AS regclass)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")

_LINES = """
SELECT h.id, h.subscription_id, h.user_id, h.effective_at, h.recorded_at, h.kind, h.price_version,
    coalesce((SELECT string_agg(n, ' ' ORDER BY place) FROM jsonb_array_elements_text(
        h.new_breakdown -> 'price_versions') WITH ORDINALITY AS v (n, place)), h.price_version::text),
    h.currency, h.old_total_minor, h.new_total_minor, b.subtotal_minor, b.admin_percentage,
    b.fee_minor, b.delivery_type, b.delivery_minor, b.loyalty_discount_minor, b.taxable_minor, b.place,
    b.tax_rate, coalesce(b.tax_inclusive, false), b.tax_minor, coalesce(b.rounding_minor, 0),
    (SELECT string_agg(concat(v ->> 'variant_id', '*', v ->> 'quantity', '@', v ->> 'unit_price_minor'),
        ' ' ORDER BY place) FROM jsonb_array_elements(h.new_breakdown -> 'variants')
        WITH ORDINALITY AS l (v, place)),
    h.reason, h.changed_by, h.cause_id, encode(h.line_hash, 'hex')
FROM subscription_cost_history h CROSS JOIN LATERAL jsonb_to_record(h.new_breakdown) AS b (
    subtotal_minor bigint, admin_percentage text, fee_minor bigint, delivery_type text,
    delivery_minor bigint, loyalty_discount_minor bigint, taxable_minor bigint, place text,
    tax_rate text, tax_inclusive boolean, tax_minor bigint, rounding_minor bigint)
WHERE h.id > :after AND h.id <= :last"""
_PAGE = text(f"{_LINES} ORDER BY h.id LIMIT :rows")
_PAGE_OF_ONE = text(f"{_LINES} AND h.subscription_id = :subscription ORDER BY h.id LIMIT :rows")
