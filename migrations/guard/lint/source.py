"""A SQL file as PostgreSQL's own grammar reads it: statements, their lines, and the exceptions its comments ask for."""

import codecs
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import postgast
from google.protobuf.message import DecodeError, Message
from postgast import pg_query_pb2 as pg

from migrations.guard.lint.report import Override

MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# `-- farebox:allow rule-name why it is safe here`
ALLOW = re.compile(r"^[ \t]*--[ \t]*farebox:allow[ \t]+([a-z-]+)[ \t]+(\S.*)$", re.MULTILINE)
PSQL_COMMAND = re.compile(rb"^\\[^\n]*", re.MULTILINE)
# `SELECT … \g`: psql's semicolon.  What it includes or runs from a result cannot be read here.
PSQL_SEND = re.compile(rb"(?<=\s)\\g(?:set|exec|x)?(?:[ \t]+\w+)?[ \t]*$", re.MULTILINE)
PSQL_UNSEEN = re.compile(
    rb"^[ \t]*\\(?:i|ir|include|include_relative)\b|(?<=\s)\\gexec\b", re.MULTILINE
)
COPIED_ROWS = re.compile(
    rb"^([ \t]*COPY\b[^;]*?\bFROM\s+STDIN\b[^;]*;[^\n]*\n)(.*?^\\\.)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
# Tools that keep the way back in the same file: it is not run with the way there.
WAY_BACK = re.compile(
    rb"^--[ \t]*(?:\+goose[ \t]+down|\+migrate[ \t]+down|migrate:down|//@undo)\b.*?"
    rb"(?=^--[ \t]*(?:\+goose[ \t]+up|\+migrate[ \t]+up|migrate:up)\b|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
# `${schema}`, as Flyway and shells fill in: any name will do.
PLACEHOLDER = re.compile(rb"\$\{([\w.:-]+)\}")
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
        # What is no SQL becomes blank; its lines stay, so that the others keep their numbers.
        clean = sql.removeprefix("\ufeff").encode()
        clean = COPIED_ROWS.sub(lambda found: found[1] + _blank(found[2]), clean)
        clean = WAY_BACK.sub(lambda found: _blank(found[0]), clean)
        clean = PSQL_SEND.sub(lambda found: b";" + _blank(found[0][1:]), clean)
        clean = PSQL_COMMAND.sub(lambda found: _blank(found[0]), clean)
        clean = PLACEHOLDER.sub(lambda found: b"p_" + re.sub(rb"\W", b"_", found[1]) + b"_", clean)
        return cls(clean, first_line)

    def line(self, location: int) -> int:
        return self.text.count(b"\n", 0, max(location, 0)) + self.first_line

    def statements(self) -> list["Statement"]:
        """Raises SyntaxFault."""
        if (nul := self.text.find(b"\0")) >= 0:
            raise SyntaxFault("a NUL byte: what follows it would not be read", self.line(nul))
        try:
            _allow_depth()
            tree = postgast.parse(self.text.decode())
        except postgast.PgQueryError as error:
            raise SyntaxFault(error.message, self.line(error.cursorpos - 1)) from error
        except DecodeError as error:
            raise SyntaxFault("nested too deeply to be judged", self.first_line) from error
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


def text_of(path: Path) -> str:
    """With plain newlines; bytes that are no UTF-8 are taken for Latin-1: PostgreSQL's words are the same in both.

    Raises OSError.
    """
    raw = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unseen_in(sql: str) -> list[int]:
    """Lines of psql commands that run what is not written in the file."""
    text = sql.encode()
    return [text.count(b"\n", 0, found.start()) + 1 for found in PSQL_UNSEEN.finditer(text)]


def _allow_depth() -> None:
    """protobuf refuses trees of more than 100 levels: a seed of sixty UNION ALLs is one."""
    try:
        compiled = importlib.import_module("google._upb._message")
    except ImportError:  # protobuf in plain Python: what is too deep is then said to be
        return
    compiled.SetAllowOversizeProtos(True)


def _blank(text: bytes) -> bytes:
    return re.sub(rb"[^\n]", b" ", text)


def overrides_in(sql: str) -> list[Override]:
    return [Override(rule, reason.strip()) for rule, reason in ALLOW.findall(sql)]


def walk(message: Message) -> Iterator[Message]:
    """The message and everything below it, parents first, in the order it is written; however deep."""
    waiting = [message]
    while waiting:
        found = waiting.pop()
        yield found
        below: list[Message] = []
        for descriptor, value in found.ListFields():
            if descriptor.message_type is not None:
                below += [value] if isinstance(value, Message) else value
        waiting += reversed(below)
