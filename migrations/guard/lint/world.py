"""What the statements read so far have made: tables that are new and empty, columns, constraints, indexes."""

from dataclasses import dataclass, field

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.facts import Name


@dataclass
class CheckState:
    """`proves` is the column of a CHECK (column IS NOT NULL); `added_in` the transaction that added it."""

    proves: str | None
    validated: bool
    added_in: int


@dataclass(frozen=True)
class Body:
    """What a function runs; `line` is where its text begins in the file that makes it."""

    language: str
    text: str
    definition: str
    line: int
    file: str


@dataclass
class World:
    """Carried from file to file, in order."""

    schema: str = "public"
    new: set[Name] = field(default_factory=set)
    new_columns: set[tuple[Name, str]] = field(default_factory=set)
    indexes: dict[str, Name] = field(default_factory=dict)
    dropped_indexes: set[str] = field(default_factory=set)
    constraints: dict[tuple[Name, str], CheckState] = field(default_factory=dict)
    stable_functions: set[str] = field(default_factory=set)
    bodies: dict[str, Body] = field(default_factory=dict)
    policies: set[Name] = field(default_factory=set)
    # Domains made here, and whether they constrain their values.
    domains: dict[str, bool] = field(default_factory=dict)
    # Tables gone or renamed; of which old tables a new one holds a copy; which tables were given a trigger.
    dropped: set[Name] = field(default_factory=set)
    copies: dict[Name, set[Name]] = field(default_factory=dict)
    triggered: set[Name] = field(default_factory=set)
    transactions: int = 0

    def name(self, relation: pg.RangeVar) -> Name:
        if relation.schemaname:
            return (relation.schemaname, relation.relname)
        if ("pg_temp", relation.relname) in self.new:
            return ("pg_temp", relation.relname)
        return (self.schema, relation.relname)

    def dotted(self, parts: tuple[str, ...]) -> Name:
        if len(parts) == 1 and ("pg_temp", parts[0]) in self.new:
            return ("pg_temp", parts[0])
        return (parts[-2], parts[-1]) if len(parts) > 1 else (self.schema, parts[-1])

    def named(self, text: str) -> Name:
        """As a string that is cast to regclass."""
        return self.dotted(tuple(part.strip('"') for part in text.split(".")))

    def become(self, other: "World") -> None:
        """Back to what it was; only the count of transactions goes on."""
        count = self.transactions
        self.__dict__.update(other.__dict__)
        self.transactions = count

    def create(self, relation: pg.RangeVar) -> Name:
        temporary = relation.relpersistence == "t"
        name = ("pg_temp", relation.relname) if temporary else self.name(relation)
        self.new.add(name)
        return name

    def rename(self, before: Name, after: Name) -> None:
        if before in self.new:
            self.new.discard(before)
            self.new.add(after)
            if before in self.copies:
                self.copies[after] = self.copies.pop(before)


def show(name: Name) -> str:
    return name[1] if name[0] in ("public", "pg_temp") else f"{name[0]}.{name[1]}"
