"""Payouts are explained to the cent, or it is said why not."""

from datetime import timedelta

import httpx
import pytest

from services.payments.app import create_web
from services.payments.reconcile.gauges import count
from services.payments.reconcile.work import reconcile
from shared.db import create_engine, create_sessions
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.reconcile.conftest import Stripe

LIVES = (
    "card_success",
    "full_refund",
    "partial_refund",
    "dispute_lost",
    "dispute_won",
    "refund_failed_after_success",
    "multi_capture",
    "bank_debit_succeeded",
)


def lived(stripe: Stripe, *lives: str, settles_in: str | None = None) -> list[str]:
    """Lives that are over, half a year ago, all of them delivered to nobody yet."""
    payments = stripe.play(*lives, settles_in=settles_in)
    stripe.at(stripe.hands.now - timedelta(days=10))
    return payments


def pay_out(stripe: Stripe, currency: str = "usd", **more: object) -> str:
    made = stripe.sandbox.control("POST", "payouts", {"currency": currency, **more})
    stripe.at(stripe.hands.now + timedelta(days=5))
    payout: str = made["id"]
    return payout


def itemise(stripe: Stripe, payout: str) -> None:
    stripe.sandbox.control("POST", "payouts/advance", {"payout": payout, "action": "reconciled"})


@pytest.fixture(autouse=True)
def empty_balance(stripe: Stripe) -> None:
    """What tests before left on the balance belongs to payments that this one does not know."""
    stripe.at(stripe.begin - timedelta(days=2))
    answer = httpx.post(f"{stripe.sandbox.url}/_sandbox/payouts", json={"currency": "usd"})
    assert answer.status_code in (200, 409)


async def payout_of(stripe: Stripe, payout: str) -> dict[str, object]:
    [row] = await stripe.service.rows("SELECT * FROM payouts WHERE id = $1", payout)
    return row


async def test_a_payout_agrees_with_its_lines_and_our_payments(stripe: Stripe) -> None:
    lived(stripe, *LIVES)
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    itemise(stripe, payout)
    report = await stripe.walk()
    row = await payout_of(stripe, payout)
    assert (row["verdict"], report.ok) == ("agrees", True), row["detail"]
    [sums] = await stripe.service.rows(
        "SELECT sum(net_minor) AS net, count(DISTINCT stripe_payment_id) AS payments"
        " FROM payout_lines WHERE type <> 'payout'"
    )
    assert sums == {"net": row["amount_minor"], "payments": len(LIVES)}


async def test_payments_that_never_were_told_are_mended_before_their_payout_is_judged(
    stripe: Stripe,
) -> None:
    lived(stripe, *LIVES)
    payout = pay_out(stripe)
    itemise(stripe, payout)
    await stripe.walk()
    # The folding goes on by itself; the next run looks again.
    await stripe.walk()
    row = await payout_of(stripe, payout)
    assert row["verdict"] == "agrees", row["detail"]


@pytest.mark.parametrize("skew", [1, -1])
async def test_a_payout_that_differs_by_a_cent_is_named(stripe: Stripe, skew: int) -> None:
    lived(stripe, "card_success", "full_refund")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe, skew_minor=skew)
    itemise(stripe, payout)
    report = await stripe.walk()
    row = await payout_of(stripe, payout)
    assert row["verdict"] == "differs"
    assert f"{skew:+d}" in str(row["detail"])
    assert not report.ok
    assert [(gap.kind, gap.subject) for gap in report.gaps] == [("payout", f"/v1/payouts/{payout}")]


async def test_a_payment_that_differs_by_a_cent_is_named_until_it_agrees(stripe: Stripe) -> None:
    lived(stripe, "card_success", "partial_refund")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    itemise(stripe, payout)
    await stripe.service.pool.execute(
        "UPDATE payment_intents SET fold = jsonb_set(fold, '{received_minor}', '9001')"
        " WHERE refunded_minor = 0"
    )
    assert not (await stripe.walk()).ok
    row = await payout_of(stripe, payout)
    assert row["verdict"] == "differs"
    assert "received 9001 here, 9000 in payouts" in str(row["detail"])
    await stripe.service.pool.execute(
        "UPDATE payment_intents SET fold = jsonb_set(fold, '{received_minor}', '9000')"
    )
    assert (await stripe.walk()).ok
    assert (await payout_of(stripe, payout))["verdict"] == "agrees"
    gaps = await stripe.service.rows("SELECT mended_at FROM reconcile_gaps WHERE kind = 'payout'")
    assert all(gap["mended_at"] for gap in gaps)


async def test_a_balance_in_another_currency_agrees_by_its_ids(stripe: Stripe) -> None:
    lived(stripe, *LIVES, settles_in="eur")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe, "eur")
    itemise(stripe, payout)
    assert (await stripe.walk()).ok
    row = await payout_of(stripe, payout)
    assert (row["verdict"], row["currency"]) == ("agrees", "EUR"), row["detail"]


async def test_a_manual_payout_is_said_to_be_not_itemisable(stripe: Stripe) -> None:
    lived(stripe, "card_success")
    await stripe.deliver(stripe.events())
    payout = stripe.sandbox.client().v1.payouts.create({"amount": 1_000, "currency": "usd"}).id
    stripe.hands.later(3_600)
    report = await stripe.walk()
    row = await payout_of(stripe, payout)
    assert (row["verdict"], report.ok) == ("not_itemisable", True)
    assert "manual" in str(row["detail"])


async def test_a_payout_waits_until_stripe_has_itemised_it(stripe: Stripe) -> None:
    lived(stripe, "card_success")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    await stripe.walk()
    assert (await payout_of(stripe, payout))["verdict"] == "open"
    itemise(stripe, payout)
    # Long after its own day: it is taken up because it is open.
    stripe.begin = stripe.hands.now - timedelta(hours=1)
    await stripe.walk()
    assert (await payout_of(stripe, payout))["verdict"] == "agrees"


async def test_fees_of_stripe_itself_are_of_no_payment(stripe: Stripe) -> None:
    lived(stripe, "card_success")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe, fee_minor=200)
    itemise(stripe, payout)
    await stripe.walk()
    row = await payout_of(stripe, payout)
    assert row["verdict"] == "agrees", row["detail"]
    assert row["detail"] == "2 lines of 1 payments"


async def test_payouts_are_shown_over_http(stripe: Stripe, database: Database) -> None:
    lived(stripe, "card_success", "full_refund")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    itemise(stripe, payout)
    await stripe.walk()
    door = create_web(Settings(database_url=database.url), stripe.hands)
    async with (
        door.app.router.lifespan_context(door.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://payments") as web,
    ):
        page = (await web.get("/payouts", params={"verdict": "agrees"})).json()
        detail = (await web.get(f"/payouts/{payout}", params={"limit": 2})).json()
        rest = (
            await web.get(f"/payouts/{payout}", params={"after_line": detail["next_line"]})
        ).json()
        missing = await web.get("/payouts/po_none")
    assert [each["id"] for each in page["items"]] == [payout]
    lines = detail["lines"] + rest["lines"]
    own = [line for line in lines if line["type"] != "payout"]
    assert sum(line["net_minor"] for line in own) == detail["amount_minor"]
    known = {str(row["id"]) for row in await stripe.service.rows("SELECT id FROM payment_intents")}
    assert {line["payment_id"] for line in own} == known
    assert missing.status_code == 404


async def test_gaps_that_stay_and_payouts_that_differ_are_counted(
    stripe: Stripe, database: Database
) -> None:
    lived(stripe, "card_success")
    events = stripe.events()
    await stripe.deliver(events[1:])
    payout = pay_out(stripe, skew_minor=1)
    itemise(stripe, payout)
    await stripe.walk()
    engine = create_engine(database.url_for("payments"), "payments")
    counted = await count(create_sessions(engine))
    await engine.dispose()
    until = counted.pop("reconciled_until")
    assert counted == {"open": 1, "mended": 1, "differing": 1, "agreeing": 0}
    [run] = await stripe.service.rows(
        "SELECT extract(epoch FROM until) AS until FROM reconcile_runs"
    )
    assert until == float(str(run["until"]))


async def test_an_account_that_was_looked_at_once_lags_behind_nobody(
    stripe: Stripe, database: Database
) -> None:
    stripe.at(stripe.begin + timedelta(days=1))
    await reconcile(stripe.walker, stripe.begin, "acct_once")
    stripe.hands.later(3_600)
    await stripe.walk()
    engine = create_engine(database.url_for("payments"), "payments")
    sessions = create_sessions(engine)
    lags = (await count(sessions))["reconciled_until"]
    stripe.hands.later(2 * 86_400)
    await reconcile(stripe.walker, None)
    [last] = await stripe.service.rows(
        "SELECT extract(epoch FROM max(until)) AS until FROM reconcile_runs"
    )
    until = float(str(last["until"]))
    assert lags < until - 2 * 86_400
    assert (await count(sessions))["reconciled_until"] == until
    await engine.dispose()


async def test_a_payout_of_long_ago_is_taken_apart_where_the_walk_reaches_so_far(
    stripe: Stripe,
) -> None:
    lived(stripe, "card_success", "partial_capture_refunded")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    itemise(stripe, payout)
    stripe.sandbox.control("POST", "payouts/advance", {"payout": payout, "action": "failed"})
    stripe.at(stripe.hands.now + timedelta(days=120))
    await stripe.walk()
    row = await payout_of(stripe, payout)
    assert row["verdict"] == "agrees", row["detail"]
    assert str(row["detail"]).endswith("it failed: nothing has reached the bank")


async def test_a_payout_that_fails_after_it_agreed_says_so(stripe: Stripe) -> None:
    lived(stripe, "card_success")
    await stripe.deliver(stripe.events())
    payout = pay_out(stripe)
    itemise(stripe, payout)
    await stripe.walk()
    stripe.sandbox.control("POST", "payouts/advance", {"payout": payout, "action": "failed"})
    for _ in range(2):
        await stripe.walk()
    row = await payout_of(stripe, payout)
    assert (row["verdict"], row["status"]) == ("agrees", "failed")
    assert row["detail"] == "1 lines of 1 payments; it failed: nothing has reached the bank"
