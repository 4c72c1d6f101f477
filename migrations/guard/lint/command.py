"""`farebox migrate lint`: files in, a report on stdout, 1 when any is dangerous."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg

from migrations.faults import CannotReach, MigrationFault
from migrations.guard.lint.facts import LiveFacts
from migrations.guard.lint.judge import lint_files
from migrations.guard.lint.report import Override, as_json, as_text


class NotAnOverride(MigrationFault):
    exit_code = 2


class NotAFile(MigrationFault):
    exit_code = 2


def command(
    paths: Sequence[Path], database_url: str | None, allow: Sequence[str], json: bool
) -> int:
    """Raises MigrationFault."""
    facts = read_facts(database_url) if database_url else None
    try:
        reports = lint_files(
            _files(paths), facts=facts, overrides=[override(each) for each in allow]
        )
    except (OSError, UnicodeDecodeError) as error:
        raise NotAFile(f"cannot read {error}") from error
    print(as_json(reports) if json else as_text(reports), file=sys.stdout)
    return int(any(each.verdict == "dangerous" for each in reports))


def override(given: str) -> Override:
    """RULE=REASON.  Raises NotAnOverride."""
    rule, sign, reason = given.partition("=")
    if not (rule.strip() and sign and reason.strip()):
        raise NotAnOverride(f"--allow {given}: give RULE=REASON, the reason too")
    return Override(rule.strip(), reason.strip())


def read_facts(database_url: str) -> LiveFacts:
    """Raises CannotReach."""
    plain = database_url.replace("+psycopg", "").replace("+asyncpg", "")
    try:
        with psycopg.connect(plain, autocommit=True, connect_timeout=10) as connection:
            return LiveFacts.read(connection)
    except psycopg.OperationalError as error:
        raise CannotReach(f"cannot reach the database: {error}") from error


def _files(paths: Sequence[Path]) -> list[Path]:
    """A folder stands for the .sql files in it, by name."""
    return [
        file for path in paths
        for file in (sorted(path.glob("*.sql")) if path.is_dir() else [path])
    ]  # fmt: skip
