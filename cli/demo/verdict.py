"""Was it right?  Every payment, every cost, every point and the days' sums against what must be true."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cli.demo.doors import Doors, Json
from cli.demo.expected import (
    Prices,
    daily_totals,
    mrr_minor,
    total_minor,
    totals,
    wrong_costs,
    wrong_payments,
    wrong_points,
)
from cli.demo.story import STARTED_BEFORE, Story

# What no merge of events can decide is asked of Stripe; its answer takes a moment.
ASKING_SECONDS = 45.0
POLL_SECONDS = 0.5
SHOWN = 3
# Simulated lives may end after today; analytics answers for at most 366 days.
DAYS_AFTER = timedelta(days=120)


@dataclass(frozen=True)
class Finding:
    """`counted` things were compared; `wrong` names those that differ."""

    what: str
    counted: int
    wrong: Sequence[str]

    def __str__(self) -> str:
        if not self.wrong:
            return f"{self.counted} {self.what}"
        shown = "; ".join(self.wrong[:SHOWN])
        return f"{self.counted} {self.what}: {len(self.wrong)} WRONG: {shown}"


@dataclass(frozen=True)
class Opening:
    """What analytics knew before the story: a database of one's own need not be empty."""

    payments: dict[str, tuple[int, int, int]]


async def take_opening(doors: Doors) -> Opening:
    return Opening(daily_totals(await payment_days(doors)))


async def verify(story: Story, opening: Opening) -> list[Finding]:
    shown = await _settled_payments(story)
    truth = await story.doors.truth()
    assert story.old_prices is not None
    assert story.new_prices is not None
    return [
        Finding("payments are what Stripe's books say", len(truth), wrong_payments(shown, truth)),
        await _costs(story, story.old_prices, story.new_prices),
        await _points(story, shown, truth),
        await _payment_days(story, opening, truth),
        await _subscription_days(story),
    ]


async def payment_days(doors: Doors) -> list[Json]:
    """Of the whole story, day by day and by currency."""
    today = datetime.now(UTC).date()
    return await doors.days(
        "payments", today - STARTED_BEFORE - timedelta(days=1), today + DAYS_AFTER
    )


async def _settled_payments(story: Story) -> dict[str, Json]:
    """Ours by Stripe's id; waited for until they are right, or it is too late."""
    deadline = asyncio.get_running_loop().time() + ASKING_SECONDS
    ours = set(story.stripe_ids)
    while True:
        found = await story.doors.pages("payments", "/payments")
        shown = {row["stripe_id"]: row for row in found if row["stripe_id"] in ours}
        wrong = wrong_payments(shown, await story.doors.truth())
        if not wrong or asyncio.get_running_loop().time() > deadline:
            return shown
        await asyncio.sleep(POLL_SECONDS)


async def _costs(story: Story, old: Prices, new: Prices) -> Finding:
    """Who left before keeps the old price; everybody else, also who pauses, has the new one."""
    rows = await story.doors.pages("pricing", "/subscriptions")
    priced = {row["id"]: row for row in rows}
    expected = {}
    for each in story.world.subscriptions:
        prices = old if each.fate == "canceled" else new
        expected[str(each.id)] = (prices.version, total_minor(prices, each))
    wrong = [f"subscription {key} is missing" for key in expected.keys() - priced.keys()]
    present = {key: price for key, price in expected.items() if key in priced}
    return Finding(
        "costs are what the rule gives, to the cent",
        len(expected),
        wrong + wrong_costs(priced, present),
    )


async def _points(story: Story, shown: dict[str, Json], truth: Mapping[str, Json]) -> Finding:
    stripe_id_of = {str(row["id"]): str(row["stripe_id"]) for row in shown.values()}
    users = sorted({row["user_id"] for row in shown.values()})
    ledgers = await story.doors.of_each("loyalty", [f"/accounts/{u}/transactions" for u in users])
    booked: defaultdict[str, list[Json]] = defaultdict(list)
    for line in (line for ledger in ledgers for line in ledger):
        payment_id = str(line["payment_id"])
        booked[stripe_id_of.get(payment_id, payment_id)].append(line)
    lines = sum(map(len, booked.values()))
    return Finding(
        "points lines add up to what was kept", lines, wrong_points(booked, shown, truth)
    )


async def _payment_days(story: Story, opening: Opening, truth: Mapping[str, Json]) -> Finding:
    days = await payment_days(story.doors)
    counted, booked = daily_totals(days), opening.payments
    wrong = []
    for currency, expected in totals(truth.values()).items():
        before = booked.get(currency, (0, 0, 0))
        after = counted.get(currency, (0, 0, 0))
        added = tuple(a - b for a, b in zip(after, before, strict=True))
        if added != expected:
            wrong.append(f"{currency}: the days say {added}, true is {expected}")
    moved = [day for day in days if day["attempts"] or day["gross_minor"]]
    return Finding("days of payments add up to the same money", len(moved), wrong)


async def _subscription_days(story: Story) -> Finding:
    """Active and monthly recurring revenue at the end of today, against every subscription's own price."""
    rows = [
        row
        for row in await story.doors.pages("pricing", "/subscriptions")
        if row["status"] == "active"
    ]
    active, mrr = await _levels(story.doors)
    wrong = []
    if missing := {str(each.id) for each in story.world.paying} - {row["id"] for row in rows}:
        wrong.append(f"{len(missing)} of the story's are not active")
    for currency in sorted({row["currency"] for row in rows}):
        ours = [row for row in rows if row["currency"] == currency]
        expected = sum(mrr_minor(row["total_minor"], row["billing_interval"]) for row in ours)
        if active.get(currency) != len(ours):
            wrong.append(f"{currency}: {active.get(currency)} active, true is {len(ours)}")
        if mrr.get(currency) != expected:
            wrong.append(f"{currency}: MRR {mrr.get(currency)}, true is {expected}")
    return Finding("active subscriptions carry the MRR they must", len(rows), wrong)


async def _levels(doors: Doors) -> tuple[dict[str, int], dict[str, int]]:
    # The business's day may be ahead of ours.
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    days = await doors.days("subscriptions", tomorrow - timedelta(days=1), tomorrow)
    last = {day["currency"]: day for day in days}
    return (
        {currency: day["active"] for currency, day in last.items()},
        {currency: day["mrr_minor"] for currency, day in last.items()},
    )
