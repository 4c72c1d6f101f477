"""Where commands meet the terminal: settings in, one line and an exit code out."""

import json
import os
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TypeGuard

import asyncpg
import httpx
from aiokafka.errors import KafkaError
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from migrations.faults import MigrationFault
from migrations.guard.lint.report import LintRefused
from shared.errors import FareboxError
from shared.faults import is_transient
from shared.settings import Settings

# Written by `farebox up`: where what runs on this machine listens.
STACK_RECORD = Path(__file__).resolve().parent.parent / ".farebox" / "stack.json"
# SQLSTATE: wrong password, no such database.
CANNOT_LOG_IN = ("28", "3D")
PIPE_COLUMNS = 200
NO_SUCH_TABLE = ("42P01", "3F000")


class Exit(IntEnum):
    """What a command leaves with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


class UsageFault(Exception):
    """Wrong arguments or environment; nothing was done."""


KNOWN_FAULTS = (
    FareboxError,
    UsageFault,
    MigrationFault,
    DBAPIError,
    asyncpg.PostgresError,
    KafkaError,
    httpx.TransportError,
    OSError,
)


def exit_code(error: Exception) -> int:
    match error:
        case UsageFault():
            return Exit.USAGE
        case MigrationFault():
            return error.exit_code
        case httpx.TransportError():
            return Exit.UNREACHABLE
        case _ if is_transient(error) or _sqlstate(error).startswith(CANNOT_LOG_IN):
            return Exit.FAILED if _sqlstate(error) in NO_SUCH_TABLE else Exit.UNREACHABLE
        case _:
            return Exit.FAILED


def one_line(error: Exception) -> str:
    """What went wrong, without passwords: drivers do not repeat the URL.  The linter's report keeps its lines."""
    if isinstance(error, LintRefused):
        return str(error)
    if _sqlstate(error) in NO_SUCH_TABLE:
        return "the database has no farebox schema; run `farebox migrate run`"
    origin = error.orig if isinstance(error, DBAPIError) and error.orig else error
    text = " ".join(str(origin).split()) or type(origin).__name__
    if exit_code(error) == Exit.UNREACHABLE and not isinstance(error, MigrationFault):
        return f"cannot reach what this command needs: {text}"
    return text


def current_settings() -> Settings:
    """The environment's settings; what it leaves open is taken from the stack that runs here.  Raises UsageFault."""
    return settings_from(_stack_environment() | os.environ)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Raises UsageFault, naming the variable."""
    given = {
        name: environment[name.upper()]
        for name in Settings.model_fields
        if environment.get(name.upper())
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])).upper()
        raise UsageFault(f"{name}: {first['msg']}") from error


def _stack_environment() -> dict[str, str]:
    try:
        record = json.loads(STACK_RECORD.read_text())
    except (OSError, ValueError):
        return {}
    env = record.get("env") if isinstance(record, dict) else None
    return {k: v for k, v in env.items() if _is_text(v)} if isinstance(env, dict) else {}


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _sqlstate(error: Exception) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")


def show(rows: Sequence[dict[str, object]], *, as_json: bool, empty: str) -> None:
    """A list for people as a table, for scripts as JSON."""
    if as_json:
        print(json.dumps(rows, default=str))
        return
    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))
    wide_console().print(table)


def wide_console() -> Console:
    """A terminal's own width; in a file or a pipe, room for a table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    return console


def cell(value: object) -> str:
    match value:
        case None:
            return ""
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(str, value))
        case _:
            return str(value)
