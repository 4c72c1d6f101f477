"""What a plan's SQL can have done: what it cannot, somebody else did meanwhile on the live database."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.source import SyntaxFault, walk
from migrations.guard.loss import parsed

WORD = re.compile(r"\w+")
# These say CASCADE and EXECUTE of what happens later, not of what is done now.
LATER = re.compile(
    r"\bON\s+(?:DELETE|UPDATE)\s+CASCADE\b|\bEXECUTE\s+(?:FUNCTION|PROCEDURE)\b"
    r"|\b(?:GRANT|REVOKE)\s+EXECUTE\b",
    re.IGNORECASE,
)
# They reach what they do not name.
FAR = {"call", "cascade", "execute", "owned"}
TAKES_RIGHTS = {"owned", "owner", "reassign", "revoke"}
REINDEXED = re.compile(r"_cc(?:new|old)\d*$")
UNNAMED_INDEX = re.compile(
    r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:CONCURRENTLY\s+)?ON\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Reach:
    """`words` of the SQL, in small letters; `anywhere`: it may do what it does not say."""

    words: frozenset[str]
    anywhere: bool
    names_indexes: bool

    @classmethod
    def of(cls, statements: Iterable[str]) -> "Reach":
        listed = list(statements)
        sql = LATER.sub(" ", "\n".join(listed))
        words = frozenset(each.lower() for each in WORD.findall(sql))
        anywhere = bool(words & FAR) or any(map(_calls, listed))
        return cls(words, anywhere, not UNNAMED_INDEX.search(sql) and "reindex" not in words)

    def has(self, name: str) -> bool:
        """A table, column or constraint, by its last name."""
        return self.anywhere or self._says(name.rpartition(".")[2])

    def has_index(self, name: str, table: str) -> bool:
        own = name.rpartition(".")[2].strip('"')
        named = self._says(own) or self._says(REINDEXED.sub("", own))
        return self.anywhere or named or (not self.names_indexes and self.has(table))

    def takes_rights(self) -> bool:
        return self.anywhere or bool(self.words & TAKES_RIGHTS)

    def _says(self, name: str) -> bool:
        return {each.lower() for each in WORD.findall(name)} <= self.words


def _calls(statement: str) -> bool:
    """A function of somebody's own, which may do anything."""
    try:
        nodes = [node for each in parsed(statement) for node in walk(each.node)]
    except SyntaxFault:
        return True
    return any(
        isinstance(each, pg.FuncCall)
        and len(each.funcname) > 1
        and each.funcname[0].string.sval != "pg_catalog"
        for each in nodes
    )
