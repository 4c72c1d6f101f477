"""How far a dump or a restore is: the bytes that PostgreSQL says it has copied, or has there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg import Connection
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Column

# With "restore into farebox_scratch_…" in front and the figures behind, 80 columns are full.
BAR_WIDTH = 10
# What is done ("dump of farebox"), bytes so far, bytes expected.
Say = Callable[[str, int, int], None]

COPIES = """
SELECT pid, relid, bytes_processed FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid)
WHERE application_name = %s AND bytes_processed IS NOT NULL
"""


def silent(what: str, done: int, expected: int) -> None:
    """Nobody watches."""


class CopyWatch:
    """Adds up what one program's connections have copied; what it missed between two looks is told at the end."""

    def __init__(
        self, connection: Connection, application: str, what: str, expected: int, say: Say
    ) -> None:
        self._connection = connection
        self._application = application
        self._what = what
        self._expected = max(expected, 1)
        self._say = say
        self._copied: dict[tuple[int, int], int] = {}

    def look(self) -> None:
        for pid, relation, size in self._connection.execute(COPIES, (self._application,)):
            self._copied[pid, relation] = size
        self._say(self._what, min(sum(self._copied.values()), self._expected), self._expected)

    def done(self) -> None:
        self._say(self._what, self._expected, self._expected)


class SizeWatch:
    """How far a database has grown, rows and indexes: what a restore makes."""

    def __init__(self, connection: Connection, database: str, expected: int, say: Say) -> None:
        self._connection = connection
        self._database = database
        self._empty = self._size()
        self._expected = max(expected - self._empty, 1)
        self._say = say

    def look(self) -> None:
        self._tell(min(max(self._size() - self._empty, 0), self._expected))

    def done(self) -> None:
        self._tell(self._expected)

    def _tell(self, done: int) -> None:
        self._say(f"restore into {self._database}", done, self._expected)

    def _size(self) -> int:
        row = self._connection.execute("SELECT pg_database_size(%s)", (self._database,)).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def shown(console: Console) -> Iterator[Say]:
    """A bar for each thing that is done, on a terminal; elsewhere nothing."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=BAR_WIDTH),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
    )
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as display:

        def say(what: str, done: int, expected: int) -> None:
            if what not in bars:
                bars[what] = display.add_task(what, total=expected)
            display.update(bars[what], completed=done, total=expected)

        yield say
