"""The stand-in as one thing: its ledger, its events, its deliveries, and its faults."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from embedded.stripe_sandbox.delivery import Deliverer, Endpoint, Patience
from embedded.stripe_sandbox.faults import Faults, plan
from embedded.stripe_sandbox.ids import Ids
from embedded.stripe_sandbox.ledger import API_VERSION, Event, Intent, JsonObject, Ledger
from embedded.stripe_sandbox.play import Part, PaymentSpec, Span, rehearse, run
from embedded.stripe_sandbox.records import Record, Records

# The loop serves others between so many steps of a play.
STEPS_AT_ONCE = 200
# Stripe forgets keys after a day; here the oldest go when there are this many.
KEPT_KEYS = 100_000


@dataclass
class Outage:
    """The next `count` API calls fail: with a status, or unanswered for `hang_seconds`.

    With `after_effect` the call does its work first and only its answer is lost.
    """

    status: int = 500
    count: int = 0
    hang_seconds: float = 0.0
    after_effect: bool = False


@dataclass(frozen=True)
class Kept:
    """What a call with an idempotency key asked, and what it was answered."""

    asked: str
    status: int
    body: bytes


@dataclass
class Sandbox:
    """Create it inside a running event loop; `start` and `stop` frame its deliveries."""

    seed: str = "sandbox"
    records: Records = field(default_factory=Records)
    deliverer: Deliverer = field(default_factory=Deliverer)
    outage: Outage = field(default_factory=Outage)
    kept: dict[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = Ids(self.seed)
        self.ledger = Ledger(self.ids, int(time.time()), self._hear)
        self._held_back: list[Record] | None = None

    def configure(self, endpoints: Sequence[Endpoint], patience: Patience) -> None:
        self.deliverer.endpoints = {each.key: each for each in endpoints}
        self.deliverer.patience = patience

    def touch(self, intent: Intent | None = None, after_seconds: int = 0) -> None:
        """Set the clock to now, or, where the payment's simulated life is ahead of it, to that."""
        now = int(time.time())
        if intent is not None:
            now = max(now, intent.last_event_at + after_seconds)
        self.ledger.now = now

    async def play(
        self, seed: int | str, specs: Sequence[PaymentSpec], span: Span, faults: Faults
    ) -> tuple[list[Part], int]:
        """Play `specs`, then queue what they told, faults applied; returns parts and events."""
        self.ids.reseed(f"{seed}:ids")
        parts = rehearse(self.ledger, seed, specs)
        told = await self._told_by(parts, seed, span)
        fate = plan(len(told), faults, Random(f"{seed}:faults"))
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

    def keep(self, key: str, kept: Kept) -> None:
        while len(self.kept) >= KEPT_KEYS:
            del self.kept[next(iter(self.kept))]
        self.kept[key] = kept

    def _hear(self, event: Event) -> None:
        versions = {each.api_version for each in self.deliverer.endpoints.values()} - {API_VERSION}
        record = self.records.add(event, versions, self._charge_of(event) if versions else None)
        self.deliverer.expect(record)
        if self._held_back is None:
            self.deliverer.send(record)
        else:
            self._held_back.append(record)

    def _charge_of(self, event: Event) -> JsonObject | None:
        charge_id = event.snapshot.get("latest_charge")
        return self.ledger.told(charge_id) if charge_id else None
