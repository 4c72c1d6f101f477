"""What goes wrong between Stripe and an endpoint, on request and from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

EVERYTHING = "all"


@dataclass(frozen=True)
class Faults:
    """`reorder` is how many places an event may slip, or `all`; the others are probabilities."""

    duplicates: float = 0.0
    reorder: int | str = 0
    delay_ms: int = 0
    tie_seconds: float = 0.0
    drop: float = 0.0
    never_made: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Indexes to send in this order, each after a delay, those never to be sent, and those never made."""

    sent: Sequence[tuple[int, float]]
    dropped: Sequence[int]
    never_made: Sequence[int] = ()


def plan(count: int, faults: Faults, rng: Random) -> Plan:
    """Decide the fate of `count` events that were told in order."""
    dropped = [index for index in range(count) if rng.random() < faults.drop]
    # Drawn only if asked for: a seed's other fates stay what they were.
    unmade = {n for n in range(count) if faults.never_made and rng.random() < faults.never_made}
    dropped = [index for index in dropped if index not in unmade]
    gone = unmade.union(dropped)
    kept = [index for index in range(count) if index not in gone]
    repeated = [index for index in kept if rng.random() < faults.duplicates]
    places = [(_place(index, count, faults, rng), index) for index in kept]
    # A duplicate comes after its original's turn, by up to twice the reach of the reordering.
    reach = count if faults.reorder == EVERYTHING else int(faults.reorder) + 1
    places += [(index + rng.uniform(0, 2 * reach), index) for index in repeated]
    places.sort()
    return Plan(
        sent=[(index, rng.uniform(0, faults.delay_ms) / 1_000) for _, index in places],
        dropped=dropped,
        never_made=sorted(unmade),
    )


def _place(index: int, count: int, faults: Faults, rng: Random) -> float:
    if faults.reorder == EVERYTHING:
        return rng.uniform(0, count)
    return index + rng.uniform(0, int(faults.reorder))
