"""How far a step is: an index build by what the server tells of it, a backfill by its rows.

A bar on a terminal, and now and then a line in the trail.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from psycopg import Connection

from migrations.guard.progress import Count, uncounted
from migrations.guard.trail import Trail

TRAIL_EVERY_SECONDS = 30.0
BUILD = """
SELECT coalesce(c.relname, 'index'), phase, lockers_done, lockers_total,
    blocks_done, blocks_total, tuples_done, tuples_total
FROM pg_stat_progress_create_index LEFT JOIN pg_class c ON c.oid = index_relid WHERE pid = %s
"""
# The planner looks at the size of the file where no statistics are.
ESTIMATE = "EXPLAIN (FORMAT JSON) SELECT FROM {}"
NAME = r'(?:"(?:[^"]|"")+"|\w+)'
TARGET = re.compile(
    rf"^(?:UPDATE|DELETE\s+FROM)\s+(?:ONLY\s+)?({NAME}(?:\.{NAME})?)", re.IGNORECASE
)


@dataclass
class Told:
    """Where a step's progress goes; from whichever thread."""

    trail: Trail
    count: Count = uncounted
    every_seconds: float = TRAIL_EVERY_SECONDS
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def __call__(self, what: str, phase: str, done: int, expected: int) -> None:
        self.count(what, phase, done, expected)
        if self.clock() - self._last >= self.every_seconds:
            self._last = self.clock()
            self.trail.note("working", what=what, phase=phase, done=done, expected=expected)


def tell_build(connection: Connection, pid: int, count: Count) -> None:
    """Of the index that `pid` builds, if it does, seen from another connection."""
    row = connection.execute(BUILD, (pid,)).fetchone()
    if row is None:
        return
    name, phase, *figures = row
    lockers, blocks, tuples = ((figures[n] or 0, figures[n + 1] or 0) for n in (0, 2, 4))
    if phase.startswith("waiting"):
        done, expected = lockers
    else:
        # One phase has blocks, another tuples, a third neither.
        done, expected = blocks if blocks[1] else tuples
    count(f"index {name}", phase.removeprefix("building index: "), done, expected)


def rows_of(connection: Connection, statement: str) -> int:
    """About how many rows the table holds that `statement` writes to; 0 where that cannot be told."""
    target = TARGET.match(statement)
    if target is None:
        return 0
    try:
        row = connection.execute(ESTIMATE.format(target[1]).encode()).fetchone()
    except psycopg.Error:
        # A view, a table that is locked: the batches will tell.
        return 0
    return int(row[0][0]["Plan"]["Plan Rows"]) if row else 0
