"""Payouts: what left for the bank is, to the cent, the net of its lines."""

import httpx
import pytest
import stripe

from tests.sandbox.conftest import START, Receiver, RunningSandbox

DAY_SECONDS = 86_400


def lines_of(sandbox: RunningSandbox, payout: str) -> list[stripe.BalanceTransaction]:
    listed = sandbox.client().v1.balance_transactions.list({"payout": payout, "limit": 3})
    return list(listed.auto_paging_iter())


@pytest.fixture
def money(sandbox: RunningSandbox) -> RunningSandbox:
    """All that tests before left on the balance is paid out."""
    for currency in ("usd", "eur"):
        order = {"currency": currency}
        answer = httpx.post(f"{sandbox.url}/_sandbox/payouts", json=order)
        assert answer.status_code in (200, 409)
    return sandbox


def test_an_automatic_payout_is_the_net_of_its_lines(money: RunningSandbox) -> None:
    money.play("partial_refunds", "dispute_won", "dispute_prevented", "bank_debit_succeeded")
    payout = money.control("POST", "payouts", {"currency": "usd", "fee_minor": 25})

    lines = lines_of(money, payout["id"])
    own = [line for line in lines if line.type == "payout"]
    others = [line for line in lines if line.type != "payout"]
    assert [line.net for line in own] == [-payout["amount"]]
    assert sum(line.net for line in others) == payout["amount"] > 0
    assert {"charge", "payment", "refund", "adjustment", "stripe_fee"} == {
        line.type for line in others
    }
    assert len({line.id for line in lines}) == len(lines)
    expanded = money.client().v1.balance_transactions.list(
        {"payout": payout["id"], "limit": 100, "expand": ["data.source"]}
    )
    kinds = {
        each.source if isinstance(each.source, str) else str(each.source["object"])
        for each in expanded.data
        if each.source is not None
    }
    [fee] = [kind for kind in kinds if kind.startswith("fee_")]
    assert kinds - {fee} == {"charge", "refund", "dispute", "payout"}
    refund = next(line for line in others if line.type == "refund")
    [same] = money.client().v1.balance_transactions.list({"source": str(refund.source)}).data
    assert same == refund


def test_money_of_another_currency_is_exchanged_to_the_balance_and_paid_out_of_it(
    money: RunningSandbox,
) -> None:
    asked = {"user_id": "u", "amount_minor": 90_000, "currency": "JPY", "settles_in": "eur"}
    lives = [{**asked, "lifecycle": each} for each in ("card_success", "dispute_won")]
    order = {"seed": 51, "start_at": START, "payments": lives}
    played = money.control("POST", "play", order)["payments"]
    payout = money.control("POST", "payouts", {"currency": "eur"})

    lines = [line for line in lines_of(money, payout["id"]) if line.type != "payout"]
    assert sum(line.net for line in lines) == payout["amount"]
    for line in lines:
        assert line.exchange_rate is not None
        assert abs(abs(line.amount) - 90_000 * line.exchange_rate) < 1
        assert line.currency == "eur"
    truth = money.control("GET", f"truth?stripe_id={played[1]['stripe_id']}&details=true")
    assert (truth["disputed_minor"], truth["fee_minor"], truth["net_minor"]) == (0, None, None)
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        money.control("POST", "play", {**order, "payments": [{**asked, "currency": "SEK"}]})


def test_a_line_is_paid_out_once_and_only_when_it_is_available(money: RunningSandbox) -> None:
    money.control("POST", "clock", {"now": START + 400 * DAY_SECONDS})
    paid = money.client().v1.payment_intents.create(
        {
            "amount": 4_000,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "expand": ["latest_charge.balance_transaction"],
        }
    )
    assert isinstance(paid.latest_charge, stripe.Charge)
    booked = paid.latest_charge.balance_transaction
    assert isinstance(booked, stripe.BalanceTransaction)
    assert booked.status == "pending"
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        money.control("POST", "payouts", {"currency": "eur"})

    money.control("POST", "clock", {"now": booked.available_on})
    payout = money.control("POST", "payouts", {"currency": "eur"})
    assert payout["amount"] == booked.net
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        money.control("POST", "payouts", {"currency": "eur"})


def test_a_manual_payout_is_not_itemised(money: RunningSandbox) -> None:
    money.play("card_success", seed=31)
    client = money.client().v1
    payout = client.payouts.create({"amount": 1_000, "currency": "usd"})
    assert (payout.automatic, payout.reconciliation_status) == (False, "not_applicable")
    with pytest.raises(stripe.InvalidRequestError, match="manual"):
        lines_of(money, payout.id)
    with pytest.raises(stripe.InvalidRequestError) as too_much:
        client.payouts.create({"amount": 90_000_000, "currency": "usd"})
    assert too_much.value.code == "balance_insufficient"
    assert client.payouts.cancel(payout.id).status == "canceled"
    assert payout.id in {each.id for each in client.payouts.list({"status": "canceled"}).data}


def test_a_payout_is_told_from_its_making_to_its_failing(
    money: RunningSandbox, receiver: Receiver
) -> None:
    money.play("card_success", seed=32)
    endpoint = {"url": receiver.url, "secrets": ["whsec_a"]}
    money.control("PUT", "endpoints", {"endpoints": [endpoint]})
    payout = money.control("POST", "payouts", {"currency": "usd"})
    for action in ("in_transit", "paid", "reconciled", "failed"):
        money.control("POST", "payouts/advance", {"payout": payout["id"], "action": action})
    money.control("POST", "drain", {"timeout_seconds": 20})

    assert sorted(event["type"] for event in receiver.events) == [
        "payout.created",
        "payout.failed",
        "payout.paid",
        "payout.reconciliation_completed",
        "payout.updated",
    ]
    failed = money.client().v1.payouts.retrieve(payout["id"])
    assert (failed.status, failed.failure_code) == ("failed", "account_closed")
    again = money.control("POST", "clock", {"now": None}) and money.control(
        "POST", "payouts", {"currency": "usd"}
    )
    assert again["amount"] == payout["amount"]


def test_a_payout_may_be_a_cent_off_for_those_who_look(money: RunningSandbox) -> None:
    money.play("card_success", seed=33)
    payout = money.control("POST", "payouts", {"currency": "usd", "skew_minor": 1})
    others = [line for line in lines_of(money, payout["id"]) if line.type != "payout"]
    assert sum(line.net for line in others) == payout["amount"] - 1
