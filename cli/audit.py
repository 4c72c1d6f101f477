"""`farebox audit`: what is always true, checked on the live system, a line each."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Annotated, assert_never

import typer
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncSession

from cli.agreement import Agreement
from cli.arguments import AsJson
from cli.broker_view import BrokerView, broker_view
from cli.crosschecks import (
    Marks,
    SessionOf,
    applied_once,
    held_back,
    left_over,
    offsets_cover,
)
from cli.database import snapshot_of
from cli.edge import Exit, current_settings
from cli.services import CHECKS
from services.payments.audit import delivered_are_stored, oldest_event
from services.payments.gateway import StripeAway, StripeClient
from shared.audit import CheckResult
from shared.db import SERVICES
from shared.settings import Settings

# Each must have been answered; silence is no proof.
IDS = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12", "L1", "L2")
SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.5


def audit(
    as_json: AsJson = False,
    settle: Annotated[
        float, typer.Option(help="Seconds to wait for what is under way.")
    ] = SETTLE_SECONDS,
) -> None:
    """Check what is always true; exits 1 if something is not."""
    results = asyncio.run(run(current_settings(), settle))
    fine = all(result.ok for result in results)
    if as_json:
        print(json.dumps({"ok": fine, "checks": [asdict(result) for result in results]}))
    else:
        print_lines(results, Console(highlight=False, soft_wrap=True))
    if not fine:
        raise typer.Exit(Exit.FAILED)


def print_lines(results: Sequence[CheckResult], console: Console) -> None:
    for result in results:
        sign = "[green]ok  [/]" if result.ok else "[red]FAIL[/]"
        console.print(f"{sign} {result.id:<4}{result.counted:>9}  ", end="")
        console.print(result.detail, markup=False)


async def run(settings: Settings, settle_seconds: float = SETTLE_SECONDS) -> list[CheckResult]:
    """Every check's result, merged by id, in the order of the design's table."""
    async with broker_view(settings) as broker:
        settled = await _settle(settings, broker, settle_seconds)
        # Offsets first: what they cover is in every snapshot taken later.
        committed = {service: await broker.committed(service) for service in SERVICES}
        delivered = await stripe_delivered(settings)
        async with snapshots(settings) as sessions:
            found = [each for s in SERVICES for each in await CHECKS[s](sessions[s])]
            found += await applied_once(sessions)
            found.append(await offsets_cover(broker, committed, sessions))
            found.append(await held_back(sessions))
            found += await _stripes_view(sessions["payments"], delivered)
        found.append(await payments_agree(settings, settle_seconds))
    return merged([*found, settled])


async def _stripes_view(
    session: AsyncSession, delivered: list[str] | StripeAway | None
) -> list[CheckResult]:
    match delivered:
        case None:
            return []
        case StripeAway():
            return [CheckResult("S1", False, 0, f"what it delivered is not known: {delivered}")]
        case list():
            return [await delivered_are_stored(session, delivered)]
        case _:
            assert_never(delivered)


async def stripe_delivered(settings: Settings) -> list[str] | StripeAway | None:
    """Events that Stripe says were answered 2xx; None where no key lets us ask."""
    if not settings.stripe_api_key:
        return None
    async with snapshots(settings) as sessions:
        since = await oldest_event(sessions["payments"])
    if since is None:
        return []
    client = StripeClient(settings.stripe_api_key, settings.stripe_api_base)
    try:
        return await client.delivered(since)
    except StripeAway as away:
        return away
    finally:
        await client.close()


async def _settle(settings: Settings, broker: BrokerView, seconds: float) -> CheckResult:
    give_up_at = time.monotonic() + seconds
    async with snapshots(settings) as sessions:
        marks = await Marks.now(broker, sessions)
    while True:
        async with snapshots(settings) as sessions:
            result = await left_over(marks, broker.prefix, sessions)
        if result.ok or time.monotonic() >= give_up_at:
            return result
        await asyncio.sleep(POLL_SECONDS)


async def payments_agree(settings: Settings, seconds: float) -> CheckResult:
    """S9: what is under way has as long to arrive."""
    agreement = Agreement()
    async with snapshots(settings) as sessions:
        await agreement.look(sessions["analytics"], sessions["payments"])
    give_up_at = time.monotonic() + seconds
    while agreement.awaited and time.monotonic() < give_up_at:
        await asyncio.sleep(POLL_SECONDS)
        async with snapshots(settings) as sessions:
            await agreement.look_again(sessions["analytics"], sessions["payments"])
    return agreement.result()


def merged(results: Sequence[CheckResult]) -> list[CheckResult]:
    """One line for each id; what no check spoke of has failed."""
    lines = []
    for identity in IDS:
        parts = [result for result in results if result.id == identity]
        said = [part.detail for part in parts if not part.ok] or [part.detail for part in parts]
        fine = bool(parts) and all(part.ok for part in parts)
        counted = sum(part.counted for part in parts)
        lines.append(CheckResult(identity, fine, counted, "; ".join(said) or "nobody checked it"))
    return lines


@asynccontextmanager
async def snapshots(settings: Settings) -> AsyncIterator[SessionOf]:
    """A reading transaction with each service, as it stands now."""
    async with AsyncExitStack() as stack:
        opened: dict[str, AsyncSession] = {}
        for service in SERVICES:
            snapshot = snapshot_of(settings, service)
            opened[service] = await stack.enter_async_context(snapshot)
        yield opened
