"""What a run looked at, what it found missing, and what became of that."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson

# What a screen holds; all of them stand in reconcile_gaps.
MOST_GAPS = 1_000

RUN = """
SELECT id, account, since, objects_since, until, started_at, ended_at, counts::text AS counts,
    (SELECT count(*) FROM reconcile_gaps g WHERE g.run_id = r.id) AS found,
    (SELECT count(*) FROM reconcile_gaps g WHERE g.run_id = r.id AND g.mended_at IS NOT NULL)
        AS mended
FROM reconcile_runs r WHERE id = $1
"""
# What is left to an operator first.
GAPS = """
SELECT kind, subject, detail, found_at, mended_at FROM reconcile_gaps WHERE run_id = $1
ORDER BY mended_at IS NOT NULL, id LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """`mended_at` is none for what only an operator can settle."""

    kind: str
    subject: str
    detail: str
    found_at: datetime
    mended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """`looked` counts what each stage looked at; `gaps` are the first of those found."""

    id: UUID
    account: str | None
    since: datetime
    objects_since: datetime
    until: datetime
    started_at: datetime
    ended_at: datetime | None
    looked: dict[str, int]
    found: int
    mended: int
    gaps: list[Gap]

    @property
    def ok(self) -> bool:
        return self.found == self.mended


async def report_of(connection: asyncpg.Connection, run_id: UUID) -> Report:
    run = dict(await connection.fetchrow(RUN, run_id))
    counts: dict[str, int] = orjson.loads(run.pop("counts"))
    gaps = [Gap(**row) for row in await connection.fetch(GAPS, run_id, MOST_GAPS)]
    return Report(**run, looked={k: n for k, n in counts.items() if n}, gaps=gaps)
