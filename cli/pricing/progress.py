"""Something long under way: how far it is, how fast, and about when it ends, on one line of the terminal."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

POLL_SECONDS = 0.5
# A chunk takes a fraction of a second.
STILL_SECONDS = 30.0
STILL = f"nothing for {STILL_SECONDS:.0f} s: does pricing's worker run?"


@dataclass
class Pace:
    """What is left at the speed so far; `done` may be more than `expected`, which is an estimate."""

    what: str
    clock: Callable[[], float] = time.monotonic
    first: int | None = None
    reached: int | None = None

    def __post_init__(self) -> None:
        self.started = self.moved_at = self.clock()

    def line(self, done: int, expected: int, state: str) -> str:
        now = self.clock()
        if self.first is None:
            self.first = done
        if done != self.reached:
            self.reached, self.moved_at = done, now
        seconds = now - self.started
        speed = (done - self.first) / seconds if seconds > 0 else 0.0
        share = f"{min(100, 100 * done // expected)} %" if expected else "?"
        left = max(0, expected - done)
        ends = f"about {left / speed:.0f} s left" if speed > 0 and left else ""
        parts = (
            f"{self.what}: {state}",
            f"{done:,} of about {expected:,} ({share})",
            f"{speed:,.0f}/s" if speed else "",
            ends if now - self.moved_at < STILL_SECONDS else STILL,
        )
        return ", ".join(part for part in parts if part)


@dataclass
class Meter:
    """Shows a pace every now and then, while something else does the work."""

    pace: Pace
    shown: float = field(default_factory=time.monotonic)

    def show(self, done: int, expected: int, state: str) -> None:
        now = time.monotonic()
        if now - self.shown >= POLL_SECONDS:
            _show(self.pace.line(done, expected, state))
            self.shown = now

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)


def follow(step: Callable[[], str | None], *, quiet: bool) -> None:
    """Until `step` has nothing more to say; in a file only what differs from the line before is written."""
    shown = ""
    while (line := step()) is not None:
        if not quiet and line != shown:
            _show(line)
            shown = line
        time.sleep(POLL_SECONDS)
    if not quiet and shown and sys.stderr.isatty():
        print(file=sys.stderr)


def _show(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr)
