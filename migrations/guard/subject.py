"""What preflight looks at, and what it says: each problem names its cause and its remedy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from psycopg import Connection

from migrations.faults import MigrationFault
from migrations.guard.statements import Chain, PlannedStep

# An error is one line: more names than these are counted.
SHOWN_NAMES = 5


@dataclass(frozen=True)
class Problem:
    """`check` is a stable word for scripts."""

    check: str
    severity: Literal["refusal", "warning"]
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"


class PreflightRefused(MigrationFault):
    exit_code = 20

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(folded(problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Subject:
    """A connection in autocommit, the plan, and the folders that will be written."""

    connection: Connection
    chain: Chain
    current: Sequence[str]
    steps: Sequence[PlannedStep]
    backup_folder: Path
    # There is no table yet: nothing that could be lost.
    bare: bool = False
    # Of the role that makes the copy, if that is not the database's own.
    scratch_url: str | None = None


def refuse(check: str, cause: str, remedy: str) -> Problem:
    return Problem(check, "refusal", cause, remedy)


def warn(check: str, cause: str, remedy: str) -> Problem:
    return Problem(check, "warning", cause, remedy)


def one(subject: Subject, query: str, *values: object) -> object:
    row = subject.connection.execute(query.encode(), values or None).fetchone()
    return row[0] if row else None


def names(subject: Subject, query: str) -> list[str]:
    return [str(row[0]) for row in subject.connection.execute(query.encode())]


def folded(problems: Sequence[Problem]) -> Iterator[str]:
    """A line for each, and of one kind no more than a few: the trail has them all."""
    for _, some in groupby(problems, lambda each: (each.check, each.severity)):
        lines = list(map(str, some))
        yield from lines[:SHOWN_NAMES]
        more = len(lines) - SHOWN_NAMES
        if more > 0:
            yield f"… and {more:,} more of these: see the trail"


def shortened(found: Sequence[str]) -> str:
    more = len(found) - SHOWN_NAMES
    return ", ".join(found[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
