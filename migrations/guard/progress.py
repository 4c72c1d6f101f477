"""How far things are, as bars: a dump's and a restore's bytes, as PostgreSQL says it has copied them or has them there,
an index's blocks, a backfill's rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg import Connection
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

# With "restore into farebox_scratch_…" in front and the figures behind, 80 columns are full.
BAR_WIDTH = 10
# What is done ("dump of farebox"), bytes so far, bytes expected.
Say = Callable[[str, int, int], None]
# What is built or filled, in which phase, and how much of what is done and expected; expected 0 is not known.
Count = Callable[[str, str, int, int], None]

COPIES = """
SELECT pid, relid, bytes_processed FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid)
WHERE application_name = %s AND bytes_processed IS NOT NULL
"""


def silent(what: str, done: int, expected: int) -> None:
    """Nobody watches."""


def uncounted(what: str, phase: str, done: int, expected: int) -> None:
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


class _Figures(ProgressColumn):
    """Bytes as bytes, all else by its number."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._bytes = DownloadColumn()

    def render(self, task: Task) -> Text:
        if not task.fields["counted"]:
            return self._bytes.render(task)
        total = f"/{task.total:,.0f}" if task.total else ""
        return Text(f"{task.completed:,.0f}{total}", style="progress.download")


class _Speed(ProgressColumn):
    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._bytes = TransferSpeedColumn()

    def render(self, task: Task) -> Text:
        return Text("") if task.fields["counted"] else self._bytes.render(task)


class Bars:
    """One for each thing that is done."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._known: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, expected: int) -> None:
        if what not in self._known:
            self._known[what] = self._display.add_task(what, total=expected, counted=False)
        self._display.update(self._known[what], completed=done, total=expected)

    def count(self, what: str, phase: str, done: int, expected: int) -> None:
        """Without an end that is known the bar runs to and fro."""
        if what not in self._known:
            self._known[what] = self._display.add_task(what, total=None, counted=True)
        told, task = f"{what}: {phase}", self._known[what]
        # update() takes None for "as before".
        self._display.tasks[self._display.task_ids.index(task)].total = expected or None
        self._display.update(task, completed=done, description=told)


@contextmanager
def shown(console: Console) -> Iterator[Bars]:
    """A bar for each thing that is done, on a terminal; elsewhere nothing."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=BAR_WIDTH),
        _Figures(),
        _Speed(),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as display:
        yield Bars(display)
