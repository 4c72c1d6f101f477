"""`farebox payments`: what the raw Stripe events say, folded once more."""

import asyncio
import json
import sys
import time
from typing import Annotated

import typer

from cli.arguments import AsJson
from cli.database import snapshot_of
from cli.edge import Exit, UsageFault, current_settings
from cli.reconcile import list_payouts, reconcile_payments
from services.payments.rebuild import Rebuilt, rebuild
from shared.settings import Settings

SHOWN = 10
# A million payments take some minutes.
TELL_SECONDS = 2.0

payments = typer.Typer(help="Payments and where they come from.", no_args_is_help=True)
payments.command("reconcile")(reconcile_payments)
payments.command("payouts")(list_payouts)


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
        shown = {"agreed": found.agreed, "events": found.events, "differed": found.differed}
        print(json.dumps(shown, default=str))
    else:
        print(
            f"{found.agreed} payments rebuilt from {found.events} raw events, byte for byte the same;"
            f" {len(found.differed)} not"
        )
        for stripe_id, what in found.differed[:SHOWN]:
            print(f"  {stripe_id}: {what}")
        if len(found.differed) > SHOWN:
            print(f"  and {len(found.differed) - SHOWN} more: --json names them all")
    if found.differed:
        raise typer.Exit(Exit.FAILED)


async def _rebuild(settings: Settings) -> Rebuilt:
    told = time.monotonic()

    def tell(so_far: Rebuilt) -> None:
        nonlocal told
        if time.monotonic() - told < TELL_SECONDS:
            return
        told = time.monotonic()
        print(
            f"{so_far.agreed} payments agree so far, {len(so_far.differed)} differ", file=sys.stderr
        )

    # In one snapshot: what is folded meanwhile is no difference.
    async with snapshot_of(settings, "payments") as session:
        return await rebuild(session, tell)
