"""What a concurrent build leaves when it is cut short goes again, whatever its name; somebody else's stays."""

import psycopg
import pytest

from migrations.guard.apply import Applier, TableBusy
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_apply import HEAD

INVALID = """
SELECT array_agg(c.relname::text ORDER BY 1) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid
"""
THEIRS = (
    "CREATE INDEX theirs ON public.users (email)",
    "CREATE INDEX users_full_name_idx ON public.users (created_at)",
    "CREATE INDEX other_ccnew ON public.products (name)",
    """
    UPDATE pg_index SET indisvalid = false WHERE indexrelid = ANY
        ('{public.theirs, public.users_full_name_idx, public.other_ccnew}'::regclass[])
    """,
)


@pytest.mark.parametrize(
    ("build", "indexes"),
    [
        ("CREATE INDEX CONCURRENTLY ON public.users (email)", 1),
        ('CREATE INDEX  CONCURRENTLY\\n "My ix" ON public.users (email)', 1),
        ("REINDEX INDEX CONCURRENTLY public.uq_users_email", 1),
        # Its TOAST table's too.
        ("REINDEX (CONCURRENTLY) TABLE public.users", 3),
    ],
)
def test_nothing_invalid_of_ours_stays(
    database: Database, on_top: Write, applier: Applier, build: str, indexes: int
) -> None:
    quoted = build.replace('"', '\\"')
    up = f'with op.get_context().autocommit_block():\n    op.execute("{quoted}")'
    steps = on_top(up).upgrade(HEAD)
    with psycopg.connect(database.url, autocommit=True) as look:
        for each in THEIRS:
            look.execute(each.encode())
        theirs = look.execute(INVALID).fetchone()
        assert theirs is not None
        with psycopg.connect(database.url) as writer:
            writer.execute("INSERT INTO public.users (email) VALUES ('x')")
            with pytest.raises(TableBusy):
                applier.apply(steps)
            left = look.execute(INVALID).fetchone()
            assert left is not None
            # The writer holds up the cleaning too; but each attempt does not leave more.
            assert len(left[0]) <= len(theirs[0]) + indexes
        applier.apply(steps)
        assert look.execute(INVALID).fetchone() == theirs
