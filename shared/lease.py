"""One owner at a time for work that must not run twice; a stalled owner loses it."""

from datetime import datetime

import asyncpg
from sqlalchemy import BigInteger, DateTime, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.db import Base

# A stalled owner is replaced after this long; a healthy one renews with every batch.
LEASE_SECONDS = 10


class Lease(Base):
    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    fence: Mapped[int] = mapped_column(
        BigInteger, server_default=text("1")
    )  # rises with each owner
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


_TAKE = """
INSERT INTO leases AS l (name, holder, expires_at)
VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET
    holder = excluded.holder,
    expires_at = excluded.expires_at,
    fence = CASE WHEN l.holder = excluded.holder THEN l.fence ELSE l.fence + 1 END
WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp()
RETURNING fence
"""


async def take(connection: asyncpg.Connection, name: str, holder: str) -> int | None:
    """Take or renew the lease: its fence number, or None while another owner holds it."""
    fence: int | None = await connection.fetchval(_TAKE, name, holder, LEASE_SECONDS)
    return fence


async def release(connection: asyncpg.Connection, name: str, holder: str) -> None:
    """Give it up, so that a successor need not wait for it to expire."""
    await connection.execute("DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder)
