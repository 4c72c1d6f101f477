"""`farebox up`, `farebox down`, `farebox stack status`: the whole system on this machine."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from embedded.errors import EmbeddedFault
from embedded.processes import interrupt_on_termination
from embedded.stack import Stack, StackOptions, stop_stack
from embedded.stack_plan import empty
from embedded.stack_record import StackRecord, read_record

EXIT_FAILED = 1
EXIT_NOT_RUNNING = 1
EXIT_INTERRUPTED = 130
DEFAULT_FOLDER = StackOptions().folder

Folder = Annotated[Path, typer.Option(help="Where state, data and logs are kept.")]
RemoveData = Annotated[
    bool, typer.Option("--remove-data", help="Take the data away, not the logs.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For a script to read.")]

stack = typer.Typer(help="What runs on this machine.", no_args_is_help=True)


class StepDisplay:
    """Each step on a line of its own once it is done; on a terminal the present one turns meanwhile."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("")
        self._step: str | None = None
        self._began = 0.0

    def __call__(self, step: str) -> None:
        self._finish("[green]✓[/]")
        self._step, self._began = step, time.monotonic()
        self._status.update(step)
        self._status.start()

    def done(self) -> None:
        self._finish("[green]✓[/]")

    def failed(self) -> None:
        self._finish("[red]✗[/]")

    def _finish(self, sign: str) -> None:
        self._status.stop()
        if self._step is not None:
            seconds = time.monotonic() - self._began
            self._console.print(f"{sign} {self._step} [dim]{seconds:.1f} s[/]", highlight=False)
            self._step = None


@contextmanager
def one_line_faults() -> Iterator[None]:
    """What cannot run here is said in one line; a full disk shows up anywhere, so the system's word is passed on."""
    try:
        yield
    except EmbeddedFault as fault:
        fail(str(fault))
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename or 'the system refused'}")


def fail(message: str) -> None:
    print(f"farebox: {message}", file=sys.stderr)
    raise typer.Exit(EXIT_FAILED)


def up(folder: Folder = DEFAULT_FOLDER) -> None:
    """Start everything in the background and print where it listens."""
    console = Console()
    record = read_record(folder)
    if record is not None and record.ready and len(record.alive()) == len(record.processes):
        console.print("It runs already.")
        show_urls(console, record)
        return
    interrupt_on_termination()
    display = StepDisplay(console)
    with one_line_faults():
        try:
            started = Stack.start(StackOptions(folder=folder), display)
        except KeyboardInterrupt:
            display.failed()
            print("farebox: interrupted; everything that was started is stopped", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BaseException:
            display.failed()
            raise
    display.done()
    record = read_record(started.folder)
    if record is not None:
        show_urls(console, record)


def down(folder: Folder = DEFAULT_FOLDER, remove_data: RemoveData = False) -> None:
    """Stop exactly what `farebox up` started; data and logs stay."""
    with one_line_faults():
        stopped = stop_stack(folder)
        if remove_data and folder.exists():
            empty(folder)
    print(f"stopped {len(stopped)} processes" if stopped else "nothing was running")


@stack.command("status")
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Each process with its pid, and whether it runs; exits 1 if one does not."""
    record = read_record(folder)
    if record is None:
        print("farebox: nothing was started here; `farebox up` does it", file=sys.stderr)
        raise typer.Exit(EXIT_NOT_RUNNING)
    alive = set(record.alive())
    rows = [
        {"name": name, "pid": mark.pid, "runs": name in alive}
        for name, mark in record.processes.items()
    ]
    if as_json:
        print(json.dumps({"processes": rows, "urls": record.urls}))
    else:
        table = Table("process", "pid", "state", box=None)
        for row in rows:
            table.add_row(
                str(row["name"]), str(row["pid"]), "up" if row["runs"] else "[red]down[/]"
            )
        Console().print(table)
    if len(alive) < len(rows):
        raise typer.Exit(EXIT_NOT_RUNNING)


def show_urls(console: Console, record: StackRecord) -> None:
    table = Table(box=None, show_header=False)
    for name, url in record.urls.items():
        table.add_row(name, url)
    console.print(table)
