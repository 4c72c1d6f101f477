"""Play a seed: many payments' lives on one simulated clock, in a moment, without HTTP."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from embedded.stripe_sandbox.afterlives import AFTERLIVES
from embedded.stripe_sandbox.ids import Ids
from embedded.stripe_sandbox.ledger import API_VERSION, Event, JsonObject, Ledger
from embedded.stripe_sandbox.lifecycles import LIVES, Scene
from embedded.stripe_sandbox.payments import Order
from embedded.stripe_sandbox.truth import details_of, truths
from embedded.stripe_sandbox.versions import THIN, event_json, thin_json

LIFECYCLES = {**LIVES, **AFTERLIVES}
# Half of all payments are the plain thing; the other half shares every other life evenly.
PLAIN_SHARE = 0.5
PLAIN = "card_success"
DAY_SECONDS = 86_400
# How far a status is on its way; whatever is not named here is still before the money.
PHASES = {"requires_capture": 1, "succeeded": 2, "canceled": 2}
FINAL_PHASE = 2


class UnknownLifecycle(ValueError):
    """No script of this name; the message names those there are."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no lifecycle {name!r}; there are: {', '.join(sorted(LIFECYCLES))}")


@dataclass(frozen=True)
class PaymentSpec:
    """One payment to play; `currency` in either case, `lifecycle` drawn from the seed if None.

    `account` is a connected one, if any; `settles_in` the balance's currency (lower case) where it is another one.
    """

    user_id: str | None
    subscription_id: str | None
    amount_minor: int
    currency: str
    lifecycle: str | None = None
    account: str | None = None
    livemode: bool = False
    settles_in: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        named = {"user_id": self.user_id, "subscription_id": self.subscription_id}
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Span:
    """How payments spread over simulated time, and how often steps of one share a second."""

    start: int
    spread_seconds: int = 30 * DAY_SECONDS
    tie_seconds: float = 0.0


@dataclass(frozen=True)
class Played:
    """What was played: events in the order in which they came about, and what is true at the end.

    `undecidable` names the payments whose last PaymentIntent state no merge of their events can
    decide, because two of one phase share its last second: Stripe must be asked about them.
    """

    events: list[JsonObject]
    truth: dict[str, JsonObject]
    lifecycles: dict[str, str]
    undecidable: frozenset[str]
    # What else is true of each payment (`truth.details_of`).
    details: dict[str, JsonObject]


@dataclass
class Part:
    """One payment's script, about to be played."""

    scene: Scene
    lifecycle: str


def play(
    seed: int | str,
    specs: Sequence[PaymentSpec],
    start: int,
    tie_seconds: float = 0.0,
    api_version: str = API_VERSION,
) -> Played:
    """Play `specs` from epoch second `start`; the same arguments give the same result, always.

    `api_version` may be `thin`.
    """
    told: list[Event] = []
    events: list[JsonObject] = []

    def hear(event: Event) -> None:
        told.append(event)
        thin = api_version == THIN
        events.append(thin_json(event) if thin else event_json(event, api_version, ledger))

    ledger = Ledger(Ids(f"{seed}:ids"), start, hear)
    parts = rehearse(ledger, seed, specs)
    for _ in run(parts, seed, Span(start, tie_seconds=tie_seconds)):
        pass
    return Played(
        events=events,
        truth=truths(ledger.intents.values()),
        lifecycles={part.scene.intent.id: part.lifecycle for part in parts},
        undecidable=undecidable(told),
        details={each.id: details_of(ledger, each) for each in ledger.intents.values()},
    )


def rehearse(ledger: Ledger, seed: int | str, specs: Sequence[PaymentSpec]) -> list[Part]:
    """Choose every payment's life.  Each has dice of its own, whatever the others do."""
    parts = []
    for index, spec in enumerate(specs):
        rng = Random(f"{seed}:{index}")
        order = Order(
            spec.amount_minor,
            spec.currency.lower(),
            metadata=spec.metadata,
            livemode=spec.livemode,
            account=spec.account,
            settles_in=spec.settles_in,
        )
        lifecycle = spec.lifecycle or _draw(rng)
        if lifecycle not in LIFECYCLES:
            raise UnknownLifecycle(lifecycle)
        parts.append(Part(Scene(ledger, order, rng), lifecycle))
    return parts


def run(parts: Sequence[Part], seed: int | str, span: Span) -> Iterator[int]:
    """Take every part's steps in the order of simulated time; yields the time after each."""
    rng = Random(f"{seed}:clock")
    queue = [
        (
            span.start + rng.randint(0, span.spread_seconds),
            index,
            LIFECYCLES[part.lifecycle](part.scene),
        )
        for index, part in enumerate(parts)
    ]
    heapq.heapify(queue)
    while queue:
        now, index, steps = heapq.heappop(queue)
        # The ledger is shared: an API call may have moved its clock since the last step.
        parts[index].scene.ledger.now = now
        wait_seconds = next(steps, None)
        if wait_seconds is not None:
            tied = rng.random() < span.tie_seconds
            heapq.heappush(queue, (now if tied else now + wait_seconds, index, steps))
        yield now


def undecidable(events: Iterable[Event]) -> frozenset[str]:
    """Payments whose last second holds two PaymentIntent states of one phase that is not the end."""
    last: dict[str, tuple[int, int]] = {}
    tied: dict[str, bool] = {}
    for event in events:
        # Nothing can come before `created`, so it never ties with what follows.
        if not event.type.startswith("payment_intent.") or event.type.endswith(".created"):
            continue
        phase = PHASES.get(event.snapshot["status"], 0)
        moment = (phase, event.created)
        if moment >= last.get(event.intent_id, (-1, 0)):
            tied[event.intent_id] = moment == last.get(event.intent_id) and phase < FINAL_PHASE
            last[event.intent_id] = moment
    return frozenset(intent_id for intent_id, is_tied in tied.items() if is_tied)


def _draw(rng: Random) -> str:
    return PLAIN if rng.random() < PLAIN_SHARE else rng.choice(sorted(LIFECYCLES))
