"""`farebox payments`: what the raw Stripe events say, folded once more."""

import asyncio
import json
from typing import Annotated

import typer

from cli.arguments import AsJson
from cli.database import transaction_of
from cli.edge import Exit, UsageFault, current_settings
from services.payments.rebuild import Rebuilt, rebuild
from shared.settings import Settings

SHOWN = 10

payments = typer.Typer(help="Payments and where they come from.", no_args_is_help=True)


@payments.callback()
def _group() -> None:
    """Keeps `rebuild` a command of its own while it is the only one."""


@payments.command("rebuild")
def rebuild_payments(
    prove: Annotated[bool, typer.Option("--prove", help="Compare; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fold every payment from its raw events and compare byte for byte; exits 1 where one differs."""
    if not prove:
        raise UsageFault("say --prove: a rebuild compares and changes nothing")
    found = asyncio.run(_rebuild(current_settings()))
    if as_json:
        print(json.dumps({"agreed": found.agreed, "differed": found.differed}, default=str))
    else:
        print(f"{found.agreed} payments rebuilt, byte for byte the same; {len(found.differed)} not")
        for each in found.differed[:SHOWN]:
            print(f"  {each}")
    if found.differed:
        raise typer.Exit(Exit.FAILED)


async def _rebuild(settings: Settings) -> Rebuilt:
    async with transaction_of(settings, "payments") as session:
        return await rebuild(session)
