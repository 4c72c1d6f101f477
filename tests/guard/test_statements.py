"""Revisions as steps: the same each time, cut where the transactions are."""

import subprocess
import sys
from pathlib import Path

import pytest

from migrations.guard.statements import CannotRender, Chain, Kind
from migrations.steps import ROOT
from tests.guard.conftest import Write
from tests.guard.test_apply import HEAD
from tests.migrations.test_003 import BEFORE

CHECKSUMS = f"""
from migrations.guard.statements import Chain
print([step.checksum for step in Chain().upgrade(("{BEFORE}",))])
"""


def test_a_step_is_the_same_in_every_process() -> None:
    """A ledger of a killed run is believed by its checksums."""
    here = str([step.checksum for step in Chain().upgrade((BEFORE,))])
    for _ in range(3):
        told = subprocess.run(
            [sys.executable, "-c", CHECKSUMS], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert told.stdout.strip() == here


def test_steps_are_cut_where_the_transactions_are(on_top: Write) -> None:
    up = """
    op.execute("CREATE TABLE public.x (id int)")
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.x (id)")
        op.execute("ALTER TABLE public.x VALIDATE CONSTRAINT ck_x")
    """
    steps = on_top(up).upgrade(HEAD)
    assert [step.kind for step in steps] == [
        Kind.TRANSACTION,
        Kind.INDEX,
        Kind.VALIDATION,
        Kind.TRANSACTION,
    ]
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert steps[0].creates == (("table", "public.x"),)
    assert steps[1].built_index == "public.ix_x"
    assert [step.ends_revision for step in steps] == [False, False, False, True]


@pytest.mark.parametrize("current", [(), (BEFORE,), ("5b7d21c4e8a0", "8c3e90f7d1b6")])
def test_there_is_a_way_from_wherever_a_database_stands(current: tuple[str, ...]) -> None:
    assert Chain().upgrade(current)[-1].revision == HEAD[0]
    assert Chain().upgrade(HEAD) == ()


def test_a_revision_that_asks_the_database_is_refused(on_top: Write, versions: Path) -> None:
    on_top('op.get_bind().execute("SELECT 1").fetchall()')
    with pytest.raises(CannotRender, match="say it in SQL"):
        Chain(versions).upgrade(HEAD)
