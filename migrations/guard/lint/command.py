"""`farebox migrate lint`: files in, a report on stdout, 1 when any is dangerous."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg

from migrations.faults import CannotReach, MigrationFault
from migrations.guard.lint.facts import LiveFacts
from migrations.guard.lint.judge import lint_files
from migrations.guard.lint.report import Override, as_json, as_text, unneeded
from migrations.guard.lint.squawk import SquawkMissing


class NotAnOverride(MigrationFault):
    exit_code = 2


# As diesel, golang-migrate and sqlx name them.
WAY_BACK = re.compile(r"(?:^|\.)down\.sql$")


class NotAUrl(MigrationFault):
    exit_code = 2


class NotJudged(MigrationFault):
    exit_code = 2


class NotAFile(MigrationFault):
    exit_code = 2


def command(
    paths: Sequence[Path], database_url: str | None, allow: Sequence[str], json: bool
) -> int:
    """Raises MigrationFault."""
    overrides = [override(each) for each in allow]
    facts = read_facts(database_url) if database_url else None
    files = _files(paths)
    try:
        reports = lint_files(files, facts=facts, overrides=overrides)
    except OSError as error:
        raise NotAFile(f"cannot read {error.filename}: {error.strerror}") from error
    except SquawkMissing as error:
        raise NotJudged(str(error)) from error
    for each in unneeded(reports, overrides):
        print(f"--allow {each.rule}: no finding of that rule", file=sys.stderr)
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
    except psycopg.ProgrammingError as error:
        raise NotAUrl(
            "--database-url: not of the form postgresql://user:password@host:port/database"
        ) from error


def _files(paths: Sequence[Path]) -> list[Path]:
    """A folder stands for the .sql files below it, 2 before 10, without those that lead back.  Raises NotAFile."""
    files: list[Path] = []
    for path in paths:
        found = [path]
        if path.is_dir():
            every = sorted(path.rglob("*.sql"), key=_natural)
            found = [each for each in every if not WAY_BACK.search(each.name)]
            for each in every:
                if each not in found:
                    print(f"{each}: not judged, it leads back", file=sys.stderr)
            if not found:
                raise NotAFile(f"cannot read {path}: no .sql file is in this folder")
        files += found
    return files


def _natural(path: Path) -> list[tuple[int, str]]:
    """V2 before V10."""
    return [(int(part), "") if part.isdecimal() else (0, part)
            for part in re.split(r"([0-9]+)", str(path))]  # fmt: skip
