"""What a benchmark says: our figure, the bare one, and how both were taken."""

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
    """One round: both measured within seconds of each other."""

    ours: float
    bare: float

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


async def interleaved(ours: Measure, bare: Measure, rounds: int = ROUNDS) -> Pair:
    """The round with the best ratio of some, each of ours directly followed by its bare one."""
    return max([Pair(await ours(), await bare()) for _ in range(rounds)], key=lambda p: p.ratio)
