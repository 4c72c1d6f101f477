"""`farebox parked`: facts that could not be applied, looked at, taken up again or given up."""

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from sqlalchemy import select

from cli.arguments import AsJson
from cli.database import sessions_of, transaction_of
from cli.edge import Exit, UsageFault, current_settings, show
from cli.retry import Retried, drop, find, open_keys, retry_key
from cli.services import HANDLERS
from shared.db import SERVICES
from shared.parking import ParkedEvent
from shared.settings import Service as ServiceName
from shared.settings import Settings

LIMIT = 500
MOST = 10_000  # a table longer than this is read by nobody

parked = typer.Typer(help="Facts that could not be applied.", no_args_is_help=True)

Service = Annotated[ServiceName, typer.Argument(help="Whose consumer parked it.")]
ParkedId = Annotated[int, typer.Argument(help="As `farebox parked list` shows it.")]


@dataclass(frozen=True)
class Page:
    """Of each service, so many rows behind an id."""

    rows: int = LIMIT
    after: int = 0


FIRST = Page()


@parked.command("list")
def list_parked(
    service: Annotated[ServiceName | None, typer.Option(help="Only this service's.")] = None,
    all_states: Annotated[bool, typer.Option("--all", help="Also retried and dropped.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="Rows of each service.")] = LIMIT,
    after: Annotated[int, typer.Option(min=0, help="Go on behind this id of --service.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What waits, oldest first; says on stderr where a service has more than it shows."""
    if after and service is None:
        raise UsageFault("--after goes on with one service: say --service as well")
    settings = current_settings()
    services = (service,) if service else SERVICES
    page = Page(limit + 1, after)
    rows = asyncio.run(listed(settings, services, all_states=all_states, page=page))
    shown_rows: list[dict[str, object]] = []
    for name in services:
        own = [row for row in rows if row["service"] == name]
        shown_rows += own[:limit]
        if len(own) > limit:
            more = f"--service {name} --after {own[limit - 1]['id']}"
            print(f"{name} has more than these {limit}: go on with {more}", file=sys.stderr)
    show(shown_rows, as_json=as_json, empty="nothing is parked")


@parked.command("show")
def show_parked(service: Service, parked_id: ParkedId, as_json: AsJson = False) -> None:
    """One fact with its headers and body."""
    row = asyncio.run(shown(current_settings(), service, parked_id))
    if as_json:
        print(json.dumps(row, default=str))
        return
    for name, value in row.items():
        print(f"{name}: {value}")


@parked.command()
def retry(
    service: Service,
    parked_id: Annotated[int | None, typer.Argument(help="One fact and its customer's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every customer's.")] = False,
) -> None:
    """Apply again, a customer's facts in order; exits 1 if one still cannot be."""
    if (parked_id is None) is not everything:
        raise UsageFault("say which fact, or --all")
    results = asyncio.run(taken_up(current_settings(), service, parked_id))
    for result in results:
        print(_told(result))
    if any(result.stuck is not None for result in results):
        raise typer.Exit(Exit.FAILED)


@parked.command("drop")
def drop_parked(
    service: Service,
    parked_id: ParkedId,
    reason: Annotated[str, typer.Option(help="Why it is given up; kept with it.")],
) -> None:
    """Give one fact up for ever, then apply what waited behind it."""
    if not reason.strip():
        raise UsageFault("--reason must say why")
    result = asyncio.run(given_up(current_settings(), service, parked_id, reason.strip()))
    print(f"{parked_id}: dropped")
    if result.applied or result.stuck is not None:
        print(_told(result))


def _told(result: Retried) -> str:
    line = f"{result.key}: {result.applied} applied"
    if result.stuck is None:
        return line
    return f"{line}, {result.stuck} still cannot be ({result.error}), {result.waiting} wait behind"


async def listed(
    settings: Settings, services: Sequence[str], *, all_states: bool, page: Page = FIRST
) -> list[dict[str, object]]:
    statement = select(ParkedEvent).where(ParkedEvent.id > page.after)
    statement = statement.order_by(ParkedEvent.id).limit(page.rows)
    if not all_states:
        statement = statement.where(ParkedEvent.status == "parked")
    rows: list[dict[str, object]] = []
    for service in services:
        async with transaction_of(settings, service) as session:
            rows += [_row(each) for each in await session.scalars(statement)]
    return rows


async def shown(settings: Settings, service: str, parked_id: int) -> dict[str, object]:
    async with transaction_of(settings, service) as session:
        row = await find(session, service, parked_id)
    headers = {
        name: None if value is None else base64.b64decode(value).decode(errors="backslashreplace")
        for name, value in row.headers
    }
    place = {"topic": row.topic, "partition": row.partition, "offset": row.offset}
    body = row.body.decode(errors="backslashreplace")
    return _row(row) | place | {"headers": headers, "body": body}


async def taken_up(settings: Settings, service: str, parked_id: int | None) -> list[Retried]:
    async with sessions_of(settings, service) as sessions:
        async with sessions.begin() as session:
            if parked_id is None:
                keys = await open_keys(session, service)
            else:
                keys = [(await find(session, service, parked_id)).key]
        results = []
        for key in keys:
            async with sessions.begin() as session:
                results.append(await retry_key(session, service, HANDLERS[service], key))
    return results


async def given_up(settings: Settings, service: str, parked_id: int, reason: str) -> Retried:
    async with transaction_of(settings, service) as session:
        row = await drop(session, service, parked_id, reason)
        return await retry_key(session, service, HANDLERS[service], row.key)


def _row(row: ParkedEvent) -> dict[str, object]:
    return {
        "service": row.consumer,
        "id": row.id,
        "status": row.status,
        "key": row.key,
        "event_id": row.event_id,
        "attempts": row.attempts,
        "parked_at": row.parked_at.isoformat(timespec="seconds"),
        "error": row.error,
    }
