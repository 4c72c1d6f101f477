"""`farebox demo`: start everything, play the story, show one customer's trail, check all of it."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli import audit
from cli.demo.doors import DoorClosed, Json, open_doors
from cli.demo.story import Story, TooSlow
from cli.demo.verdict import Finding, payment_days, take_opening, verify
from cli.demo.world import make_world
from cli.edge import Exit, settings_from, wide_console
from cli.explain import print_sections
from cli.keys import make_key
from cli.stack import StepDisplay, one_line_faults
from cli.trail import open_trails
from embedded.processes import interrupt_on_termination
from embedded.stack import Stack, StackOptions
from shared.api_keys import SCOPES
from shared.audit import CheckResult
from shared.settings import Settings

EXIT_INTERRUPTED = 130
FOLDER = StackOptions().folder / "demo"
SANDBOX = "stripe-sandbox"
SETTLE_SECONDS = 60.0
BUSIEST_DAYS = 6


def demo(
    customers: Annotated[int, typer.Option(min=20, help="How many subscribe.")] = 1_000,
    payments: Annotated[int, typer.Option(min=20, help="How many payments live.")] = 2_500,
    seed: Annotated[str | None, typer.Option(help="The same seed tells the same story.")] = None,
    folder: Annotated[Path, typer.Option(help="Where data and logs are kept meanwhile.")] = FOLDER,
) -> None:
    """Play a bad month through the public doors and check every number; exits 0 only if all hold."""
    console = wide_console()
    interrupt_on_termination()
    display = StepDisplay(console)
    began = time.monotonic()
    options = StackOptions(folder=folder, fresh=True, die_with_caller=True)
    with one_line_faults():
        try:
            with Stack.start(options, display) as stack:
                fine = asyncio.run(
                    _tell(stack, display, console, (seed or _seed(), customers, payments))
                )
                display("everything stops")
            display.done()
        except KeyboardInterrupt:
            display.failed()
            print("farebox: interrupted; everything that was started is stopped", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except (DoorClosed, TooSlow) as error:
            display.failed()
            print(f"farebox: {error} (logs: {folder / 'logs'})", file=sys.stderr)
            raise typer.Exit(Exit.FAILED) from error
    console.print(f"{time.monotonic() - began:.0f} s in all")
    if not fine:
        raise typer.Exit(Exit.FAILED)


def _seed() -> str:
    """Always the same story; in a database of one's own, with customers who are not there yet."""
    own = any(name.endswith("DATABASE_URL") for name in os.environ)
    return f"demo-{secrets.token_hex(4)}" if own else "demo"


async def _tell(
    stack: Stack, display: StepDisplay, console: Console, plan: tuple[str, int, int]
) -> bool:
    if SANDBOX not in stack.urls:
        raise DoorClosed("the demo plays Stripe's part itself: unset STRIPE_API_KEY and try again")
    seed, customers, payments = plan
    settings = settings_from(stack.env)
    name = f"demo-{secrets.token_hex(4)}"
    own = [scope for scope in SCOPES["pricing"] if scope != "pricing:approve"]
    key = await make_key(settings, "pricing", name, own)
    approver = await make_key(settings, "pricing", f"{name}-approver", ["pricing:approve"])
    async with open_doors(stack.urls, key, approver) as doors:
        opening = await take_opening(doors)
        story = Story(doors, make_world(seed, customers), settings, stack, display, payments)
        await story.play()
        display("every payment, cost and point is compared with what must be true")
        findings = await verify(story, opening)
        display("farebox audit")
        results = await audit.run(settings, SETTLE_SECONDS)
        display.done()
        await _print_trail(story, settings, console)
    _print_verdict(story, findings, results, console)
    return not any(finding.wrong for finding in findings) and all(r.ok for r in results)


async def _print_trail(story: Story, settings: Settings, console: Console) -> None:
    console.rule(f"the trail of one customer, {story.heroine.customer.id}")
    async with open_trails(settings) as trails:
        print_sections(await trails.customer(story.heroine.customer.id), console)
    days = await payment_days(story.doors)
    console.print("\n[bold]the busiest days[/]")
    console.print(_days_table(sorted(days, key=lambda day: -day["attempts"])[:BUSIEST_DAYS]))


def _days_table(days: Sequence[Json]) -> Table:
    columns = ("day", "currency", "attempts", "succeeded", "failed", "success_rate")
    money = ("gross_minor", "refunded_minor", "disputed_minor", "net_minor", "average_minor")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in (*columns, *money):
        table.add_column(name.replace("_", " "))
    for day in days:
        table.add_row(*("" if day[name] is None else str(day[name]) for name in (*columns, *money)))
    return table


def _print_verdict(
    story: Story, findings: Sequence[Finding], results: Sequence[CheckResult], console: Console
) -> None:
    console.rule("what came of it")
    for note in story.notes:
        console.print(note, markup=False)
    for finding in findings:
        console.print("[green]ok  [/]" if not finding.wrong else "[red]FAIL[/]", end=" ")
        console.print(str(finding), markup=False)
    console.rule("farebox audit")
    audit.print_lines(results, console)
