"""The migration job: one at a time, the schema brought to head, then what services need to start.

`python run_migration.py --database-url URL [--dry-run]`.  It may be run again at any time.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from psycopg import Connection
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from migrations import after
from migrations.faults import MigrationFault, NotAUrl
from migrations.run_lock import run_lock
from migrations.steps import Migrations, Step, TableBusy
from shared.db import plain_url
from shared.settings import Settings

# Each attempt waits the environment's lock_timeout; between attempts nobody queues behind us.
LOCK_ATTEMPTS = 6
LOCK_PAUSE_SECONDS = 2.0
LOCK_WAIT_SECONDS = 60.0

EPILOG = """\
exit codes:
  0  done, or nothing to do
  1  a step failed: PostgreSQL undid it, earlier steps stand; run again when the cause is gone
  2  wrong arguments or environment
  3  the database or Kafka cannot be reached
  4  another migration job runs: try again
"""

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="run_migration.py",
        description="Bring a database to this release's schema.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database-url", help="the owner's URL; default: DATABASE_URL")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument(
        "--lock-wait",
        type=float,
        default=LOCK_WAIT_SECONDS,
        metavar="SECONDS",
        help="how long to wait for another migration job (default: %(default)s)",
    )
    given = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        settings = settings_for(given.database_url)
        run(settings, console, dry_run=given.dry_run, lock_wait_seconds=given.lock_wait)
    except MigrationFault as fault:
        console.print(f"run_migration: {fault}")
        return fault.exit_code
    except KeyboardInterrupt:
        console.print("run_migration: interrupted; run it again to go on")
        return 130
    return 0


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
    try:
        backend = make_url(settings.database_url).get_backend_name()
    except (ArgumentError, ValueError) as error:
        # Its text may repeat what was given, password and all.
        raise NotAUrl from error
    if backend not in ("postgresql", "postgres"):
        raise NotAUrl
    return settings


class _WrongEnvironment(MigrationFault):
    exit_code = 2


def run(
    settings: Settings,
    console: Console,
    *,
    dry_run: bool = False,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
) -> None:
    """Do everything, or with `dry_run` only say what would be done.  Raises MigrationFault."""
    url = plain_url(settings.database_url)
    with run_lock(url, wait_seconds=lock_wait_seconds, on_wait=console.print) as connection:
        migrations = Migrations(url)
        steps = migrations.pending()
        if dry_run:
            _say_plan(steps, console.print)
            return
        _upgrade(migrations, steps, console)
        _prepare(connection, settings, console)


def _say_plan(steps: Sequence[Step], say: Say) -> None:
    if not steps:
        say("nothing to do: the schema is this release's")
    for step in steps:
        say(f"would run {step.revision} {step.title}")


def _upgrade(migrations: Migrations, steps: Sequence[Step], console: Console) -> None:
    for number, step in enumerate(steps, 1):
        started = time.monotonic()
        with console.status(f"[{number}/{len(steps)}] {step.revision} {step.title}"):
            _insist(migrations, step, console.print)
        took_ms = (time.monotonic() - started) * 1000
        console.print(f"[{number}/{len(steps)}] {step.revision} {step.title} ({took_ms:.0f} ms)")
    if not steps:
        console.print("the schema is this release's already")


def _insist(migrations: Migrations, step: Step, say: Say) -> None:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            migrations.apply(step)
        except TableBusy as busy:
            if attempt == LOCK_ATTEMPTS:
                raise
            say(f"{busy}; attempt {attempt} of {LOCK_ATTEMPTS}, trying again")
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


def _prepare(connection: Connection, settings: Settings, console: Console) -> None:
    for line in after.set_passwords(connection, settings):
        console.print(line)
    console.print(after.default_config(settings))
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        console.print("KAFKA_BOOTSTRAP_SERVERS is not set: no topics created")
        return
    with console.status(f"creating topics on {settings.kafka_bootstrap_servers}"):
        said = after.topics(settings)
    console.print(said)


if __name__ == "__main__":
    sys.exit(main())
