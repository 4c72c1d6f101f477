"""The demo's own arithmetic can say no, and a small story holds from start to stop."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

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
from cli.demo.world import Customer, Subscription, Variant, make_world
from embedded.ports import free_port
from embedded.stack import JOB_FOLDERS
from shared.events import derived_id

ROOT = Path(__file__).resolve().parent.parent.parent
USER = derived_id("test", "user")
PRICES = Prices(
    1,
    Decimal("12.5"),
    {"USD": {"express": 900}},
    {"US": Decimal("0.1"), "US-CA": Decimal("0.0725")},
)
TRUE: dict[str, Any] = {
    "status": "succeeded",
    "currency": "USD",
    "amount_minor": 9_000,
    "capturable_minor": 0,
    "received_minor": 9_000,
    "refunded_minor": 950,
    "disputed_minor": 0,
    "failure_code": None,
    "user_id": "u",
    "subscription_id": "s",
}


def box(region: str | None, *prices_and_quantities: tuple[int, int]) -> Subscription:
    lines = tuple(
        (Variant(USER, USER, "box", price, "USD"), quantity)
        for price, quantity in prices_and_quantities
    )
    customer = Customer(USER, "a@example.org", USER, "US", region)
    return Subscription(USER, customer, "USD", "month", lines, "express", "active")


@pytest.mark.parametrize(
    ("subscription", "total"),
    [
        # 2500 + 312.5 -> 312 (half-even) + 900 = 3712; x 0.0725 = 269.12 -> 269
        (box("CA", (1_250, 2)), 3_981),
        # 1250 + 156.25 -> 156 + 900 = 2306; no rate of its own: the country's 230.6 -> 231
        (box("NV", (1_250, 1)), 2_537),
        (box(None), 990),
    ],
)
def test_the_expected_cost_is_the_rule_by_hand(subscription: Subscription, total: int) -> None:
    assert total_minor(PRICES, subscription) == total


@pytest.mark.parametrize(
    ("interval", "monthly"), [("month", 100), ("week", 433), ("quarter", 33), ("year", 8)]
)
def test_revenue_is_told_by_the_month(interval: str, monthly: int) -> None:
    assert mrr_minor(100, interval) == monthly


def test_the_same_seed_is_the_same_world_and_another_shares_nobody() -> None:
    world = make_world("a", 200)
    assert world == make_world("a", 200)
    others = {each.customer.id for each in make_world("b", 200).subscriptions}
    assert not others & {each.customer.id for each in world.subscriptions}
    assert {each.currency for each in world.subscriptions} == {"USD", "EUR", "JPY"}
    assert {each.fate for each in world.subscriptions} == {"active", "paused", "canceled"}
    assert {len(each.lines) for each in world.subscriptions} == {1, 2, 3, 4}


def test_a_wrong_cost_version_or_payment_is_noticed() -> None:
    row = {"total_minor": 5, "price_version": 2}
    assert wrong_costs({"s": row}, {"s": (2, 5)}) == []
    assert len(wrong_costs({"s": row}, {"s": (2, 6)})) == 1
    assert len(wrong_costs({"s": row}, {"s": (1, 5)})) == 1
    assert wrong_payments({"pi": TRUE}, {"pi": TRUE}) == []
    assert wrong_payments({}, {"pi": TRUE}) == ["payment pi is missing"]
    for field in TRUE:
        assert len(wrong_payments({"pi": TRUE | {field: "other"}}, {"pi": TRUE})) == 1


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ([("2026-01:bronze", 90, 1), ("2026-01:bronze", -10, 2)], False),
        ([("2026-01:gold", 120, 2)], False),
        ([("2026-01:bronze", 90, 1)], True),
        ([("2026-01:bronze", 79, 2)], True),
        ([("2026-01:bronze", 90, 1), ("2026-01:gold", -10, 2)], True),
        ([("2026-01:bronze", 80, 3)], True),
        ([], True),
    ],
)
def test_points_that_do_not_add_up_are_noticed(
    lines: list[tuple[str, int, int]], wrong: bool
) -> None:
    booked = {"pi": [{"rule": rule, "points": p, "payment_revision": r} for rule, p, r in lines]}
    found = wrong_points(booked, {"pi": TRUE | {"revision": 2}}, {"pi": TRUE})
    assert bool(found) is wrong


def test_days_and_payments_are_summed_alike() -> None:
    day = {"currency": "USD", "gross_minor": 9_000, "refunded_minor": 950, "disputed_minor": 0}
    assert daily_totals([day]) == totals([TRUE]) == {"USD": (9_000, 950, 0)}


def test_a_small_story_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """On embedded servers of its own: what `make demo` does, with fewer customers."""
    ports = {
        f"{service}_PORT": str(free_port())
        for service in ("PRICING", "PAYMENTS", "LOYALTY", "ANALYTICS")
    }
    theirs = ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "STRIPE_", "FAREBOX_")
    kept = {k: v for k, v in os.environ.items() if not any(each in k for each in theirs)}
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "cli", "demo", "--customers", "40", "--payments", "80"]
    told = subprocess.run(
        [*command, "--folder", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        env=kept | ports,
        cwd=ROOT,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for text in ("82 payments are what Stripe", "what came of it", "ok   S1", "ok   L2"):
        assert text in told.stdout
    own = {"logs", ".starting", "supervisord.conf"}
    # What the migration job keeps is for its operator to take away.
    assert {path.name for path in folder.iterdir()} <= own | set(JOB_FOLDERS.values())
    left = [p.info for p in psutil.process_iter(["cmdline"]) if str(folder) in json.dumps(p.info)]
    assert left == []
