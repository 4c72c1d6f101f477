"""Which revision of the schema this release needs.  Newer ones are fine: migrations only ever add (expand first)."""

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

WANTED_REVISION = "019"
# PostgreSQL's insufficient_privilege.
MAY_NOT = "42501"
OLDER_REVISIONS = frozenset(
    [
        "1f0c6e0a9b21",
        "5b7d21c4e8a0",
        "8c3e90f7d1b6",
        "d6d022bcff3b",
        "003",
        "004",
        "005",
        "006",
        "007",
        "008",
        "009",
        "010",
        "011",
        "012",
        "013",
        "014",
        "014a",
        "014b",
        "015",
        "015a",
        "015b",
        "015c",
        "015d",
        "016",
        "017",
        "018",
    ]
)


async def schema_problem(session: AsyncSession) -> str | None:
    """Why this release cannot run on the database's schema, or None."""
    try:
        found = set(await session.scalars(text("SELECT version_num FROM public.alembic_version")))
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == MAY_NOT:
            return f"this role may not read public.alembic_version; run the migration job ({WANTED_REVISION})"
        return f"the database has no farebox schema; run the migration job ({WANTED_REVISION})"
    if not found or found & OLDER_REVISIONS:
        stands = ", ".join(sorted(found)) or "nothing"
        return f"the schema stands at {stands}, this release wants {WANTED_REVISION}; run the job"
    return None
