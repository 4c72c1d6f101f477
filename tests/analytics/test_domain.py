from datetime import date
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.analytics.domain import (
    Amounts,
    Levels,
    SubscriptionSaid,
    days_between,
    difference,
    dump,
    levels_by_day,
    load,
    monthly_minor,
    payment_days,
    recounted,
    subscription_days,
    success_rate,
    total,
)
from shared.errors import UnknownCurrency
from shared.events import BillingInterval
from tests.analytics.conftest import changed, on, payment, priced

UTC_DAYS = ZoneInfo("UTC")


def january(day: int) -> date:
    return date(2026, 1, day)


@pytest.mark.parametrize(
    ("state", "measures"),
    [
        ({"status": "requires_payment_method"}, {}),
        ({"status": "requires_action"}, {}),
        ({"status": "requires_action", "failure_code": "card_declined"}, {}),
        ({"status": "processing"}, {}),
        ({"status": "requires_capture"}, {}),
        (
            {"status": "requires_payment_method", "failure_code": "card_declined"},
            {"attempts_failed": 1, "failed:card_declined": 1},
        ),
        ({"status": "canceled"}, {"attempts_failed": 1, "failed:canceled": 1}),
        (
            {"status": "canceled", "failure_code": "expired_card"},
            {"attempts_failed": 1, "failed:expired_card": 1},
        ),
    ],
)
def test_an_attempt_counts_on_the_day_it_was_made_by_how_it_stands(
    state: dict[str, Any], measures: dict[str, int]
) -> None:
    fact = payment(received_minor=0, occurred_at=on(12), **state)

    assert payment_days(fact, UTC_DAYS) == {(january(10), "USD"): {"attempts": 1} | measures}


def test_money_counts_on_the_day_it_moved() -> None:
    fact = payment(
        succeeded_at=on(11),
        occurred_at=on(20),
        refunded_minor=700,
        disputed_minor=0,
        movements=(
            {"kind": "refund", "id": "re_1", "amount_minor": 500, "at": on(12)},
            {"kind": "refund", "id": "re_2", "amount_minor": 300, "at": on(12)},
            {"kind": "refund", "id": "re_2:returned", "amount_minor": -100, "at": on(13)},
            {"kind": "dispute", "id": "txn_1", "amount_minor": 2_500, "at": on(14)},
            {"kind": "dispute", "id": "txn_2", "amount_minor": -2_500, "at": on(15)},
        ),
    )

    assert payment_days(fact, UTC_DAYS) == {
        (january(10), "USD"): {"attempts": 1, "attempts_succeeded": 1},
        (january(11), "USD"): {"received_count": 1, "gross_minor": 2_500},
        (january(12), "USD"): {"refunded_minor": 800},
        (january(13), "USD"): {"refunded_minor": -100},
        (january(14), "USD"): {"disputed_minor": 2_500},
        (january(15), "USD"): {"disputed_minor": -2_500},
    }


def test_money_that_no_movement_explains_stands_on_the_fact_s_own_day() -> None:
    fact = payment(
        occurred_at=on(20),
        refunded_minor=700,
        disputed_minor=90,
        movements=({"kind": "refund", "id": "re_1", "amount_minor": 500, "at": on(12)},),
    )

    days = payment_days(fact, UTC_DAYS)

    assert days[january(12), "USD"] == {"refunded_minor": 500}
    assert days[january(20), "USD"] == {"refunded_minor": 200, "disputed_minor": 90}


def test_the_first_part_of_a_payment_captured_in_parts_counts_from_its_creation() -> None:
    fact = payment(status="requires_capture", received_minor=400, succeeded_at=None)

    assert payment_days(fact, UTC_DAYS) == {
        (january(10), "USD"): {"attempts": 1, "received_count": 1, "gross_minor": 400}
    }


@pytest.mark.parametrize(
    ("zone", "hour", "day"),
    [
        ("UTC", 22, january(31)),
        ("Europe/Berlin", 22, january(31)),
        ("Europe/Berlin", 23, date(2026, 2, 1)),
        ("Pacific/Niue", 9, january(30)),
    ],
)
def test_a_business_day_is_a_date_in_the_business_s_time_zone(
    zone: str, hour: int, day: date
) -> None:
    at = on(31, hour)
    fact = payment(created_at=at, succeeded_at=at)

    assert list(payment_days(fact, ZoneInfo(zone))) == [(day, "USD")]


def test_a_connected_accounts_money_is_not_counted() -> None:
    assert payment_days(payment(received_minor=500), UTC_DAYS)
    assert payment_days(payment(received_minor=500, account="acct_1"), UTC_DAYS) == {}


def test_an_unknown_currency_is_named() -> None:
    with pytest.raises(UnknownCurrency, match="XYZ"):
        payment_days(payment(currency="XYZ"), UTC_DAYS)


@pytest.mark.parametrize(
    ("total_minor", "interval", "monthly"),
    [
        (300, "week", 1_300),
        (1_000, "week", 4_333),
        (1_000, "month", 1_000),
        (1_000, "quarter", 333),
        (500, "quarter", 167),
        (1_200, "year", 100),
        (6, "year", 0),  # half a cent goes to the even one
        (18, "year", 2),
    ],
)
def test_revenue_is_normalised_to_a_month_and_rounded_once(
    total_minor: int, interval: BillingInterval, monthly: int
) -> None:
    assert monthly_minor(total_minor, interval) == monthly


def test_a_subscription_s_life_counts_on_the_days_it_changed() -> None:
    one = uuid4()
    facts: list[SubscriptionSaid] = [
        changed(one, 1),
        priced(one, 2, (None, 1_000)),
        changed(one, 3, "paused", total_minor=1_000),
        changed(one, 4, total_minor=1_000),
        priced(one, 5, (1_000, 1_100)),
        priced(one, 6, (1_100, 1_300), kind="variants"),
        changed(one, 7, "canceled", total_minor=1_300, canceled_at=on(7)),
    ]

    assert subscription_days(facts, UTC_DAYS) == {
        (january(1), "EUR"): {"new": 1, "active_change": 1},
        (january(2), "EUR"): {"mrr_change_minor": 1_000},
        (january(3), "EUR"): {"paused": 1, "active_change": -1, "mrr_change_minor": -1_000},
        (january(4), "EUR"): {"resumed": 1, "active_change": 1, "mrr_change_minor": 1_000},
        (january(5), "EUR"): {
            "mrr_change_minor": 100,
            "price_changes": 1,
            "price_mrr_change_minor": 100,
        },
        (january(6), "EUR"): {"mrr_change_minor": 200},
        (january(7), "EUR"): {"canceled": 1, "active_change": -1, "mrr_change_minor": -1_300},
    }


@pytest.mark.parametrize(
    ("status", "then", "measures"),
    [
        ("paused", None, {"new": 1, "paused": 1}),
        ("canceled", None, {"new": 1, "canceled": 1}),
        ("paused", "canceled", {"new": 1, "paused": 1, "canceled": 1}),
        ("canceled", "active", {"new": 1, "canceled": 1, "resumed": 1, "active_change": 1}),
        ("canceled", "paused", {"new": 1, "canceled": 1, "paused": 1}),
        ("active", "active", {"new": 1, "active_change": 1}),
    ],
)
def test_every_way_a_subscription_can_move(
    status: str, then: str | None, measures: dict[str, int]
) -> None:
    one = uuid4()
    facts = [changed(one, 1, status)]
    if then:
        facts.append(changed(one, 2, then, occurred_at=on(1)))

    assert subscription_days(facts, UTC_DAYS) == {(january(1), "EUR"): measures}


def test_a_paused_subscription_s_price_change_does_not_move_revenue() -> None:
    one = uuid4()
    facts: list[SubscriptionSaid] = [
        changed(one, 1, "paused", total_minor=1_000),
        priced(one, 2, (1_000, 1_200), status="paused"),
    ]

    assert subscription_days(facts, UTC_DAYS)[january(2), "EUR"] == {"price_changes": 1}


def test_a_subscription_that_changes_its_currency_leaves_the_old_one() -> None:
    one = uuid4()
    facts = [
        changed(one, 1, total_minor=1_000),
        changed(one, 2, total_minor=900, currency="USD"),
    ]

    assert subscription_days(facts, UTC_DAYS) == {
        (january(1), "EUR"): {"new": 1, "active_change": 1, "mrr_change_minor": 1_000},
        (january(2), "EUR"): {"active_change": -1, "mrr_change_minor": -1_000},
        (january(2), "USD"): {"active_change": 1, "mrr_change_minor": 900},
    }


LIFE = st.lists(
    st.tuples(
        st.sampled_from(["active", "paused", "canceled"]),
        st.sampled_from(["EUR", "USD"]),
        st.sampled_from(["week", "month", "quarter", "year"]),
        st.one_of(st.none(), st.integers(0, 10**7)),
        st.integers(1, 28),
    ),
    min_size=1,
    max_size=8,
)


@given(LIFE, st.data())
def test_facts_in_any_order_and_any_pieces_count_as_if_in_order(
    life: list[tuple[str, str, BillingInterval, int | None, int]], data: st.DataObject
) -> None:
    one = uuid4()
    facts = {
        n: changed(
            one,
            n,
            status,
            currency=currency,
            billing_interval=interval,
            total_minor=total_minor,
            occurred_at=on(day),
        )
        for n, (status, currency, interval, total_minor, day) in enumerate(life, 1)
    }
    heard: dict[int, SubscriptionSaid] = {}
    counted: dict[int, Amounts] = {}
    waiting = data.draw(st.permutations(list(facts)))
    while waiting:
        size = data.draw(st.integers(1, len(waiting)))
        batch, waiting = waiting[:size], waiting[size:]
        older = [n for n in heard if n < min(batch)]
        around = {n: f for n, f in heard.items() if n >= max(older, default=0)}
        counted |= recounted(around, {n: facts[n] for n in batch}, UTC_DAYS)
        heard |= {n: facts[n] for n in batch}

    assert total(counted.values()) == subscription_days(facts.values(), UTC_DAYS)


AMOUNTS = st.dictionaries(
    st.tuples(st.dates(), st.sampled_from(["EUR", "JPY"])),
    st.dictionaries(
        st.sampled_from(["attempts", "failed:a b"]),
        st.integers(-9, 9).filter(bool),
        min_size=1,
    ),
)


@given(AMOUNTS, AMOUNTS)
def test_what_was_counted_can_be_stored_and_taken_back(one: Amounts, other: Amounts) -> None:
    assert load(dump(one)) == one
    assert total([other, difference(one, other)]) == one


def test_levels_carry_over_days_without_change() -> None:
    days = list(days_between(january(1), january(4)))
    changes = {
        january(2): {"active_change": 2, "mrr_change_minor": 301},
        january(4): {"active_change": -12, "mrr_change_minor": -1_301},
    }

    levels = levels_by_day(Levels(10, 1_000), days, changes)

    assert [(v.active, v.mrr_minor, v.arpu_minor) for v in levels.values()] == [
        (10, 1_000, 100),
        (12, 1_301, 108),
        (12, 1_301, 108),
        (0, 0, None),
    ]


@pytest.mark.parametrize(
    ("succeeded", "failed", "rate"),
    [(0, 0, None), (0, 2, "0.0000"), (2, 1, "0.6667"), (1, 0, "1.0000")],
)
def test_the_success_rate_is_of_the_attempts_that_ended(
    succeeded: int, failed: int, rate: str | None
) -> None:
    assert success_rate(succeeded, failed) == rate
