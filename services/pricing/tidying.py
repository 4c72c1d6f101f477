"""What previews that count no more said of each subscription is thrown away; their totals are kept."""

from sqlalchemy import CursorResult, text

from shared.db import Sessions

CHUNK_ROWS = 5_000  # a few milliseconds


async def run_once(sessions: Sessions) -> int:
    """Delete some; returns how many.  0: nothing to do."""
    async with sessions.begin() as session:
        done = await session.execute(_FORGET, {"rows": CHUNK_ROWS})
        return done.rowcount if isinstance(done, CursorResult) else 0


_FORGET = text("""
DELETE FROM preview_items WHERE (preview_id, subscription_id) IN (
    SELECT i.preview_id, i.subscription_id FROM previews v JOIN preview_items i ON i.preview_id = v.id
    WHERE v.status IN ('stale', 'failed') LIMIT :rows)
""")
