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


def expected(steps: Sequence[PlannedStep], heads: tuple[str, ...]) -> Expected:
    """For a comparison of before with after on a copy that nobody else writes to."""
    statements = [each for step in steps for each in step.statements]
    whole = "\n".join(statements)
    return Expected(
        revision=heads,
        dropped=frozenset(dropped(statements)),
        moved=frozenset(MOVES.findall(whole)),
        new_rows_in=frozenset(FILLS.findall(whole)),
        reach=Reach.of(statements) if statements else None,
    )


def dropped(statements: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        flat = " ".join(without_comments(statement).split())
        if table := DROP_TABLE.match(flat):
            found.add(table[1].replace('"', ""))
        elif column := DROP_COLUMN.match(flat):
            found.add(f"{column[1]}.{column[2]}".replace('"', ""))
    return found
