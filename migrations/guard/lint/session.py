"""The connection that runs the file: its transaction, its timeouts in effect, the locks it holds."""

import re
from dataclasses import dataclass, field

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.facts import Name
from migrations.guard.lint.locks import Mode

TIMEOUTS = ("lock_timeout", "statement_timeout")
UNITS_MS = {"": 1, "us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


@dataclass
class Session:
    """Timeouts in milliseconds, 0 for none.

    `wrapped`: the file says nothing of transactions.  Each time the worse is presumed: one transaction around it for the
    locks it would hold, none for SET LOCAL.
    """

    defaults: dict[str, int]
    wrapped: bool
    in_block: bool = False
    number: int = 0
    # A SET LOCAL of lock_timeout was of no effect.
    idle_local: bool = False
    settings: dict[str, int] = field(default_factory=dict)
    local: dict[str, int] = field(default_factory=dict)
    held: dict[Name, Mode] = field(default_factory=dict)
    long_work: list[str] = field(default_factory=list)
    reported: set[tuple[str, object]] = field(default_factory=set)
    new_enum_values: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.settings = dict(self.defaults)
        self.in_block = self.wrapped

    def begin(self, *, block: bool) -> None:
        self.number += 1
        self.in_block = block
        self.local.clear()
        self.held.clear()
        self.long_work.clear()
        self.reported.clear()
        self.new_enum_values.clear()

    def effective(self, name: str) -> int:
        return self.local.get(name, self.settings[name])

    def reset_all(self) -> None:
        self.settings, self.local = dict(self.defaults), {}

    def set(self, statement: pg.VariableSetStmt) -> None:
        if statement.kind == pg.VAR_RESET_ALL:
            self.reset_all()
        elif statement.name in TIMEOUTS:
            given = statement.args[0].a_const if statement.args else None
            reset = given is None or statement.kind in (pg.VAR_RESET, pg.VAR_SET_DEFAULT)
            value = self.defaults[statement.name] if reset or given is None else duration_ms(given)
            self.put(statement.name, value, local=statement.is_local)

    def put(self, name: str, value: int, *, local: bool) -> None:
        if not local:
            self.settings[name] = value
            self.local.pop(name, None)
        elif self.in_block and not self.wrapped:
            self.local[name] = value
        elif value and name == "lock_timeout":
            self.idle_local = True


def duration_ms(constant: pg.A_Const) -> int:
    """Values that PostgreSQL would refuse count as none."""
    if constant.HasField("ival"):
        return int(constant.ival.ival)
    found = DURATION.fullmatch(constant.sval.sval)
    if found is None or found[2] not in UNITS_MS:
        return 0
    return round(float(found[1]) * UNITS_MS[found[2]])
