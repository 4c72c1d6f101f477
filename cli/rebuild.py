"""`farebox payments rebuild`: what the raw Stripe events say, folded once more, compared or put right."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from cli.arguments import AsJson
from cli.database import snapshot_of
from cli.edge import Exit, UsageFault, current_settings
from cli.reconcile import warnings_on_stderr
from services.payments import reread
from services.payments.mend import Change, Mended, mend
from services.payments.rebuild import Rebuilt, rebuild
from services.payments.reread import Passed
from shared.clock import utc_now
from shared.db import raw_pool
from shared.settings import Settings

SHOWN = 10
# A million payments take some minutes.
TELL_SECONDS = 2.0

T = TypeVar("T")


def rebuild_payments(
    prove: Annotated[bool, typer.Option("--prove", help="Compare; change nothing.")] = False,
    to_mend: Annotated[
        bool, typer.Option("--mend", help="Write anew what differs, and tell the other services.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fold every payment from its raw events and compare byte for byte; exits 1 where one differs, or stays so."""
    if prove == to_mend:
        raise UsageFault("say --prove, which compares, or --mend, which puts right what differs")
    if to_mend:
        with warnings_on_stderr():
            mended, passed = asyncio.run(_mend(current_settings()))
        _show_mended(mended, passed, as_json=as_json)
        ok = mended.ok
    else:
        found, passed = asyncio.run(_prove(current_settings()))
        _show_proof(found, passed, as_json=as_json)
        ok = found.ok and not passed.read
    if not ok:
        raise typer.Exit(Exit.FAILED)


async def _prove(settings: Settings) -> tuple[Rebuilt, Passed]:
    def tell(so_far: Rebuilt) -> str:
        return f"{so_far.agreed} payments agree so far, {len(so_far.differed)} differ"

    # In one snapshot: what is folded meanwhile is no difference.
    async with snapshot_of(settings, "payments") as session:
        found = await rebuild(session, _now_and_then(tell))
    async with raw_pool(settings.url_of("payments"), "payments", size=1) as pool:
        return found, await reread.count(pool, utc_now)


async def _mend(settings: Settings) -> tuple[Mended, Passed]:
    def tell(so_far: Mended) -> str:
        return f"{so_far.agreed} payments agree so far, {so_far.mended} mended, {len(so_far.left)} left"

    async with raw_pool(settings.url_of("payments"), "payments", size=1) as pool:
        mended = await mend(pool, utc_now, _now_and_then(tell))
        passed = await reread.give_all_back(
            pool,
            utc_now,
            _now_and_then(lambda read: f"{read} events given back to the fold so far"),
        )
    return mended, passed


def _now_and_then(tell: Callable[[T], str]) -> Callable[[T], None]:
    told = time.monotonic()

    def step(so_far: T) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            print(tell(so_far), file=sys.stderr)

    return step


def _show_proof(found: Rebuilt, passed: Passed, *, as_json: bool) -> None:
    if as_json:
        shown = {"agreed": found.agreed, "events": found.events, "differed": found.differed}
        print(json.dumps({**shown, "unread": passed.read}, default=str))
        return
    print(
        f"{found.agreed} payments rebuilt from {found.events} raw events, byte for byte the same;"
        f" {len(found.differed)} not"
    )
    for stripe_id, what in found.differed[:SHOWN]:
        print(f"  {stripe_id}: {what}")
    if len(found.differed) > SHOWN:
        print(f"  and {len(found.differed) - SHOWN} more: --json names them all")
    if passed.read:
        print(f"{passed.read} events were ignored that are read today")
    if found.differed or passed.read:
        print("`farebox payments rebuild --mend` puts this right")


def _show_mended(mended: Mended, passed: Passed, *, as_json: bool) -> None:
    given_back = mended.given_back + passed.read
    if as_json:
        print(json.dumps(_as_json(mended, passed, given_back), default=str))
        return
    print(
        f"{mended.agreed} payments agreed, {mended.mended} mended ({mended.announced} announced anew),"
        f" {len(mended.left)} left to you; {given_back} events given back to the fold"
    )
    for name, count in mended.columns.most_common():
        print(f"  {name} of {count}")
    for change in mended.changes[:SHOWN]:
        print(f"  {change.stripe_id}: {_in_words(change)}")
    if mended.mended > SHOWN:
        print(f"  and {mended.mended - SHOWN} more: --json names the first {len(mended.changes)}")
    for stripe_id, why in mended.left[:SHOWN]:
        print(f"  left: {stripe_id}: {why}")
    if len(mended.left) > SHOWN:
        print(f"  and {len(mended.left) - SHOWN} more: --json names them all")
    if passed.lost:
        print(f"{passed.lost} events were ignored and redacted: nobody can read them any more")


def _in_words(change: Change) -> str:
    told = f"announced as revision {change.revision}" if change.announced else "nothing to announce"
    changed = [f"{n} {was} -> {now}" for n, (was, now) in change.columns.items() if n != "fold"]
    return f"{', '.join(changed) or change.why}; {told}"


def _as_json(mended: Mended, passed: Passed, given_back: int) -> dict[str, object]:
    changed = [
        {
            "stripe_id": each.stripe_id,
            "payment_id": each.payment_id,
            "revision": each.revision,
            "announced": each.announced,
            "why": each.why,
            "changed": {n: values for n, values in each.columns.items() if n != "fold"},
        }
        for each in mended.changes
    ]
    return {
        "ok": mended.ok,
        "agreed": mended.agreed,
        "events": mended.events,
        "mended": mended.mended,
        "announced": mended.announced,
        "given_back": given_back,
        "lost": passed.lost,
        "columns": dict(mended.columns),
        "payments": changed,
        "left": mended.left,
    }
