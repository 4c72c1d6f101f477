"""A year of many subscriptions in one sitting: declines, new cards, price changes, comings and goings, a Stripe that
fails and a worker that dies.  Every period is charged once, for what the customer was told.

FAREBOX_YEAR=<seed>:<subscriptions> lives through another one.
"""

import os
from collections import defaultdict
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID

import asyncpg

from shared.events import BillingInterval
from tests.payments.renewals.conftest import START, World, pausing
from tests.payments.renewals.dying import Died, Lives
from tests.payments.renewals.test_leaving import charge_before_the_news

SEED, SUBSCRIPTIONS = (os.environ.get("FAREBOX_YEAR") or "1:7").split(":")
YEAR = timedelta(days=366)
# A year in some eighty sittings; dunning's days pass singly or several at once.
HOURS = (24, 192)
INTERVALS: tuple[BillingInterval, ...] = ("week", "month", "month", "month", "quarter", "year")
REFUSALS = (
    *("insufficient_funds", "do_not_honor", "processing_error", "card_velocity_exceeded"),
    *("expired_card", "authentication_required", "lost_card"),
)
OUTAGES: tuple[dict[str, Any], ...] = (
    {"status": 500, "after_effect": True},
    {"status": 500},
    {"status": 429},
    {"status": "disconnect", "after_effect": True},
    {"status": "garbage", "garbage": "html"},
)


def card(rng: Random) -> list[str]:
    """Mostly good, now and then refused; in the end it takes what is asked for."""
    told = [rng.choice(REFUSALS) if rng.random() < 0.15 else "success" for _ in range(40)]
    return [*told, "success"]


async def live(world: World, rng: Random) -> None:
    """Some days, with a death, an outage or late news in some of them."""
    later = world.now + timedelta(hours=rng.randint(*HOURS))
    world.clock.now = later
    world.sandbox.control("POST", "clock", {"now": later.isoformat()})
    if rng.random() < 0.2:
        world.sandbox.control("POST", "outage", {**rng.choice(OUTAGES), "count": rng.randint(1, 4)})
    if rng.random() < 0.15:
        # What pricing has said in the meantime is heard when the charges were asked for, or paid.
        await charge_before_the_news(world, until=rng.choice(("asked", "told")))
    if rng.random() < 0.5:
        lives = Lives(rng.randint(0, 400))
        for step in world.steps():
            try:
                await lives.run(step())
            except Died:
                break
    if rng.random() < 0.1:
        world.carried = {lane: max(0, at - 50) for lane, at in world.carried.items()}
    await world.settle()


async def customers_act(world: World, rng: Random, subscriptions: list[UUID]) -> None:
    waiting = await world.owner.fetch(
        "SELECT DISTINCT user_id FROM payments.renewals"
        " WHERE status IN ('past_due', 'given_up') AND next_attempt_at IS NULL"
    )
    for row in waiting:
        if rng.random() < 0.3:
            await world.give_card(row["user_id"], *card(rng))
    subscription = rng.choice(subscriptions)
    status = (await world.subscription(subscription))["status"]
    if status == "paused":
        await world.act(subscription, "resume")
    elif status == "active" and rng.random() < 0.3:
        await world.act(subscription, rng.choice(("pause", "pause", "pause", "cancel")))
    if rng.random() < 0.03:
        await world.publish(str(rng.randint(1, 40)))


async def test_a_year_charges_every_period_once_for_what_was_told(world: World) -> None:
    rng = Random(int(SEED))
    pausing(world)
    subscriptions = [
        await world.subscribe(
            await world.customer(*card(rng)),
            price_minor=rng.randint(500, 9_000),
            interval=rng.choice(INTERVALS),
        )
        for _ in range(int(SUBSCRIPTIONS))
    ]
    # Never pauses, never declined: whose every period can be foretold.
    steady = await world.subscribe(await world.customer("success"), interval="month")
    await world.settle()
    while world.now < START + YEAR:
        await live(world, rng)
        await customers_act(world, rng, subscriptions)
    world.sandbox.control("POST", "outage", {"status": 500, "count": 0})
    for _ in range(4):
        await world.pass_(hours=2)

    renewals = await world.renewals()
    print(f"seed {SEED}: {len(renewals)} renewals, {_counted(renewals)}")
    _each_paid_once(world, renewals)
    await _only_what_was_told(world, renewals)
    await _periods_follow_each_other(world, renewals)
    paid = [r for r in renewals if r["subscription_id"] == steady]
    assert [f"{r['period_start']:%m-%d}" for r in paid] == [
        *("02-28", "03-31", "04-30", "05-31", "06-30", "07-31"),
        *("08-31", "09-30", "10-31", "11-30", "12-31", "01-31"),
    ]
    assert {r["status"] for r in paid} == {"paid"}


def _counted(renewals: list[asyncpg.Record]) -> dict[str, int]:
    counted: dict[str, int] = defaultdict(int)
    for renewal in renewals:
        counted[renewal["status"]] += 1
    return dict(counted)


def _each_paid_once(world: World, renewals: list[asyncpg.Record]) -> None:
    """Stripe's own books against ours: the same renewals, the same amounts, each once; what was given back is so whole."""
    truth = world.sandbox.control("GET", "truth")
    own = {str(r["id"]): r for r in renewals}
    taken: dict[str, list[int]] = defaultdict(list)
    given_back: dict[str, int] = {}
    for intent in world.intents():
        name, seen = intent["metadata"].get("farebox_renewal"), truth[intent["id"]]
        if name in own and seen["received_minor"]:
            taken[name].append(seen["received_minor"])
            if seen["refunded_minor"]:
                given_back[name] = seen["refunded_minor"]
    assert {name for name, amounts in taken.items() if len(amounts) > 1} == set()
    paid = {name: r["total_minor"] for name, r in own.items() if r["status"] == "paid"}
    assert {name: sum(amounts) for name, amounts in taken.items() if name in paid} == paid
    # Charged and not paid for anything: the news came late, and the money went back.
    assert taken.keys() - paid.keys() <= given_back.keys()
    assert given_back == {name: own[name]["total_minor"] for name in given_back}
    print(f"{len(given_back)} given back")
    assert {r["status"] for r in renewals} <= {"paid", "past_due", "given_up", "canceled"}


async def _only_what_was_told(world: World, renewals: list[asyncpg.Record]) -> None:
    told = await world.owner.fetch(
        "SELECT (payload ->> 'cost_history_id')::bigint AS id,"
        " (payload ->> 'new_total_minor')::bigint AS total,"
        " (payload ->> 'price_version')::int AS version,"
        " payload ->> 'subscription_id' AS subscription"
        " FROM pricing.outbox WHERE type = 'pricing.subscription_cost_changed'"
    )
    costs = {row["id"]: (row["subscription"], row["total"], row["version"]) for row in told}
    for r in renewals:
        said = (str(r["subscription_id"]), r["total_minor"], r["price_version"])
        assert costs[r["cost_history_id"]] == said
    [announced] = await world.owner.fetch(
        "SELECT count(*) AS said, sum((payload ->> 'total_minor')::bigint) AS total"
        " FROM payments.outbox WHERE type = 'payments.renewal_changed'"
        " AND payload ->> 'status' IN ('paid', 'recovered')"
    )
    paid = [r["total_minor"] for r in renewals if r["status"] == "paid"]
    assert (announced["said"], announced["total"]) == (len(paid), sum(paid))


async def _periods_follow_each_other(world: World, renewals: list[asyncpg.Record]) -> None:
    by_subscription: dict[UUID, list[asyncpg.Record]] = defaultdict(list)
    for renewal in renewals:
        if renewal["status"] == "paid":
            by_subscription[renewal["subscription_id"]].append(renewal)
    for subscription, paid in by_subscription.items():
        for earlier, later in pairwise(paid):
            assert earlier["period_end"] <= later["period_start"]
        row = await world.subscription(subscription)
        # Who has canceled gets no next period, whatever was on its way.
        assert row["status"] == "canceled" or row["period_end"] == paid[-1]["period_end"]
