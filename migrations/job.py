"""The migration job at the terminal: the guarded run, then what services need to start.

`python run_migration.py --database-url URL [--dry-run]`.  It may be run again at any time.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from psycopg import Connection
from pydantic import ValidationError
from rich.console import Console

from migrations import after
from migrations.faults import MigrationFault, NotAUrl
from migrations.guard.address import address
from migrations.guard.backup import default_folder as default_backups
from migrations.guard.exits import EXPLAINED, ExitCode
from migrations.guard.lint.command import override
from migrations.guard.plan import as_text
from migrations.guard.progress import shown
from migrations.guard.run import LOCK_WAIT_SECONDS, Options, Result, Run, Show
from migrations.guard.smoke import SmokeFailed, smoke
from migrations.guard.speech import Speaker, tell
from migrations.guard.tools import stoppable
from migrations.guard.trail import Trail, default_folder, redact_text
from shared.db import plain_url
from shared.settings import Settings

EPILOG = "exit codes:\n" + "\n".join(
    f"  {int(code):>3}  {said}" for code, said in EXPLAINED.items()
)
NEXT = (
    "next: deploy, look at each /readyz, watch errors and the slowest statements for a day,"
    " then remove old backups: migrate prune --keep 3"
)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    console = Speaker()
    try:
        settings = settings_for(given.database_url)
        options = Options(
            dry_run=given.dry_run,
            lock_wait_seconds=given.lock_wait,
            backup_folder=given.backup_dir or default_backups(),
            allowed=tuple(override(each) for each in given.allow),
        )
        with stoppable():
            result = run(settings, console, options, audit_folder=given.audit_dir)
    except MigrationFault as fault:
        said = str(fault) if isinstance(fault, NotAUrl) else redact_text(str(fault))
        console.print(f"run_migration: {said}")
        return int(fault.exit_code)
    except KeyboardInterrupt:
        console.print("run_migration: interrupted; run it again to go on")
        return int(ExitCode.INTERRUPTED)
    if options.dry_run and result.prepared is not None:
        tell(as_text(result.steps, result.prepared.rehearsal, options.policy))
    nothing = result.code is ExitCode.NOTHING_TO_DO
    return int(ExitCode.DONE if nothing and not given.detailed_exit_code else result.code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_migration.py",
        description="Bring a database to this release's schema, guarded: nothing changes before a backup"
        " was restored and the upgrade rehearsed on it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--database-url", help="the owner's URL; default: DATABASE_URL")
    add("--dry-run", action="store_true", help="back up, rehearse, print the plan; change nothing")
    add(
        "--lock-wait",
        type=float,
        default=LOCK_WAIT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for another migration job (default: %(default)s)",
    )
    add("--backup-dir", type=Path, help="default: FAREBOX_BACKUP_DIR, else ./backups")
    add("--audit-dir", type=Path, help="default: FAREBOX_AUDIT_DIR, else ./migration-audit")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="RULE=REASON",
        help="accept what a rule of the linter says; written into the audit",
    )
    add(
        "--detailed-exit-code",
        action="store_true",
        help="leave with 10 when there is nothing to do",
    )
    return parser


def settings_for(database_url: str | None) -> Settings:
    """The environment's settings, with `database_url` in front of DATABASE_URL.  Raises MigrationFault."""
    try:
        settings = Settings() if database_url is None else Settings(database_url=database_url)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, wrong["loc"])).upper()
        raise _WrongEnvironment(f"{name}: {wrong['msg']}") from error
    if "database_url" not in settings.model_fields_set:
        raise _WrongEnvironment("say --database-url URL or set DATABASE_URL")
    address(settings.database_url)
    return settings


class _WrongEnvironment(MigrationFault):
    exit_code = ExitCode.USAGE


def run(
    settings: Settings,
    console: Console,
    options: Options | None = None,
    *,
    audit_folder: Path | None = None,
) -> Result:
    """Do everything, or with `dry_run` all but the change.  Raises MigrationFault."""
    folder = audit_folder or default_folder()
    try:
        trail = Trail.open(folder)
    except OSError as error:
        raise _WrongEnvironment(
            f"cannot write the audit trail to {folder}: {error.strerror}; set FAREBOX_AUDIT_DIR"
        ) from error
    chosen = replace(
        options or Options(),
        after=lambda connection: _prepare(connection, settings, console, trail),
    )
    with shown(console) as bars:
        show = Show(console.print, bars, bars.count)
        result = Run(plain_url(settings.database_url), chosen, trail, show).go()
    if result.steps and not chosen.dry_run:
        console.print(NEXT)
    # Kept elsewhere, it shows later whether lines were cut off the end.
    console.print(f"audit trail {trail.path}, head {trail.head()}")
    if chosen.dry_run:
        for step in result.steps:
            if step.number == 1:
                console.print(f"would run {step.revision} {step.title}")
        if result.steps:
            console.print("dry run: the database is as it was; the backup is kept")
    return result


def _prepare(connection: Connection, settings: Settings, console: Console, trail: Trail) -> None:
    """Raises SmokeFailed at its end: what else is to be done after a migration is done all the same."""
    for line in after.set_passwords(connection, settings):
        console.print(line)
    console.print(after.default_config(settings))
    flows = list(smoke(connection))
    for each in flows:
        trail.record("smoke", flow=each.name, outcome=each.outcome, reason=each.reason)
        console.print(str(each))
    if "kafka_bootstrap_servers" in settings.model_fields_set:
        console.print(after.topics(settings))
    else:
        console.print("KAFKA_BOOTSTRAP_SERVERS is not set: no topics created")
    if failed := [each for each in flows if each.outcome == "fails"]:
        raise SmokeFailed(failed)


if __name__ == "__main__":
    sys.exit(main())
