"""The chain of revisions as plain SQL: what is linted is what is rehearsed is what is applied.

Alembic renders each revision without a database; every piece it writes is one statement.  What stands between
BEGIN and COMMIT is one step, and so is each statement outside.
"""

import argparse
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from traceback import extract_tb

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.exc import NoInspectionAvailable

from migrations.faults import MigrationFault
from migrations.guard.qualified import bare_names
from migrations.offline import MARK, NotPlainSql, asks_whether_offline
from migrations.steps import ROOT

# Only its dialect matters: nothing connects.
NOWHERE = "postgresql://nobody@localhost/nothing"
VERSION_TABLE = "public.alembic_version"
# In front of an UPDATE or DELETE that takes a few rows each time: repeated until it finds none.
REPEAT_MARK = "/* farebox: repeat */"
RUNNING = re.compile(r"-- Running (?:upgrade|downgrade) (.*?) -> (.*)")
VERSIONS_FILE = re.compile(r"versions[/\\][^/\\]+\.py$")
COMMENT = re.compile(r"\s*(--[^\n]*(\n|$)|/\*.*?\*/)", re.DOTALL)
NAME = r'(?:"[^"]+"|[\w$]+)'
PLAIN_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX ", re.IGNORECASE)
CONCURRENT = re.compile(
    r"(CREATE\s+(UNIQUE\s+)?|DROP\s+)INDEX\s+CONCURRENTLY\b|REINDEX\b.*\bCONCURRENTLY\b",
    re.IGNORECASE | re.DOTALL,
)


# Outside of a block they may still run in a transaction of their own.
WRITES = {"INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "SELECT", "DO", "CALL"}


class Kind(StrEnum):
    """What a step is, and thereby how long it may wait and work."""

    TRANSACTION = "transaction"
    INDEX = "concurrent index"
    VALIDATION = "validation"
    BACKFILL = "backfill"
    OTHER = "statement"


class CannotRender(MigrationFault):
    exit_code = 20


@dataclass(frozen=True)
class PlannedStep:
    """`number` counts a revision's steps from 1; `revision` is where the whole revision arrives."""

    revision: str
    title: str
    number: int
    statements: tuple[str, ...]
    transactional: bool

    @property
    def checksum(self) -> str:
        return hashlib.sha256("\0".join(self.statements).encode()).hexdigest()

    @property
    def kind(self) -> Kind:
        if self.transactional:
            return Kind.TRANSACTION
        if self.statements[0].lstrip().startswith(REPEAT_MARK):
            return Kind.BACKFILL
        first = without_comments(self.statements[0]).upper()
        words = first.split(None, 1)
        if CONCURRENT.match(first):
            return Kind.INDEX
        if words[0] == "ALTER" and "VALIDATE CONSTRAINT" in " ".join(first.split()):
            return Kind.VALIDATION
        return Kind.OTHER

    @property
    def writes(self) -> bool:
        """It changes rows, once, outside of the revision's transactions."""
        words = without_comments(self.statements[0]).upper().split(None, 1)
        return self.kind is Kind.OTHER and words[0] in WRITES

    @property
    def ends_revision(self) -> bool:
        return any(is_version_change(each) for each in self.statements)

    def __str__(self) -> str:
        return f"{self.revision} {self.title}, step {self.number}"


def without_comments(sql: str) -> str:
    """`sql` from its first word on."""
    while found := COMMENT.match(sql):
        sql = sql[found.end() :]
    return sql.strip()


def is_version_change(sql: str) -> bool:
    return bool(re.match(rf"(INSERT INTO|UPDATE|DELETE FROM) {VERSION_TABLE}\b", sql.lstrip()))


class Chain:
    """The revisions of this release; `more_versions` is a folder of further ones on top.  Raises CannotRender."""

    def __init__(self, more_versions: Path | None = None) -> None:
        self.config = Config(toml_file=ROOT / "pyproject.toml")
        self.config.cmd_opts = argparse.Namespace(x=[f"url={NOWHERE}"])
        if more_versions is not None:
            folders = (ROOT / "migrations" / "versions", more_versions)
            self.config.set_main_option("path_separator", "os")
            self.config.set_main_option("version_locations", os.pathsep.join(map(str, folders)))
        self._scripts = ScriptDirectory.from_config(self.config)
        with _in_our_words(), warnings.catch_warnings():
            # Two revisions of one name, one that follows nothing that is there.
            warnings.filterwarnings("error", message="Revision ")
            self._scripts.get_heads()

    def heads(self) -> tuple[str, ...]:
        return tuple(self._scripts.get_heads())

    def knows(self, revision: str) -> bool:
        return any(each.revision == revision for each in self._scripts.walk_revisions())

    def upgrade(self, current: Sequence[str]) -> tuple[PlannedStep, ...]:
        """Steps from `current` to head.  Raises CannotRender."""
        steps = self._steps(current, lambda rev: self._scripts._upgrade_revs("head", rev))
        for step in steps:
            if bare := bare_names(step.statements):
                raise CannotRender(
                    f"{step} names {', '.join(bare)} without a schema, and the job works with"
                    f' search_path = pg_catalog: write public.{bare[0]}, or schema="public" in op.*'
                )
        return steps

    def downgrade(self, current: Sequence[str], to: str) -> tuple[PlannedStep, ...]:
        """Steps back from `current` to revision `to` or `base`.  Raises CannotRender."""
        return self._steps(current, lambda rev: self._scripts._downgrade_revs(to, rev))

    def _steps(
        self, current: Sequence[str], route: Callable[[str], object]
    ) -> tuple[PlannedStep, ...]:
        pieces = _Pieces()
        self.config.output_buffer = pieces  # type: ignore[assignment]
        with (
            _in_our_words(f"the way from {', '.join(current) or 'nothing'}"),
            EnvironmentContext(
                self.config,
                self._scripts,
                fn=lambda rev, context: route(rev),
                as_sql=True,
                starting_rev=tuple(current) or None,
                dont_mutate=True,
            ),
        ):
            self._scripts.run_env()
        steps = tuple(_cut(pieces.all, self._title))
        self._prove_one_way(steps)
        return steps

    def _prove_one_way(self, steps: Sequence[PlannedStep]) -> None:
        for revision in sorted({each.revision for each in steps}):
            script = self._scripts.get_revision(revision)
            if script is not None and (line := asks_whether_offline(Path(script.path))):
                raise CannotRender(
                    f"{Path(script.path).name}, line {line}, asks whether it is written out as SQL, as it"
                    " always is here: what it does otherwise would be left out without a word; do the same"
                    f" both ways, and say so in that line: {MARK}"
                )

    def _title(self, revision: str) -> str:
        script = self._scripts.get_revision(revision)
        return script.doc if script is not None else ""


@contextmanager
def _in_our_words(what: str = "the chain of revisions") -> Iterator[None]:
    """A revision is anybody's Python: whatever it raises, it cannot be written out."""
    try:
        yield
    except NotPlainSql as error:
        raise CannotRender(f"{_place(error)} cannot be written out as SQL: {error}") from error
    except CommandError as error:
        raise CannotRender(f"{what} is unknown: {error}{_remedy(str(error))}") from error
    except (AttributeError, TypeError, NoInspectionAvailable) as error:
        # One that asks the database has no connection here.
        raise CannotRender(
            f"{_place(error)} cannot be written out as SQL ({error});"
            " it must not read from the database: say it in SQL"
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CannotRender(f"{_place(error)} cannot be read ({said}): correct it") from error


def _place(error: BaseException) -> str:
    """The file and line that somebody wrote."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno},"
    frames = extract_tb(error.__traceback__)
    own = [each for each in frames if VERSIONS_FILE.search(each.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}," if own else "a revision"


def _remedy(said: str) -> str:
    if "overlaps" in said:
        return "; public.alembic_version names a revision and one that it comes from: delete the older row"
    return ""


class _Pieces:
    """Alembic's output buffer: one write is one statement."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def write(self, text: str) -> None:
        self.all.append(text.strip())

    def flush(self) -> None:
        """Everything is in memory."""


def _cut(pieces: Sequence[str], title: Callable[[str], str]) -> Iterator[PlannedStep]:
    revision, number = "", 0
    waiting: list[str] = []
    inside = False
    for piece in pieces:
        if running := RUNNING.match(piece):
            from_, to = running[1].strip(), running[2].strip()
            # Downwards the line ends in what is left behind: the step is named for what it takes away.
            revision, number = (from_ if "downgrade" in piece else to), 0
        elif piece == "BEGIN;":
            inside = True
        elif piece == "COMMIT;":
            inside = False
            if waiting:
                number += 1
                yield PlannedStep(revision, title(revision), number, _in_order(waiting), True)
            waiting = []
        elif not without_comments(piece):
            continue
        elif inside:
            waiting.append(_tolerant(piece))
        else:
            number += 1
            yield PlannedStep(revision, title(revision), number, (piece,), False)


def _in_order(statements: Sequence[str]) -> tuple[str, ...]:
    """A table's indexes come out of a set, in another order each time: then the same step had another checksum."""
    runs = groupby(statements, lambda each: bool(PLAIN_INDEX.match(each)))
    return tuple(each for plain, run in runs for each in (sorted(run) if plain else run))


def _tolerant(piece: str) -> str:
    """A database that was taken back to its base keeps the empty table of versions."""
    start = f"CREATE TABLE {VERSION_TABLE} "
    return (
        piece.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
        if piece.startswith(start)
        else piece
    )
