"""What the linter says of a file: findings that make it dangerous, and notes that do not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from migrations.faults import MigrationFault
from migrations.guard.exits import ExitCode

Verdict = Literal["safe", "dangerous"]


class LintRefused(MigrationFault):
    """What the linter says, line by line."""

    exit_code = ExitCode.REFUSED_BY_LINT


@dataclass(frozen=True)
class Override:
    """An explicit exception: this rule's findings are accepted for this reason."""

    rule: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """`line` counts from 1; `rewrite` is SQL that does the same without the danger."""

    rule: str
    line: int
    message: str
    rewrite: str
    overridden: bool = False


@dataclass(frozen=True)
class FileReport:
    """A file is dangerous when a finding is left that nobody has overridden; notes never make it so."""

    file: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()


def unneeded(reports: Sequence[FileReport], overrides: Sequence[Override]) -> list[Override]:
    """Exceptions that nothing needs any more, or whose rule is misspelt."""
    used = {each.rule for report in reports for each in report.findings if each.overridden}
    return [each for each in overrides if each.rule not in used]


def as_json(reports: Sequence[FileReport]) -> str:
    """Notes are for people; a script reads what decides.  An override is told in its finding's message."""
    return json.dumps(
        [
            {
                "file": each.file,
                "verdict": each.verdict,
                "findings": [
                    {
                        "rule": finding.rule,
                        "line": finding.line,
                        "message": finding.message,
                        "rewrite": finding.rewrite,
                    }
                    for finding in each.findings
                ],
            }
            for each in reports
        ],
        indent=2,
        ensure_ascii=False,
    )


def as_text(reports: Sequence[FileReport]) -> str:
    lines: list[str] = []
    for report in reports:
        lines.append(f"{report.file}: {report.verdict}")
        for finding in report.findings:
            mark = "overridden" if finding.overridden else "danger"
            lines.append(f"  line {finding.line}: {mark}: {finding.rule}: {finding.message}")
            lines.extend(f"      {row}" for row in finding.rewrite.splitlines())
        lines.extend(
            f"  line {note.line}: note: {note.rule}: {note.message}" for note in report.notes
        )
    return "\n".join(lines)
