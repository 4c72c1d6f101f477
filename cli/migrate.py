"""`farebox migrate` and `farebox db`: the migration job and what follows it."""

from typing import Annotated

import typer
from rich.console import Console

from cli.edge import current_settings
from migrations import after, job

migrate = typer.Typer(help="The guarded schema change.", no_args_is_help=True)
db = typer.Typer(help="What a fresh database needs.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@migrate.command()
def run(dry_run: DryRun = False) -> None:
    """Bring DATABASE_URL to this release's schema; the same as run_migration.py."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    job.run(current_settings(), console, dry_run=dry_run)


@db.command("default-config")
def default_config() -> None:
    """Create the default price version where there is none."""
    print(after.default_config(current_settings()))
