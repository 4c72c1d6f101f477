"""Runs the benchmarks named (all by default), prints a table and renews their lines of bench/results.json."""

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.ground import Ground, ground
from bench.result import Result
from embedded.errors import EmbeddedFault
from embedded.processes import interrupt_on_termination

NAMES = (
    "outbox_relay",
    "consume",
    "webhook_durable",
    "fold",
    "webhook_to_analytics",
    "migrate",
    "price_preview",
    "price_rollout",
)
RESULTS = Path(__file__).with_name("results.json")

Bench = Callable[[Ground], Coroutine[None, None, Result | list[Result]]]


def main(arguments: list[str]) -> int:
    chosen = arguments or os.environ.get("ONLY", "").replace(",", " ").split() or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        print(f"bench: no {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    interrupt_on_termination()
    # A fresh topic has no leader for a moment, and the clients say so at length.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("farebox.kafka").setLevel(logging.CRITICAL)
    results: list[Result] = []
    try:
        with ground() as place:
            for name in chosen:
                print(f"{name} …", file=sys.stderr)
                busy = os.getloadavg()[0]
                made = uvloop.run(bench_named(name)(place))
                for result in made if isinstance(made, list) else [made]:
                    note = f"{result.note}; {os.cpu_count()} cores, load average {busy:.1f} before"
                    results.append(replace(result, note=note))
    except EmbeddedFault as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    keep(results)
    Console().print(table(results))
    return 0


def keep(results: list[Result]) -> None:
    """What was measured now replaces its last figure; the others stay."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    lines = {each["name"]: each for each in [*known, *map(asdict, results)]}
    RESULTS.write_text(json.dumps(list(lines.values()), indent=2) + "\n")


def bench_named(name: str) -> Bench:
    run: Bench = importlib.import_module(f"bench.{name}").run
    return run


def table(results: list[Result]) -> Table:
    made = Table(show_lines=True)
    for title in ("name", "ours", "bare", "ratio", "unit", "n", "note"):
        made.add_column(title, justify="left" if title in ("name", "unit", "note") else "right")
    for result in results:
        made.add_row(
            result.name,
            figure(result.ours),
            figure(result.bare),
            "–" if result.ratio is None else f"{result.ratio:.0%}",
            result.unit,
            f"{result.n:,}",
            result.note,
        )
    return made


def figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
