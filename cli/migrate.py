"""`farebox migrate` and `farebox db`: the migration job and what follows it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import AsJson
from cli.edge import UsageFault, current_settings, show
from migrations import after, job
from migrations.faults import MigrationFault
from migrations.guard import lint as linter
from migrations.guard import runbook
from migrations.guard.address import address
from migrations.guard.exits import EXPLAINED, ExitCode
from migrations.guard.lint.command import override
from migrations.guard.plan import as_json as plan_json
from migrations.guard.plan import as_text as plan_text
from migrations.guard.policy import Policy
from migrations.guard.run import LOCK_WAIT_SECONDS, Options, Result
from migrations.guard.snapshot import revision
from migrations.guard.speech import Speaker, tell, tell_json
from migrations.guard.statements import Chain
from migrations.guard.tools import stoppable
from migrations.guard.trail import (
    TRAIL_NAME,
    default_folder,
    entries,
    holds,
    redact_text,
    verify,
)
from migrations.run_lock import connect
from shared.db import plain_url
from shared.settings import Settings

migrate = typer.Typer(help="The guarded schema change.", no_args_is_help=True)
db = typer.Typer(help="What a fresh database needs.", no_args_is_help=True)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Back up, rehearse, print the plan; change nothing.")
]
Allow = Annotated[
    list[str] | None, typer.Option(metavar="RULE=REASON", help="Accept a rule's findings.")
]
LockWait = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0.0, help="How long to wait for another migration job."),
]
Detailed = Annotated[
    bool, typer.Option("--detailed-exit-code", help="Leave with 10 when there is nothing to do.")
]
EXPLAINED_BY = {int(code): code.name.lower() for code in ExitCode}
CODES = "Exit codes: " + "; ".join(f"{int(code)} {said}" for code, said in EXPLAINED.items()) + "."
# Their options are those of migration_utils.py.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
# They look at the folder of backups alone.
NEED_NO_DATABASE = ("list", "prune", "pin", "unpin")
# Enough for the last run and what led to it.
SHOWN_LINES = 50


@migrate.command()
def plan(as_json: AsJson = False) -> None:
    """What would run on DATABASE_URL, as SQL; nothing is touched."""
    with connect(plain_url(_settings().database_url)) as connection:
        steps = Chain().upgrade(revision(connection))
    if as_json:
        tell_json(plan_json(steps, None, Policy()))
        return
    tell(plan_text(steps, None, Policy()) or "nothing to do")


@migrate.command(epilog=CODES)
def run(
    dry_run: DryRun = False,
    allow: Allow = None,
    lock_wait: LockWait = LOCK_WAIT_SECONDS,
    detailed: Detailed = False,
    as_json: AsJson = False,
) -> None:
    """Bring DATABASE_URL to this release's schema; the same as run_migration.py."""
    code = _run(dry_run, allow or [], lock_wait, as_json)
    nothing = code is ExitCode.NOTHING_TO_DO and not detailed
    raise typer.Exit(ExitCode.DONE if nothing else code)


@migrate.command(epilog=CODES)
def rehearse(
    allow: Allow = None, lock_wait: LockWait = LOCK_WAIT_SECONDS, as_json: AsJson = False
) -> None:
    """Back up, restore beside, run the upgrade there and tell what it did; the same as run --dry-run."""
    code = _run(True, allow or [], lock_wait, as_json)
    raise typer.Exit(ExitCode.DONE if code is ExitCode.NOTHING_TO_DO else code)


def _run(dry_run: bool, allow: list[str], lock_wait: float, as_json: bool) -> ExitCode:
    """Raises MigrationFault, once a script has been told."""
    console = Speaker()
    allowed = tuple(map(override, allow))
    options = Options(dry_run=dry_run, allowed=allowed, lock_wait_seconds=lock_wait)
    try:
        with stoppable():
            result = job.run(_settings(), console, options)
    except MigrationFault as fault:
        if as_json:
            tell_json(_refused(fault.exit_code, str(fault)))
        raise
    except KeyboardInterrupt:
        console.print("farebox: interrupted; run it again to go on")
        if as_json:
            tell_json(_refused(ExitCode.INTERRUPTED, "interrupted"))
        return ExitCode.INTERRUPTED
    rehearsal = result.prepared.rehearsal if result.prepared is not None else None
    if as_json:
        tell_json(_told(result, plan_json(result.steps, rehearsal, options.policy)))
    elif dry_run and result.steps:
        tell(plan_text(result.steps, rehearsal, options.policy))
    return result.code


def _settings() -> Settings:
    """Raises UsageFault, NotAUrl."""
    settings = current_settings()
    if "database_url" not in settings.model_fields_set:
        raise UsageFault("set DATABASE_URL (postgresql://user:password@host:port/database)")
    address(settings.database_url)
    return settings


def _refused(code: int, reason: str) -> dict[str, object]:
    name = EXPLAINED_BY.get(code, "failed")
    return {"outcome": name, "exit_code": int(code), "reason": redact_text(reason), "steps": []}


def _told(result: Result, steps: list[dict[str, object]]) -> dict[str, object]:
    made = result.prepared.backup if result.prepared is not None else None
    return {
        "outcome": result.code.name.lower(),
        "exit_code": int(result.code),
        "backup": str(made.path) if made is not None else None,
        "seconds": result.seconds,
        "differences": [str(each) for each in result.differences],
        "steps": steps,
    }


@migrate.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(help="SQL files, in the order they would run.")],
    database_url: Annotated[
        str | None, typer.Option(help="Judge by this database's sizes, types and timeouts.")
    ] = None,
    allow: Allow = None,
    as_json: AsJson = False,
) -> None:
    """Say of each file whether it would harm a live database; exit 1 when one would."""
    raise typer.Exit(linter.command(paths, database_url, allow or [], as_json))


@migrate.command()
def history(
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = SHOWN_LINES,
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="A head told before: it must still be there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The audit trail, and whether its chain is whole; exit 1 when it is not."""
    path = default_folder() / TRAIL_NAME
    if not path.exists():
        if head is not None:
            raise UsageFault(f"there is no trail at {path}")
        found, report, problems = [], None, []
    else:
        found, report = list(entries(path))[-lines:], verify(path)
        problems = [*report.problems]
        if head is not None and not holds(path, head):
            problems.append(f"no line has the hash {head}: the end was cut off, or it was changed")
    if as_json:
        whole = report.head if report is not None else None
        tell_json({"lines": found, "problems": problems, "head": whole})
    else:
        rows = [_row(each) for each in found]
        show(rows, as_json=False, empty=f"there is no trail at {path}")
        for each in problems:
            tell(f"BROKEN: {each}")
        if report is not None and not problems:
            tell(f"the chain of {report.lines} lines is whole; its head is {report.head}")
    raise typer.Exit(1 if problems else ExitCode.DONE)


def _row(line: dict[str, object]) -> dict[str, object]:
    rest = {k: v for k, v in line.items() if k not in ("at", "run", "kind", "prev")}
    said = " ".join(f"{name}={value}" for name, value in rest.items())
    return {"at": line.get("at"), "run": line.get("run"), "kind": line.get("kind"), "said": said}


def _pass_on(context: typer.Context) -> None:
    name, asks = str(context.info_name), {"-h", "--help"} & {*context.args}
    given = [] if asks or name in NEED_NO_DATABASE else ["--database-url", _settings().database_url]
    raise typer.Exit(runbook.main([*given, name, *context.args], program="farebox migrate"))


for command, does in {
    "backup": "Dump DATABASE_URL, and bring it back to prove it: --name NAME.",
    "validate": "Foreign keys, checks, indexes, statistics: --against BACKUP for what is new.",
    "list": "The backups there are.",
    "restore": "Put a backup in the database's place and keep that: PATH.",
    "reopen": "Open DATABASE_URL's database again that a killed restore left shut.",
    "prune": "Remove old backups, pinned ones never: --keep N.",
    "pin": "Never prune a backup: PATH.",
    "unpin": "Prune it with the others again: PATH.",
}.items():
    migrate.command(command, help=does, context_settings=PASSED_ON)(_pass_on)


@db.command("default-config")
def default_config() -> None:
    """Create the default price version where there is none."""
    print(after.default_config(current_settings()))
