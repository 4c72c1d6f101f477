"""What a seed plays: payments' lives at the stand-in, and how badly their events are delivered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from embedded.stripe_sandbox import API_VERSION, PaymentSpec
from embedded.stripe_sandbox.delivery import Deliverer, Endpoint
from embedded.stripe_sandbox.faults import Faults
from embedded.stripe_sandbox.play import Span
from embedded.stripe_sandbox.records import Record
from embedded.stripe_sandbox.sandbox import Sandbox

START = 1_780_000_000  # 2026-05-28
SPREAD_SECONDS = 2 * 86_400
CURRENCIES = ("USD", "EUR", "JPY")
# Charges stood in the PaymentIntent until 2022-11-15, and refunds in the charge.
OLDER_VERSIONS = ("2020-08-27", "2022-11-15")
GROUP_DELIVERIES = 400


@dataclass(frozen=True)
class Delivery:
    record: Record
    api_version: str

    @property
    def body(self) -> bytes:
        return self.record.body(self.api_version)


@dataclass
class Courier(Deliverer):
    """Keeps what the stand-in would have sent, in the order in which it would have arrived."""

    sent: list[tuple[float, Record]] = field(default_factory=list)
    dropped: list[Record] = field(default_factory=list)

    def send(self, record: Record, delay_seconds: float = 0.0) -> None:
        # A delivery each millisecond: one held back for so long comes after as many others.
        self.sent.append((len(self.sent) + delay_seconds * 1_000, record))

    def drop(self, record: Record) -> None:
        self.dropped.append(record)


@dataclass(frozen=True)
class Lives:
    """What was played: deliveries in their order, and what became of the rest."""

    sandbox: Sandbox
    lifecycles: dict[str, str]
    faults: Faults
    deliveries: Sequence[Delivery]
    events: int
    dropped: int

    @property
    def end(self) -> int:
        """When the last thing has happened."""
        return max(record.created for record in self.sandbox.records.by_id.values())


async def play(seed: int, payments: int, *, losses: bool) -> Lives:
    """The same arguments give the same lives and deliveries; without `losses` every event comes at least once."""
    rng = Random(f"{seed}:proof")
    courier = Courier()
    for version in (API_VERSION, *OLDER_VERSIONS):
        endpoint = Endpoint("", (), version)
        courier.endpoints[endpoint.key] = endpoint
    sandbox = Sandbox(seed=f"{seed}:ids", deliverer=courier)
    faults = draw_faults(rng, losses=losses)
    specs = [_spec(rng, number) for number in range(payments)]
    span = Span(START, SPREAD_SECONDS, faults.tie_seconds)
    parts, told = await sandbox.play(seed, specs, span, faults)
    arrived = sorted(courier.sent, key=lambda each: each[0])
    # Each of two endpoints has a version of its own; an upgrade goes from one to the other.
    versions = rng.choices((API_VERSION, *OLDER_VERSIONS), (8, 1, 1), k=len(arrived))
    return Lives(
        sandbox=sandbox,
        lifecycles={part.scene.intent.id: part.lifecycle for part in parts},
        faults=faults,
        deliveries=[Delivery(r, v) for (_, r), v in zip(arrived, versions, strict=True)],
        events=told,
        dropped=told - len({record.id for _, record in arrived}),
    )


def draw_faults(rng: Random, *, losses: bool) -> Faults:
    drawn = Faults(
        duplicates=rng.choice((0.1, 0.3, 1.0)),
        reorder=rng.choice((0, 5, 100, "all", "all")),
        delay_ms=rng.choice((0, 50, 2_000)),
        tie_seconds=rng.choice((0.0, 0.3, 1.0)),
    )
    if not losses:
        return drawn
    return Faults(
        drawn.duplicates,
        drawn.reorder,
        drawn.delay_ms,
        drawn.tie_seconds,
        drop=rng.choice((0.02, 0.1, 0.3)),
        never_made=rng.choice((0.0, 0.02, 0.1)),
    )


def groups(deliveries: Sequence[Delivery], rng: Random) -> Iterator[Sequence[Delivery]]:
    """As they are stored together: one, a few, or many."""
    start = 0
    while start < len(deliveries):
        size = rng.choice((1, 10, GROUP_DELIVERIES, GROUP_DELIVERIES))
        yield deliveries[start : start + size]
        start += size


def _spec(rng: Random, number: int) -> PaymentSpec:
    """Some name nobody, as those that are made by hand in Stripe's dashboard."""
    named = rng.random() < 0.95
    return PaymentSpec(
        str(UUID(int=2 * number + 1)) if named else None,
        str(UUID(int=2 * number + 2)) if named else None,
        rng.randint(50, 200_000),
        rng.choice(CURRENCIES),
    )
