"""About how many subscriptions a scope covers: how far something is that goes through all of them."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.pricing_sql import covered
from services.pricing.scopes import Scope

# Read to estimate the rest: some tens of milliseconds.  Fewer than these are counted.
SAMPLE_ROWS = 20_000
ROW_BYTES = 300  # at least, of a subscription that is priced


async def about_how_many(session: AsyncSession, scope: Scope) -> int:
    """Those that are not canceled, from a sample of the table as it is now, whatever its statistics say."""
    size = await session.scalar(_SIZE) or 0
    percent = min(100.0, 100 * SAMPLE_ROWS * ROW_BYTES / max(1, size))
    asked = covered(scope)
    statement = text(_COUNT.format(condition=asked.condition))
    counted = await session.scalar(statement, asked.values | {"percent": percent})
    return round((counted or 0) * 100 / percent)


_SIZE = text("SELECT pg_relation_size('public.subscriptions')")
_COUNT = """
SELECT count(*) FROM public.subscriptions s TABLESAMPLE SYSTEM (:percent)
    LEFT JOIN public.addresses a ON a.id = s.delivery_address_id
    LEFT JOIN user_tiers u ON u.user_id = s.user_id
WHERE s.status <> 'canceled' AND {condition}
"""
