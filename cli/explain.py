"""`farebox explain`: the trail of one customer, payment or subscription."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.arguments import AsJson
from cli.cost_at import cost_at
from cli.edge import UsageFault, cell, current_settings, wide_console
from cli.trail import Section, Trails, open_trails

explain = typer.Typer(help="What happened to whom, and why.", no_args_is_help=True)

Ask = Callable[[Trails], Awaitable[list[Section]]]


@explain.command()
def customer(user_id: UUID, as_json: AsJson = False) -> None:
    """Subscriptions and their costs, payments and their Stripe facts, points, parked facts."""
    tell(lambda trails: trails.customer(user_id), as_json)


@explain.command()
def subscription(
    subscription_id: UUID,
    at: Annotated[
        str | None,
        typer.Option(help="What it cost then: a day (its end, in FAREBOX_TIME_ZONE) or a time."),
    ] = None,
    as_known_at: Annotated[
        str | None, typer.Option(help="With --at: as it was known on that day or at that time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What it costs since when and why, and its payments; with --at, each component of one cost."""
    if at is not None:
        found = asyncio.run(cost_at(current_settings(), subscription_id, at, as_known_at))
        show_sections(found, as_json)
        return
    if as_known_at is not None:
        raise UsageFault("--as-known-at goes with --at")
    tell(lambda trails: trails.subscription(subscription_id), as_json)


@explain.command()
def payment(
    payment_id: Annotated[str, typer.Argument(help="Ours, or Stripe's pi_…")],
    as_json: AsJson = False,
) -> None:
    """Its money, the Stripe facts it came from, the points and the days it counts in."""
    if not payment_id.startswith("pi_") and not _is_uuid(payment_id):
        raise UsageFault(f"{payment_id!r} is neither one of our ids nor Stripe's pi_…")
    tell(lambda trails: trails.payment(payment_id), as_json)


def tell(ask: Ask, as_json: bool) -> None:
    show_sections(asyncio.run(_ask(ask)), as_json)


def show_sections(sections: Sequence[Section], as_json: bool) -> None:
    if as_json:
        found = {section.title: section.rows for section in sections}
        print(json.dumps(found, default=str))
    else:
        print_sections(sections, wide_console())


async def _ask(ask: Ask) -> list[Section]:
    async with open_trails(current_settings()) as trails:
        return await ask(trails)


def print_sections(sections: Sequence[Section], console: Console) -> None:
    """One thing is told line by line, several as a table."""
    for section in sections:
        console.print(f"\n[bold]{section.title}[/]")
        table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
        for name in section.rows[0]:
            table.add_column(name.replace("_", " "), overflow="fold")
        for row in section.rows:
            table.add_row(*(Text(cell(value)) for value in row.values()))
        console.print(table)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
