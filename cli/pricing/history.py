"""`farebox pricing history export`: the cost history as CSV, which goes on where it was broken off."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import urlencode
from uuid import UUID

import httpx
import typer

from cli.edge import UsageFault
from cli.pricing.door import pricing_door
from cli.pricing.progress import Meter, Pace
from shared.errors import FareboxError

PATH = "/cost-history.csv"
LINE_END = b"\r\n"  # never within a line: line breaks of texts come as blanks

history = typer.Typer(help="Every cost that any subscription ever had.", no_args_is_help=True)


class BrokenOff(FareboxError):
    title = "The export is not complete"


@dataclass
class Reached:
    """The last line that was written, and how many were."""

    id: int
    lines: int = 0


@history.command()
def export(
    subscription: Annotated[UUID | None, typer.Option(help="Only its lines.")] = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Only lines after this id; goes on with --out's file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Into this file; stdout by default.")
    ] = None,
) -> None:
    """Write the cost history as CSV, in order of the lines' ids.  What is broken off says how it goes on."""
    asked = {"after": str(after or 0)}
    if subscription is not None:
        asked["subscription_id"] = str(subscription)
    with _opened(out, after) as (file, begun):
        reached = Reached(after or 0)
        try:
            with pricing_door() as door, door.stream(f"{PATH}?{urlencode(asked)}") as answer:
                _copy(answer, file, begun, reached)
        except (httpx.TransportError, KeyboardInterrupt) as error:
            raise BrokenOff(_how_to_go_on(reached, out)) from error
    where = f" in {out}" if out else ""
    print(f"{reached.lines:,} lines up to {reached.id}{where}", file=sys.stderr)


def _copy(answer: httpx.Response, file: BinaryIO, begun: bool, reached: Reached) -> None:
    """Whole lines only; the heading only where the file begins."""
    expected = int(answer.headers["Farebox-Lines"])
    meter = Meter(Pace("cost history"))
    lines = _lines(answer.iter_bytes())
    heading = next(lines)
    if not begun:
        file.write(heading + LINE_END)
    for line in lines:
        file.write(line + LINE_END)
        reached.id = int(line.partition(b",")[0])
        reached.lines += 1
        meter.show(reached.lines, expected, "exporting")
    meter.end()
    file.flush()
    if reached.lines != expected:
        raise BrokenOff(f"{reached.lines} of {expected} lines came; --after {reached.id} goes on")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(LINE_END)
        yield from whole


@contextmanager
def _opened(out: Path | None, after: int | None) -> Iterator[tuple[BinaryIO, bool]]:
    """Where to write, and whether its heading is there already.  Raises UsageFault."""
    if out is None:
        with nullcontext(sys.stdout.buffer) as stdout:
            yield stdout, False
        return
    try:
        begun = out.exists() and out.stat().st_size > 0
        opened = out.open("r+b" if begun else "wb")
    except OSError as error:
        raise UsageFault(f"{out}: {error.strerror}") from error
    with opened as file:
        if begun:
            _go_on(file, out, after)
        yield file, begun


def _go_on(file: BinaryIO, out: Path, after: int | None) -> None:
    """Behind the last whole line, which must be the one to go on after.  Raises UsageFault."""
    last, end = 0, 0
    for line in file:
        if line.endswith(LINE_END):
            end += len(line)
            number = line.partition(b",")[0]
            last = int(number) if number.isdigit() else last
    if after != last:
        raise UsageFault(f"{out} ends with line {last}: --after {last} goes on, or name another")
    file.seek(end)
    file.truncate()


def _how_to_go_on(reached: Reached, out: Path | None) -> str:
    into = f" --out {out}" if out else ""
    return f"broken off after line {reached.id}; `--after {reached.id}{into}` goes on"
