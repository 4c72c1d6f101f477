"""`farebox payments reconcile` and `payouts`, as they are typed."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from cli.edge import UsageFault
from cli.reconcile import moment_of
from tests.cli.conftest import Farebox
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["sandbox"]

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def stripes(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_reconcile")
    monkeypatch.setenv("STRIPE_API_BASE", sandbox.url)
    monkeypatch.setenv("FAREBOX_RECONCILE_CALLS_PER_SECOND", "100")


def test_what_never_arrived_is_mended_and_told_and_then_there_is_nothing(
    farebox: Farebox, sandbox: RunningSandbox
) -> None:
    week_ago = int(time.time()) - 7 * 86_400
    sandbox.play("card_success", "full_refund", start_at=week_ago, spread_seconds=3_600)
    found = farebox("payments", "reconcile", "--since", "30d", "--json")
    report = json.loads(found.out)
    assert (found.code, report["ok"]) == (0, True), found
    assert "T" in report["since"]
    assert report["found"] == report["mended"] == report["looked"]["events"] > 4
    assert {gap["kind"] for gap in report["gaps"]} == {"event"}
    again = farebox("payments", "reconcile", "--since", "30d")
    assert again.code == 0, again
    assert "0 gaps found, 0 mended, 0 left to you" in again.out


def test_a_payout_that_differs_is_left_to_the_operator(
    farebox: Farebox, sandbox: RunningSandbox
) -> None:
    three_weeks_ago = int(time.time()) - 21 * 86_400
    sandbox.play("card_success", start_at=three_weeks_ago, spread_seconds=60, seed=7)
    sandbox.control("POST", "clock", {"now": int(time.time()) - 86_400})
    payout = sandbox.control("POST", "payouts", {"currency": "usd", "skew_minor": 1})["id"]
    sandbox.control("POST", "payouts/advance", {"payout": payout, "action": "reconciled"})
    sandbox.control("POST", "clock", {"now": None})
    told = farebox("payments", "reconcile", "--since", "30d")
    assert told.code == 1, told
    assert f"open   /v1/payouts/{payout}" in told.out
    [row] = json.loads(farebox("payments", "payouts", "--json").out)
    assert (row["payout"], row["verdict"]) == (payout, "differs")
    assert payout in farebox("payments", "payouts").out


def test_without_a_key_it_says_so(farebox: Farebox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STRIPE_API_KEY")
    refused = farebox("payments", "reconcile")
    assert refused.code == 2
    assert "STRIPE_API_KEY" in refused.err


def test_what_is_no_account_is_refused_before_stripe_is_asked(farebox: Farebox) -> None:
    refused = farebox("payments", "reconcile", "--account", "my shop")
    assert refused.code == 2
    assert "--account 'my shop'" in refused.err


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("2026-06-01", datetime(2026, 6, 1, tzinfo=UTC)),
        ("2026-06-01T12:00:00+02:00", datetime(2026, 6, 1, 10, tzinfo=UTC)),
    ],
)
def test_since_is_an_age_or_a_time(text: str, moment: datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "30", "-3d", "2026-08-01", "99999d", ""])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UsageFault):
        moment_of(text, NOW)


def test_a_key_that_stripe_refuses_is_said_at_once(
    farebox: Farebox, sandbox: RunningSandbox
) -> None:
    sandbox.control("POST", "outage", {"status": 401, "count": 1})
    refused = farebox("payments", "reconcile", "--since", "1h")
    assert refused.code == 2
    assert "STRIPE_API_KEY does not open this: Stripe: " in refused.err
