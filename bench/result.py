"""What a benchmark says: our figure, the bare one, and how both were taken."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

# Whoever else uses the machine slows one side of a comparison at random; the best of some rounds is the least disturbed.
ROUNDS = 3

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Result:
    """One line of bench/results.json; `ratio` is ours/bare, None where there is nothing bare to compare with."""

    name: str
    ours: float
    bare: float | None
    ratio: float | None
    unit: str
    n: int
    note: str


@dataclass(frozen=True)
class Pair:
    """Both sides, each at its least disturbed, and every round's ratio as text."""

    ours: float
    bare: float
    rounds: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


async def interleaved(ours: Measure, bare: Measure, rounds: int = ROUNDS) -> Pair:
    """Ours and bare in turns; the best of each, so that a disturbed bare round never flatters us."""
    pairs = []
    for number in range(1, rounds + 1):
        pairs.append(Pair(await ours(), await bare()))
        print(
            f"  round {number}: {pairs[-1].ours:,.0f} against {pairs[-1].bare:,.0f}",
            file=sys.stderr,
        )
    each = ", ".join(f"{pair.ratio:.0%}" for pair in pairs)
    return Pair(max(p.ours for p in pairs), max(p.bare for p in pairs), each)
