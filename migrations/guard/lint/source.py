"""A SQL file as PostgreSQL's own grammar reads it: statements, their lines, and the exceptions its comments ask for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import postgast
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pg

from migrations.guard.lint.report import Override

# `-- farebox:allow rule-name why it is safe here`
ALLOW = re.compile(r"^[ \t]*--[ \t]*farebox:allow[ \t]+([a-z-]+)[ \t]+(\S.*)$", re.MULTILINE)
PSQL_COMMAND = re.compile(rb"^\\[^\n]*", re.MULTILINE)
BLANK = re.compile(rb"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)


@dataclass(frozen=True)
class SyntaxFault(Exception):
    message: str
    line: int


@dataclass(frozen=True)
class Source:
    """Locations are byte offsets in `text`; `first_line` is the file's line on which it begins."""

    text: bytes
    first_line: int = 1

    @classmethod
    def of(cls, sql: str, first_line: int = 1) -> "Source":
        # psql's own commands are no SQL; their lines stay, so that the others keep their numbers.
        clean = sql.removeprefix("\ufeff").encode()
        return cls(PSQL_COMMAND.sub(lambda found: b" " * len(found.group()), clean), first_line)

    def line(self, location: int) -> int:
        return self.text.count(b"\n", 0, max(location, 0)) + self.first_line

    def statements(self) -> list["Statement"]:
        """Raises SyntaxFault."""
        try:
            tree = postgast.parse(self.text.decode())
        except postgast.PgQueryError as error:
            raise SyntaxFault(error.message, self.line(error.cursorpos - 1)) from error
        return [self._statement(each) for each in tree.stmts]

    def _statement(self, raw: pg.RawStmt) -> "Statement":
        blank = BLANK.match(self.text, raw.stmt_location)
        begin = blank.end() if blank else raw.stmt_location
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(self.text)
        return Statement(raw.stmt, begin, self.text[begin:end].decode().strip())


@dataclass(frozen=True)
class Statement:
    node: pg.Node
    location: int
    text: str

    @property
    def kind(self) -> str:
        return self.node.WhichOneof("node") or "empty"


def overrides_in(sql: str) -> list[Override]:
    return [Override(rule, reason.strip()) for rule, reason in ALLOW.findall(sql)]


def walk(message: Message) -> Iterator[Message]:
    """The message and everything below it, parents first."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for child in [value] if isinstance(value, Message) else value:
            yield from walk(child)
