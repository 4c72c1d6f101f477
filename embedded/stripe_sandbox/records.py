"""Events as they were told, kept as bytes: small, and sent again without being rendered again."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from embedded.stripe_sandbox.ledger import API_VERSION, Event, JsonObject, Ledger
from embedded.stripe_sandbox.versions import THIN, event_json, thin_json

PENDING = b'"pending_webhooks": '


@dataclass(slots=True)
class Record:
    """One event; `awaiting` are the endpoints that have not taken it yet."""

    id: str
    type: str
    created: int
    told_as: int
    intent_id: str
    account: str | None
    bodies: dict[str, tuple[bytes, bytes]]
    awaiting: set[tuple[str, str]] = field(default_factory=set)

    thin: bytes = b""

    def body(self, version: str) -> bytes:
        """The event as JSON, with the number of endpoints that still wait for it right now."""
        if version == THIN:
            return self.thin
        head, tail = self.bodies.get(version) or self.bodies[API_VERSION]
        return b"%b%d%b" % (head, len(self.awaiting), tail)

    @property
    def moment(self) -> tuple[int, int]:
        return self.created, self.told_as


class Records:
    """Every event by id, and newest first."""

    def __init__(self) -> None:
        self.by_id: dict[str, Record] = {}
        self._ordered: list[Record] = []
        self._told = 0

    def add(self, event: Event, versions: set[str], ledger: Ledger) -> Record:
        """Render `event` once for each API version that some endpoint wants."""
        wanted = {API_VERSION, *versions} - {THIN}
        bodies = {each: _halves(event_json(event, each, ledger)) for each in wanted}
        record = Record(
            event.id, event.type, event.created, self._told, event.intent_id, event.account, bodies
        )
        self._told += 1
        if THIN in versions:
            record.thin = orjson.dumps(thin_json(event))
        self.by_id[record.id] = record
        insort(self._ordered, record, key=lambda each: each.moment)
        return record

    def forget(self, record: Record) -> None:
        """As if Stripe had never made this event: no list knows it."""
        del self._ordered[self._index(record)]
        del self.by_id[record.id]

    def older_than(self, cursor: Record | None) -> Iterator[Record]:
        """Newest first, from the one after `cursor`, or from the newest."""
        index = len(self._ordered) if cursor is None else self._index(cursor)
        return (self._ordered[place] for place in range(index - 1, -1, -1))

    def newer_than(self, cursor: Record) -> Iterator[Record]:
        """Oldest first, from the one told after `cursor`."""
        return (
            self._ordered[place] for place in range(self._index(cursor) + 1, len(self._ordered))
        )

    def _index(self, record: Record) -> int:
        return bisect_left(self._ordered, record.moment, key=lambda each: each.moment)


def _halves(event: JsonObject) -> tuple[bytes, bytes]:
    # Stripe sends its JSON indented by two; the count between the halves changes per delivery.
    head, _, tail = orjson.dumps(event, option=orjson.OPT_INDENT_2).rpartition(PENDING)
    return head + PENDING, tail.lstrip(b"0123456789")
