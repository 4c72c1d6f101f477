"""What ends a run is told as what it is; what was found wrong stays found, whatever ends the undo."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, errors

from migrations.faults import MigrationFault
from migrations.guard import endings, pending, snapshot
from migrations.guard.apply import Applier
from migrations.guard.endings import Phase, Where
from migrations.guard.exits import ExitCode
from migrations.guard.gates import Plan, tell_way_back
from migrations.guard.lint import Override
from migrations.guard.pending import Pending
from migrations.guard.run import Options, Run, Show
from migrations.guard.statements import Chain
from migrations.guard.trail import Trail, entries
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.guard.test_apply import HEAD, REVISION, Look, fill

Go = Callable[..., ExitCode]
CENT = 'op.execute("UPDATE public.subscriptions SET loyalty_discount_minor = 1")\n'
IRREVERSIBLE = 'raise NotImplementedError("irreversible")'


def nothing(connection: Connection) -> None:
    """No aftermath."""


@pytest.fixture
def go(database: Database, tmp_path: Path, versions: Path, trail: Trail, said: list[str]) -> Go:
    """A run that accepts what `reasons` name."""

    def run(*reasons: str, after: Callable[[Connection], None] = nothing) -> ExitCode:
        options = Options(
            backup_folder=tmp_path / "backups",
            policy=replace(IMPATIENT, attempts=1),
            allowed=tuple(Override("validation", each) for each in reasons),
            more_versions=versions,
            after=after,
        )
        return Run(database.url, options, trail, Show(said.append)).go().code

    return run


def fails(go: Go, *reasons: str, code: ExitCode, match: str) -> str:
    with pytest.raises(MigrationFault, match=match) as caught:
        go(*reasons)
    assert caught.value.exit_code == code
    return str(caught.value)


def begun(applier: Applier, chain: Chain, state: pending.State) -> Pending:
    """An earlier run that did all of `chain` and ended in `state`."""
    connection = applier.connection
    run = Pending("1234abcd", HEAD, frozenset(), snapshot.take(connection))
    pending.begin(connection, run)
    applier.apply(chain.upgrade(HEAD))
    return pending.mark(connection, run, state, "a cent is gone")


@pytest.mark.parametrize(
    ("error", "stage", "phase", "code", "said"),
    [
        (errors.DiskFull("no space"), "backup", "before", 22, "no room: no space"),
        (errors.DiskFull("no space"), "validate", "changing", 41, "what was done stands"),
        (errors.QueryCanceled("cancelled"), "snapshot", "before", 20, "nothing was changed"),
        (errors.QueryCanceled("cancelled"), "rehearsal", "before", 23, "ended a statement"),
        (errors.SyntaxError("odd"), "validate", "changing", 41, "ended a statement: odd"),
        (errors.AdminShutdown("gone"), "validate", "changing", 41, "went away: gone"),
        (errors.AdminShutdown("gone"), "snapshot", "before", 3, "nothing was changed"),
        (errors.AdminShutdown("gone"), "after", "after", 3, "was found good"),
        (psycopg.InterfaceError("closed"), "apply", "changing", 41, "went away: closed"),
        (OSError(28, "full", "trail.jsonl"), "plan", "before", 20, "trail.jsonl: full"),
    ],
)
def test_what_nobody_foresaw_is_told_as_what_it_is(
    error: Exception, stage: str, phase: Phase, code: int, said: str
) -> None:
    fault = endings.fault_of(error, Where("postgresql://nobody@localhost:1/x", stage, phase))
    assert said in str(fault)
    assert fault.exit_code == code


def test_a_run_that_ends_after_its_change_says_what_stands(
    database: Database,
    applier: Applier,
    on_top: Write,
    go: Go,
    trail: Trail,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(snapshot.SETTINGS, "lock_timeout", "500ms")
    begun(applier, on_top("pass"), "changing")
    with psycopg.connect(database.url, application_name="vacuum") as holder:
        holder.execute("CREATE TABLE public.unrelated (id int)")
        holder.commit()
        holder.execute("LOCK TABLE public.unrelated IN ACCESS EXCLUSIVE MODE")
        code = ExitCode.LOCK_BUSY
        fails(go, code=code, match=r"no lock in time \(stage validate\).*\(vacuum\).*run again")

    def lose_the_folder(connection: Connection) -> None:
        shutil.rmtree(trail.folder)

    with pytest.raises(MigrationFault, match=r"trail\.jsonl: No such file.*found good") as caught:
        go(after=lose_the_folder)
    assert caught.value.exit_code == ExitCode.FAILED_RESUMABLE


def test_an_undo_that_gets_no_lock_hides_nothing_and_is_gone_on_with(
    database: Database, applier: Applier, on_top: Write, go: Go, look: Look
) -> None:
    chain = on_top('op.execute("CREATE TABLE public.x ()")', 'op.execute("DROP TABLE public.x")')
    begun(applier, chain, "undoing")
    with psycopg.connect(database.url, application_name="report") as report:
        report.execute("SELECT FROM public.x")
        code = ExitCode.VALIDATION_FAILED
        fails(go, code=code, match=r"a cent is gone; .* not come to its end: .*\(report\).*again")
    fails(go, code=code, match="a cent is gone; what this run created was taken back")
    assert look(REVISION) == HEAD[0]


def test_a_way_back_that_cannot_be_written_is_said_first_and_is_no_dead_end(
    applier: Applier, on_top: Write, go: Go, trail: Trail, said: list[str], look: Look
) -> None:
    chain = on_top("pass", IRREVERSIBLE)
    tell_way_back(Plan(chain, HEAD, chain.upgrade(HEAD), False, False), trail, said.append)
    [line] = said
    assert "this run could not be taken back: x01.py" in line
    begun(applier, chain, "undoing")
    code = ExitCode.VALIDATION_FAILED
    told = fails(go, code=code, match="nothing was taken back, because .*irreversible")
    assert "--allow validation='1234abcd: WHY'" in told
    assert go() is ExitCode.DONE
    assert look(REVISION) == "x01"


def test_an_undo_under_way_can_be_called_off_by_the_runs_name(
    applier: Applier, on_top: Write, go: Go, look: Look
) -> None:
    begun(applier, on_top("pass"), "undoing")
    assert go("1234abcd: looked at by hand") is ExitCode.DONE
    assert look(REVISION) == "x01"


def test_nothing_is_put_on_top_of_what_was_kept_and_only_what_is_named_is_accepted(
    database: Database,
    applier: Applier,
    on_top: Write,
    versions: Path,
    go: Go,
    look: Look,
    trail: Trail,
    said: list[str],
) -> None:
    fill(database.url, 5)
    begun(applier, on_top(CENT), "kept")
    on_top('op.execute("CREATE TABLE public.y (id int)")', name="x02", after="x01")
    code = ExitCode.VALIDATION_FAILED
    fails(go, code=code, match="loyalty_discount_minor.* an earlier run kept everything")
    assert look(REVISION) == "x01"
    (versions / "x02.py").unlink()
    for reason in ("fine by me", "public.subscriptions.loyalty_discount_minor"):
        fails(go, reason, code=code, match="loyalty_discount_minor")
    named = "public.subscriptions.loyalty_discount_minor, told of in pricing.outbox: ticket 12"
    assert go(named) is ExitCode.DONE
    allowed = [each for each in entries(trail.path) if each["kind"] == "validation_allowed"]
    assert [each["reason"] for each in allowed] == [named]
    assert "loyalty_discount_minor" in str(allowed[0]["what"])
    assert any(text.startswith(f"accepted ({named}): new fault: ") for text in said)
    # Once and for all: the next run has nothing to judge.
    assert go() is ExitCode.NOTHING_TO_DO
