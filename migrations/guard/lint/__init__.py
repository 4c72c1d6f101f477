"""Judges SQL it has never seen: would it stop, break or quietly damage a live database?"""

from migrations.guard.lint.command import command
from migrations.guard.lint.facts import LiveFacts
from migrations.guard.lint.judge import lint, lint_files
from migrations.guard.lint.report import FileReport, Finding, Override

__all__ = ["FileReport", "Finding", "LiveFacts", "Override", "command", "lint", "lint_files"]
