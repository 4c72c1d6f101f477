"""Each class of statements under its own timeouts, as the server says they are in effect when it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from migrations.guard.apply import Applier
from migrations.guard.policy import Policy
from migrations.guard.statements import Kind, PlannedStep
from tests.conftest import Database
from tests.guard.conftest import Write
from tests.guard.test_apply import HEAD, fill

UP = """
op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
op.execute("SET LOCAL lock_timeout = '1h'")
op.execute("ALTER TABLE public.subscriptions ADD CONSTRAINT ck_x CHECK (x > 0) NOT VALID")
with op.get_context().autocommit_block():
    op.execute("/* farebox: repeat */ UPDATE public.subscriptions SET x = 1 WHERE id IN"
               " (SELECT id FROM public.subscriptions WHERE x IS NULL LIMIT 7)")
    op.execute("ALTER TABLE public.subscriptions VALIDATE CONSTRAINT ck_x")
    op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.subscriptions (x)")
    op.execute("ANALYZE public.subscriptions")
    op.execute("UPDATE public.users SET email = email")
"""
# All different, so that none is taken for another.
POLICY = replace(
    Policy(),
    stall_lock_timeout_ms=901,
    stall_statement_timeout_ms=15_001,
    batch_lock_timeout_ms=3_002,
    batch_statement_timeout_ms=30_002,
    patient_lock_timeout_ms=120_003,
    patient_statement_timeout_ms=600_003,
)
STALL, BATCH, PATIENT = (901, 15_001), (3_002, 30_002), (120_003, 600_003)
IN_EFFECT = {
    Kind.TRANSACTION: STALL,
    Kind.OTHER: STALL,
    Kind.BACKFILL: BATCH,
    Kind.VALIDATION: PATIENT,
    Kind.INDEX: PATIENT,
}
# In milliseconds, of the very session and, inside of one, of the transaction.
LIMITS = """
SELECT (SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'),
    (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout')
"""


def test_every_statement_runs_under_the_timeouts_of_its_class(
    database: Database, on_top: Write, applier: Applier
) -> None:
    fill(database.url, 20)
    found: list[tuple[Kind, str, object]] = []

    @contextmanager
    def look(step: PlannedStep, statement: str) -> Iterator[None]:
        found.append((step.kind, statement, applier.connection.execute(LIMITS).fetchone()))
        yield

    applier.policy, applier.around = POLICY, look
    applier.apply(on_top(UP).upgrade(HEAD))
    assert {kind for kind, _, _ in found} == set(Kind)
    for kind, statement, limits in found:
        assert limits == IN_EFFECT[kind], statement
    [write] = [kind for kind, statement, _ in found if statement.startswith("UPDATE public.users")]
    assert write is Kind.OTHER


@pytest.mark.parametrize("kind", list(Kind))
def test_a_class_that_may_wait_stops_nobody_and_one_that_stops_others_may_not(kind: Kind) -> None:
    limits = Policy().limits(kind)
    assert 0 < limits.lock_timeout_ms < limits.statement_timeout_ms
    if kind in (Kind.INDEX, Kind.VALIDATION):
        assert limits.stall_ms is None
    else:
        assert limits.stall_ms == limits.lock_timeout_ms <= 3_000
