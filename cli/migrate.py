"""`farebox migrate` and `farebox db`: the migration job and what follows it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.edge import current_settings
from migrations import after, job
from migrations.guard import lint as linter

migrate = typer.Typer(help="The guarded schema change.", no_args_is_help=True)
db = typer.Typer(help="What a fresh database needs.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@migrate.command()
def run(dry_run: DryRun = False) -> None:
    """Bring DATABASE_URL to this release's schema; the same as run_migration.py."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    job.run(current_settings(), console, dry_run=dry_run)


@migrate.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(help="SQL files, in the order they would run.")],
    database_url: Annotated[
        str | None, typer.Option(help="Judge by this database's sizes, types and timeouts.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="RULE=REASON", help="Accept a rule's findings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say of each file whether it would harm a live database; exit 1 when one would."""
    raise typer.Exit(linter.command(paths, database_url, allow or [], as_json))


@db.command("default-config")
def default_config() -> None:
    """Create the default price version where there is none."""
    print(after.default_config(current_settings()))
