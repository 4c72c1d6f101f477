"""The stand-in as one thing: its ledger, its events, its deliveries, and its faults."""

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from embedded.stripe_sandbox.clock import Clock
from embedded.stripe_sandbox.delivery import Deliverer, Endpoint, Patience
from embedded.stripe_sandbox.faults import Faults, plan
from embedded.stripe_sandbox.ids import Ids
from embedded.stripe_sandbox.ledger import (
    Event,
    IllegalTransition,
    Intent,
    Ledger,
)
from embedded.stripe_sandbox.outages import Outages
from embedded.stripe_sandbox.play import Part, PaymentSpec, Span, rehearse, run
from embedded.stripe_sandbox.records import Record, Records
from embedded.stripe_sandbox.story import ACTIONS, Step

# The loop serves others between so many steps of a play.
STEPS_AT_ONCE = 200
# Stripe may forget a key after a day; here the oldest go earlier when there are this many.
DAY_SECONDS = 86_400
KEPT_SECONDS = DAY_SECONDS
KEPT_KEYS = 100_000


@dataclass(frozen=True)
class Kept:
    """What a call with an idempotency key asked, and what it was answered."""

    asked: str
    status: int
    body: bytes
    at: int


@dataclass
class Silence:
    """The next `count` events, of these types if any are named, are `never_made` or `undelivered`."""

    fate: str = "never_made"
    count: int = 0
    types: tuple[str, ...] = ()

    def takes(self, type_: str) -> bool:
        if self.count <= 0 or (self.types and type_ not in self.types):
            return False
        self.count -= 1
        return True


@dataclass
class Sandbox:
    """Create it inside a running event loop; `start` and `stop` frame its deliveries."""

    seed: str = "sandbox"
    records: Records = field(default_factory=Records)
    deliverer: Deliverer = field(default_factory=Deliverer)
    outages: Outages = field(default_factory=Outages)
    silence: Silence = field(default_factory=Silence)
    clock: Clock = field(default_factory=Clock)
    kept: dict[str, Kept] = field(default_factory=dict)
    # How far back the list of events goes; None is all the way.
    events_kept_days: int | None = None
    # How often the API was called, by method.
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.ids = Ids(self.seed)
        self.ledger = Ledger(self.ids, self.clock.now(), self._hear)
        self._held_back: list[Record] | None = None

    def forget(self) -> None:
        """As after a restart; nothing may be under way."""
        self.records, self.deliverer = Records(), Deliverer()
        self.outages, self.silence, self.clock = Outages(), Silence(), Clock()
        self.kept, self.calls, self.events_kept_days = {}, Counter(), None
        self.__post_init__()

    def configure(self, endpoints: Sequence[Endpoint], patience: Patience) -> None:
        self.deliverer.endpoints = {each.key: each for each in endpoints}
        self.deliverer.patience = patience

    def touch(self, intent: Intent | None = None, after_seconds: int = 0) -> None:
        """Set the clock to now, or, where the payment's simulated life is ahead of it, to that."""
        now = self.clock.now()
        self._catch_up(now)
        if intent is not None:
            now = max(now, intent.last_event_at + after_seconds)
        self.ledger.now = now

    def events_kept_since(self) -> int:
        if self.events_kept_days is None:
            return 0
        return self.clock.now() - self.events_kept_days * DAY_SECONDS

    def set_clock(self, now: int | None, ticking: bool) -> None:
        """What was to happen by then, by itself, has happened, each thing at its own time."""
        self.clock.set(now, ticking)
        self.touch()

    def _catch_up(self, now: int) -> None:
        agenda = self.ledger.agenda
        while agenda and agenda[0][0] <= now:
            due, _, intent_id, action = heapq.heappop(agenda)
            intent = self.ledger.intents[intent_id]
            self.ledger.now = max(due, intent.last_event_at)
            # A test may have settled, or canceled, it by hand meanwhile.
            with contextlib.suppress(IllegalTransition):
                ACTIONS[action](Step(self.ledger, intent))

    async def play(
        self, seed: int | str, specs: Sequence[PaymentSpec], span: Span, faults: Faults
    ) -> tuple[list[Part], int]:
        """Play `specs`, then queue what they told, faults applied; returns parts and events."""
        self.ids.reseed(f"{seed}:ids")
        parts = rehearse(self.ledger, seed, specs)
        told = await self._told_by(parts, seed, span)
        fate = plan(len(told), faults, Random(f"{seed}:faults"))
        for index in fate.never_made:
            self.records.forget(told[index])
        for index in fate.dropped:
            self.deliverer.drop(told[index])
        for index, delay_seconds in fate.sent:
            self.deliverer.send(told[index], delay_seconds)
        return parts, len(told)

    async def _told_by(self, parts: Sequence[Part], seed: int | str, span: Span) -> list[Record]:
        told: list[Record] = []
        steps = run(parts, seed, span)
        while True:
            # Only a play's own steps are held back; an API call between them is told at once.
            self._held_back = told
            try:
                taken = sum(1 for _ in zip(range(STEPS_AT_ONCE), steps, strict=False))
            finally:
                self._held_back = None
            if taken < STEPS_AT_ONCE:
                return told
            await asyncio.sleep(0)

    def answered(self, key: str) -> Kept | None:
        """What was answered under this key, as long as Stripe remembers it."""
        kept = self.kept.get(key)
        if kept is None or self.ledger.now - kept.at >= KEPT_SECONDS:
            return None
        return kept

    def keep(self, key: str, kept: Kept) -> None:
        while len(self.kept) >= KEPT_KEYS:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = kept

    def _hear(self, event: Event) -> None:
        silenced = self.silence.takes(event.type)
        if silenced and self.silence.fate == "never_made":
            return
        versions = {each.shape for each in self.deliverer.endpoints.values()}
        record = self.records.add(event, versions, self.ledger)
        self.deliverer.expect(record)
        if silenced:
            self.deliverer.drop(record)
        elif self._held_back is None:
            self.deliverer.send(record)
        else:
            self._held_back.append(record)
