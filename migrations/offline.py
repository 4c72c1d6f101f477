"""What a revision may not do where it is written out as SQL.

There alembic drops the parameters of a statement and writes NULL for each, and a revision that asks whether it is
written out may leave out half its work: neither shows before the rows are wrong.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import BindParameter, Executable
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg
from sqlalchemy.engine.mock import MockConnection

# In the line that asks: both ways bring about the same.
MARK = "# farebox: the same offline"
ASKS = {"is_offline_mode", "as_sql"}
Parameters = Mapping[str, object] | Sequence[Mapping[str, object]] | None


class NotPlainSql(CommandError):
    """Written out, it would be another statement than the one that was meant."""


class Compiler(PGCompiler_psycopg):
    """PostgreSQL's: it writes values into the SQL, but none that nobody gave."""

    def render_literal_bindparam(
        self, bindparam: BindParameter[object], *more: object, **how: object
    ) -> object:
        given = self._collect_params and bindparam.key in self._collected_params
        if bindparam.required and not given and bindparam.effective_value is None:
            raise NotPlainSql(
                f":{bindparam.key} has no value: write it into the SQL, or bind it with"
                r" sa.text(…).bindparams(…); where a colon is meant, write \:"
            )
        return super().render_literal_bindparam(bindparam, *more, **how)  # type: ignore[no-untyped-call]


def refuse_parameters(context: MigrationContext) -> None:
    """For the `context` of an offline run: what would be rendered without its values raises NotPlainSql."""
    context.dialect.statement_compiler = Compiler
    silent = context.connection
    if not isinstance(silent, MockConnection):
        raise TypeError("an offline run has no connection")
    write = silent._execute_impl

    def execute(statement: Executable, parameters: Parameters = None) -> object:
        if parameters:
            raise NotPlainSql(
                "parameters of execute() are not written out: bind them with"
                " sa.text(…).bindparams(…), one statement for each row, or use op.bulk_insert"
            )
        return write(statement)

    silent._execute_impl = execute


def asks_whether_offline(revision: Path) -> int | None:
    """The first line that does and does not say that both ways are the same."""
    source = revision.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        if name in ASKS and isinstance(node, ast.expr) and MARK not in lines[node.lineno - 1]:
            return node.lineno
    return None
