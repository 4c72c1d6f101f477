"""`farebox migrate` and `farebox db`: the migration job and what follows it."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.arguments import AsJson
from cli.edge import current_settings, show
from migrations import after, job
from migrations.guard import lint as linter
from migrations.guard import runbook
from migrations.guard.exits import ExitCode
from migrations.guard.lint.command import override
from migrations.guard.plan import as_json as plan_json
from migrations.guard.plan import as_text as plan_text
from migrations.guard.policy import Policy
from migrations.guard.run import Options, Result
from migrations.guard.snapshot import revision
from migrations.guard.statements import Chain
from migrations.guard.trail import TRAIL_NAME, default_folder, entries, verify
from migrations.run_lock import connect
from shared.db import plain_url

migrate = typer.Typer(help="The guarded schema change.", no_args_is_help=True)
db = typer.Typer(help="What a fresh database needs.", no_args_is_help=True)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Back up, rehearse, print the plan; change nothing.")
]
Allow = Annotated[
    list[str] | None, typer.Option(metavar="RULE=REASON", help="Accept a rule's findings.")
]
# Their options are those of migration_utils.py.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
# Enough for the last run and what led to it.
SHOWN_LINES = 50


@migrate.command()
def plan(as_json: AsJson = False) -> None:
    """What would run on DATABASE_URL, as SQL; nothing is touched."""
    with connect(plain_url(current_settings().database_url)) as connection:
        steps = Chain().upgrade(revision(connection))
    if as_json:
        print(json.dumps(plan_json(steps, None, Policy())))
        return
    print(plan_text(steps, None, Policy()) or "nothing to do")


@migrate.command()
def run(dry_run: DryRun = False, allow: Allow = None, as_json: AsJson = False) -> None:
    """Bring DATABASE_URL to this release's schema; the same as run_migration.py."""
    _run(dry_run, allow or [], as_json)


@migrate.command()
def rehearse(allow: Allow = None, as_json: AsJson = False) -> None:
    """Back up, restore beside, run the upgrade there and tell what it did; the same as run --dry-run."""
    _run(True, allow or [], as_json)


def _run(dry_run: bool, allow: list[str], as_json: bool) -> None:
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    options = Options(dry_run=dry_run, allowed=tuple(map(override, allow)))
    result = job.run(current_settings(), console, options)
    rehearsal = result.prepared.rehearsal if result.prepared is not None else None
    if as_json:
        print(json.dumps(_told(result, plan_json(result.steps, rehearsal, options.policy))))
    elif dry_run:
        print(plan_text(result.steps, rehearsal, options.policy))


def _told(result: Result, steps: list[dict[str, object]]) -> dict[str, object]:
    made = result.prepared.backup if result.prepared is not None else None
    return {
        "outcome": result.code.name.lower(),
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
    lines: Annotated[int, typer.Option(help="How many of the last lines.")] = SHOWN_LINES,
    as_json: AsJson = False,
) -> None:
    """The audit trail, and whether its chain is whole; exit 1 when it is not."""
    path = default_folder() / TRAIL_NAME
    found = list(entries(path))[-lines:] if path.exists() else []
    report = verify(path) if path.exists() else None
    problems = list(report.problems) if report is not None else []
    if as_json:
        head = report.head if report is not None else None
        print(json.dumps({"lines": found, "problems": problems, "head": head}))
    else:
        rows = [_row(each) for each in found]
        show(rows, as_json=False, empty=f"there is no trail at {path}")
        for each in problems:
            print(f"BROKEN: {each}")
        if report is not None and not problems:
            print(f"the chain of {report.lines} lines is whole; its head is {report.head}")
    raise typer.Exit(1 if problems else ExitCode.DONE)


def _row(line: dict[str, object]) -> dict[str, object]:
    rest = {k: v for k, v in line.items() if k not in ("at", "run", "kind", "prev")}
    said = " ".join(f"{name}={value}" for name, value in rest.items())
    return {"at": line.get("at"), "run": line.get("run"), "kind": line.get("kind"), "said": said}


def _pass_on(context: typer.Context) -> None:
    url = current_settings().database_url
    name = str(context.info_name)
    raise typer.Exit(runbook.main(["--database-url", url, name, *context.args]))


for command, does in {
    "backup": "Dump DATABASE_URL, and bring it back to prove it: --name NAME.",
    "validate": "Foreign keys, checks, indexes, statistics: --against BACKUP for what is new.",
    "list": "The backups there are.",
    "restore": "Put a backup in the database's place and keep that: PATH.",
    "prune": "Remove old backups, pinned ones never: --keep N.",
    "pin": "Never prune a backup: PATH.",
    "unpin": "Prune it with the others again: PATH.",
}.items():
    migrate.command(command, help=does, context_settings=PASSED_ON)(_pass_on)


@db.command("default-config")
def default_config() -> None:
    """Create the default price version where there is none."""
    print(after.default_config(current_settings()))
