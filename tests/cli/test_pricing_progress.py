"""The line that says how far something is and when it ends, or that nobody seems to be at it."""

import pytest

from cli.pricing.progress import STILL, Pace


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(0, 0)], "preview: running, 0 of about 1,000 (0 %)"),
        (
            [(0, 100), (2, 300)],
            "preview: running, 300 of about 1,000 (30 %), 100/s, about 7 s left",
        ),
        ([(0, 0), (10, 1_200)], "preview: running, 1,200 of about 1,000 (100 %), 120/s"),
        ([(0, 0), (30, 0)], f"preview: running, 0 of about 1,000 (0 %), {STILL}"),
        (
            [(0, 0), (20, 500), (49, 500)],
            "preview: running, 500 of about 1,000 (50 %), 10/s, about 49 s left",
        ),
        (
            [(0, 0), (20, 500), (50, 500)],
            f"preview: running, 500 of about 1,000 (50 %), 10/s, {STILL}",
        ),
    ],
)
def test_a_pace_says_how_far_it_is_and_when_it_ends(
    steps: list[tuple[int, int]], said: str
) -> None:
    clock = [0.0]
    pace, line = Pace("preview", lambda: clock[0]), ""
    for seconds, done in steps:
        clock[0] = float(seconds)
        line = pace.line(done, 1_000, "running")
    assert line == said
