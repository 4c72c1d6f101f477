"""One file under judgement: what a rule may ask about the table it looks at, and what it may say."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.facts import LiveFacts, Name
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.report import Finding
from migrations.guard.lint.session import TIMEOUTS, Session
from migrations.guard.lint.source import Source, Statement
from migrations.guard.lint.world import World, show

# Bookkeeping of migration tools: a handful of rows that no application reads.
BOOKKEEPING = {
    "alembic_version",
    "schema_migrations",
    "django_migrations",
    "flyway_schema_history",
    "databasechangelog",
    "databasechangeloglock",
}
# Everybody who comes after our waiting statement waits as long: half a minute is an outage.
LONGEST_WAIT_MS = 30_000
# statement_timeout ends the waiting too, but is set for the work: only a short one stands in for lock_timeout.
LONGEST_STATEMENT_MS = 5_000


@dataclass(frozen=True)
class Mark:
    """Where a rollback leads back to; the name of a savepoint, none for the transaction's beginning."""

    name: str
    world: World
    settings: dict[str, int]
    local: dict[str, int]
    held: dict[Name, Mode]
    long_work: list[str]


class Case:
    """Findings and notes gather here while the statements go by."""

    def __init__(
        self, file: str, source: Source, world: World, session: Session, facts: LiveFacts | None
    ) -> None:
        self.file = file
        self.source = source
        self.world = world
        self.session = session
        self.facts = facts
        self.findings: list[Finding] = []
        # Functions whose bodies are being judged.
        self.calling: set[str] = set()
        # The line of the call, while a body is judged that is not in this file.
        self.called_from: int | None = None
        # Where ROLLBACK and ROLLBACK TO lead back to.
        self.marks: list[Mark] = []
        self.notes: list[Finding] = []
        self.statement = Statement(pg.Node(), 0, "")
        # Of the block around the statement: it loops without ever committing; it commits.
        self.endless = False
        self.commits = False

    def existing(self, name: Name) -> bool:
        return name not in self.world.new and name[1] not in BOOKKEEPING

    @property
    def here(self) -> int:
        """The line on which the statement begins."""
        return self.source.line(self.statement.location)

    def mark(self, name: str = "") -> Mark:
        session = self.session
        return Mark(
            name, deepcopy(self.world), dict(session.settings), dict(session.local),
            dict(session.held), list(session.long_work),
        )  # fmt: skip

    def go_back(self, mark: Mark) -> None:
        """Settings, tables and locks are as they were there."""
        self.world.become(deepcopy(mark.world))
        session = self.session
        session.settings, session.local = dict(mark.settings), dict(mark.local)
        session.held, session.long_work = dict(mark.held), list(mark.long_work)

    def small(self, name: Name) -> bool:
        found = self.facts.tables.get(name) if self.facts else None
        return found is not None and found.small

    def report(
        self, rule: str, message: str, rewrite: str, *, at: int = 0, size_of: Name | None = None
    ) -> None:
        """`at`: byte offset of the guilty part.  `size_of`: harmless if this table is known to be small."""
        line = self.called_from or self.source.line(at or self.statement.location)
        if size_of is not None and self.facts:
            message = f"{message} ({show(size_of)}: {self.facts.size_told(size_of)})"
        finding = Finding(rule, line, message, rewrite)
        if size_of is not None and self.small(size_of):
            self.notes.append(finding)
        elif finding not in self.findings:
            self.findings.append(finding)

    def note(self, rule: str, message: str) -> None:
        self.notes.append(Finding(rule, self.here, message, ""))

    def once(self, rule: str, subject: object) -> bool:
        """True the first time in this transaction."""
        seen = (rule, subject) in self.session.reported
        self.session.reported.add((rule, subject))
        return not seen

    def lock(self, name: Name, mode: Mode, *, nowait: bool = False) -> None:
        """This statement takes `mode` on the table: is the wait for it bounded, and what is held meanwhile?"""
        if not self.existing(name):
            return
        held = self.session.held.get(name)
        if held is not None and held >= mode:
            if self.session.wrapped and mode >= Mode.SHARE:
                self.wait(name, mode)  # by itself, it would have to get the lock anew
            return
        if mode >= Mode.SHARE:
            if not nowait:
                self.wait(name, mode)
            self._after_long_work(name, mode)
            self._several(name, mode)
        self.session.held[name] = mode

    def wait(self, name: Name, mode: Mode) -> None:
        """Is there an end to the waiting for this lock?"""
        of_lock, of_all = map(self.session.effective, TIMEOUTS)
        bounded = 0 < of_lock <= LONGEST_WAIT_MS or 0 < of_all <= LONGEST_STATEMENT_MS
        rule = "lock-timeout-too-long" if of_lock else "missing-lock-timeout"
        if bounded or not self.once(rule, name):
            return
        bounds = [ms for ms in (of_lock, of_all) if ms]
        how_long = f"up to {min(bounds) / 1000:g} s" if bounds else "without an end"
        if self.session.idle_local:
            how_long += (
                " (SET LOCAL counts only between BEGIN and COMMIT, and this file has neither)"
            )
        scope = "SET LOCAL" if self.session.in_block and not self.session.wrapped else "SET"
        self.report(
            rule,
            f"waits {how_long} for {mode} on {show(name)}; behind it all {mode.stops} of that table"
            " queue up, even if only one long transaction is in the way",
            f"{scope} lock_timeout = '2s';\n{self.statement.text};\n-- and try again when it fails",
        )

    def _after_long_work(self, name: Name, mode: Mode) -> None:
        if self.session.long_work and self.session.in_block and self.once("ddl-and-backfill", 0):
            self.report(
                "ddl-and-backfill-in-one-transaction",
                f"{mode} on {show(name)} is taken in the transaction of a backfill"
                f" ({self.session.long_work[0]}): row locks and the table lock are held together",
                f"COMMIT; -- the backfill, in batches\nBEGIN;\nSET LOCAL lock_timeout = '2s';\n"
                f"{self.statement.text};\nCOMMIT;",
            )

    def _several(self, name: Name, mode: Mode) -> None:
        others = [
            other
            for other, held in self.session.held.items()
            if held is Mode.ACCESS_EXCLUSIVE and other != name
        ]
        exclusive = mode is Mode.ACCESS_EXCLUSIVE and bool(others)
        drops = self.statement.kind == "drop_stmt"
        alone = f"DROP TABLE {show(name)}" if drops else self.statement.text
        if exclusive and self.once("several-access-exclusive-locks", 0):
            self.report(
                "several-access-exclusive-locks",
                f"one transaction holds ACCESS EXCLUSIVE on {', '.join(map(show, others))} while it"
                f" waits for {show(name)}: both tables stand still, and it may deadlock with the"
                " application",
                f"COMMIT;\nBEGIN;\nSET LOCAL lock_timeout = '2s';\n{alone};\nCOMMIT;",
            )

    def slow(self, what: str) -> None:
        """Time goes by although nothing is changed: what is held meanwhile stays held."""
        if not self.session.in_block or self.session.wrapped:
            return
        strong = [(name, mode) for name, mode in self.session.held.items() if mode >= Mode.SHARE]
        if strong and self.once("slow-under-lock", self.here):
            name, mode = strong[0]
            self.report(
                "slow-statement-under-lock",
                f"{mode} on {show(name)} from earlier in this transaction is held until {what} is"
                f" done: {mode.stops} of {show(name)} wait all that time",
                f"COMMIT; -- the schema change, alone in its short transaction\n{self.statement.text};",
            )

    def long_work(self, what: str, size_of: list[Name], *, locks_rows: bool = True) -> None:
        """A statement whose time grows with the data: nothing strong may be held meanwhile."""
        if not self.session.in_block or (size_of and all(map(self.small, size_of))):
            return
        strong = [(name, mode) for name, mode in self.session.held.items() if mode >= Mode.SHARE]
        if locks_rows:
            self.session.long_work.append(what)
        if strong and self.once("ddl-and-backfill", 0):
            name, mode = strong[0]
            self.report(
                "ddl-and-backfill-in-one-transaction",
                f"{mode} on {show(name)} from earlier in this transaction is held until {what} is"
                f" done: {mode.stops} of {show(name)} wait all that time",
                "COMMIT; -- the schema change, alone in its short transaction\n"
                f"-- then in batches, each in a transaction of its own:\n{self.statement.text};",
            )

    @contextmanager
    def part(self, source: Source, statement: Statement) -> Iterator[None]:
        """Judge a statement inside a DO block with lines of its own."""
        before = (self.source, self.statement)
        self.source, self.statement = source, statement
        try:
            yield
        finally:
            self.source, self.statement = before
