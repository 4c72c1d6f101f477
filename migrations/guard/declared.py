"""What the plan itself says it means to do to data that is there: read from its SQL.

`/* farebox: moves public.x.amount_minor */` names a money column that a statement is meant to change,
`/* farebox: fills public.x */` a table it is meant to write rows into or take rows from.
"""

import re
from collections.abc import Sequence

from migrations.guard.compare import Expected
from migrations.guard.reach import Reach
from migrations.guard.statements import NAME, PlannedStep, without_comments

MOVES = re.compile(r"farebox:\s*moves\s+([\w.]+)")
FILLS = re.compile(r"farebox:\s*fills\s+([\w.]+)")
DROP_TABLE = re.compile(
    rf"DROP TABLE (?:IF EXISTS )?({NAME}(?:\.{NAME})?)(?: CASCADE| RESTRICT)?\s*;?$", re.IGNORECASE
)
DROP_COLUMN = re.compile(
    rf"ALTER TABLE (?:ONLY )?({NAME}(?:\.{NAME})?) DROP COLUMN (?:IF EXISTS )?({NAME})\s*;?$",
    re.IGNORECASE,
)
REVOKE = re.compile(
    rf"REVOKE ([A-Z, ]+?) ON (?:TABLE )?((?:{NAME}(?:\.{NAME})?(?:, )?)+) FROM ((?:{NAME}(?:, )?)+)\s*;?$",
    re.IGNORECASE,
)
# As PostgreSQL writes rights into an ACL.
LETTERS = {
    "SELECT": "r",
    "INSERT": "a",
    "UPDATE": "w",
    "DELETE": "d",
    "TRUNCATE": "D",
    "REFERENCES": "x",
    "TRIGGER": "t",
    "MAINTAIN": "m",
}


def expected(steps: Sequence[PlannedStep], heads: tuple[str, ...]) -> Expected:
    """For a comparison of before with after on a copy that nobody else writes to."""
    statements = [each for step in steps for each in step.statements]
    whole = "\n".join(statements)
    return Expected(
        revision=heads,
        dropped=frozenset(dropped(statements)),
        moved=frozenset(MOVES.findall(whole)),
        new_rows_in=frozenset(FILLS.findall(whole)),
        revoked=frozenset(revoked(statements)),
        reach=Reach.of(statements) if statements else None,
    )


def revoked(statements: Sequence[str]) -> set[tuple[str, str, str]]:
    """(table, role, letter) of each right that a statement takes away by its name; of ALL and of columns none."""
    found: set[tuple[str, str, str]] = set()
    for statement in statements:
        match = REVOKE.match(" ".join(without_comments(statement).split()))
        if match is None:
            continue
        rights, tables, roles = (
            re.split(r",\s*", part.replace('"', "")) for part in match.groups()
        )
        found |= {
            (table, role, LETTERS[right.upper()])
            for table in tables
            for role in roles
            for right in rights
            if right.upper() in LETTERS
        }
    return found


def dropped(statements: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        flat = " ".join(without_comments(statement).split())
        if table := DROP_TABLE.match(flat):
            found.add(table[1].replace('"', ""))
        elif column := DROP_COLUMN.match(flat):
            found.add(f"{column[1]}.{column[2]}".replace('"', ""))
    return found
