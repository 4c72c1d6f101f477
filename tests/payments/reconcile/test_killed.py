"""Killed anywhere on the way, a walk goes on where it was; each page's finds are kept once."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from services.payments.gateway import listing as gateway_listing
from services.payments.reconcile import runs
from services.payments.reconcile.walk import step
from services.payments.reconcile.work import run_once
from tests.conftest import Database
from tests.payments.reconcile.conftest import Stripe

LIVES = ("card_success", "full_refund", "dispute_lost", "multi_capture")
# A walker of its own process: one step after the other, each told on stdout.
WALKER = """
import asyncio, sys
from datetime import datetime, timedelta
from services.payments.gateway import StripeClient, listing
from services.payments.reconcile.walker import Walker
from services.payments.reconcile.work import run_once
from shared import log
from shared.db import raw_pool

async def main(url, base, now):
    log.configure("payments", "worker")
    listing.PAGE_ITEMS = 4
    client = StripeClient("sk_test_x", base)
    async with raw_pool(url, "payments", size=2) as pool:
        walker = Walker(pool, client, "mortal", lambda: datetime.fromisoformat(now), pace_per_second=100)
        while True:
            print(await run_once(walker, timedelta(hours=1)), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def walk_and_die(stripe: Stripe, database: Database, steps: int) -> None:
    command = [sys.executable, "-c", WALKER, database.url_for("payments"), stripe.sandbox.url]
    with subprocess.Popen(
        [*command, stripe.hands.now.isoformat()],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        try:
            said = [child.stdout.readline() for _ in range(steps)]
        finally:
            child.kill()
    assert said == [b"1\n"] * steps


@pytest.mark.parametrize("steps", [1, 3, 6])
async def test_killed_between_pages_the_same_run_goes_on(
    stripe: Stripe, database: Database, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = stripe.play(*LIVES)
    stripe.hands.now = stripe.begin + timedelta(days=28)
    events = [e for e in stripe.events() if e["created"] <= stripe.hands.now.timestamp() - 300]
    walk_and_die(stripe, database, steps)
    [half] = await stripe.service.rows("SELECT * FROM reconcile_runs")
    assert half["ended_at"] is None
    monkeypatch.setattr(gateway_listing, "PAGE_ITEMS", 4)
    # The dead one's lease.
    await stripe.service.pool.execute("DELETE FROM leases")
    stripe.begin = stripe.hands.now - timedelta(days=29)
    report = await stripe.walk()
    assert report.id == half["id"]
    assert {g.subject for g in report.gaps if g.kind == "event"} == {e["id"] for e in events}
    assert report.looked["events"] == len(events)
    assert set(payments) <= set(await stripe.service.payments())


async def test_two_walkers_on_one_page_keep_its_finds_once(
    stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripe.play(*LIVES)
    stripe.hands.now = stripe.begin + timedelta(days=28)
    events = [e for e in stripe.events() if e["created"] <= stripe.hands.now.timestamp() - 300]
    monkeypatch.setattr(gateway_listing, "PAGE_ITEMS", 4)
    assert await run_once(stripe.walker, timedelta(hours=1))
    async with stripe.service.pool.acquire() as connection:
        run = await runs.next_run(connection, stripe.hands.now)
    assert run is not None
    done = await asyncio.gather(*(step(stripe.walker, run) for _ in range(2)))
    assert sorted(done) == [0, 1]
    stripe.begin = stripe.hands.now - timedelta(days=29)
    report = await stripe.walk()
    assert report.looked["events"] == len(events)
