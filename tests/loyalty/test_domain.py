from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.loyalty.domain import (
    RULES,
    Account,
    Lot,
    PaymentChangedCurrency,
    book,
    lapses_at,
    next_tier,
    reconsider_tier,
    standing_of,
    target_points,
    tier_for,
)
from shared.errors import UnknownCurrency
from shared.events import PaymentChanged
from tests.loyalty.conftest import JANUARY, paid

CUSTOMER = uuid4()


def account(*lots: Lot, tier: str = "bronze") -> Account:
    return Account(
        user_id=CUSTOMER,
        balance_points=sum(lot.points for lot in lots),
        tier=tier_for({"bronze": 0, "silver": 500, "gold": 2_000, "platinum": 5_000}[tier]),
        revision=0,
        tier_as_of=datetime(1970, 1, 1, tzinfo=UTC),
        tier_until=None,
        lots={lot.payment_id: lot for lot in lots},
        subscription_points={},
    )


def lot(points: int, earned_at: datetime = JANUARY, payment_id: UUID | None = None) -> Lot:
    return Lot(
        payment_id=payment_id or uuid4(),
        user_id=CUSTOMER,
        subscription_id=None,
        payment_revision=1,
        currency="USD",
        rule="2026-01:bronze",
        points=points,
        peak_points=points,
        earned_at=earned_at,
    )


@pytest.mark.parametrize(
    ("points", "tier", "above"),
    [
        (0, "bronze", ("silver", 500)),
        (499, "bronze", ("silver", 1)),
        (500, "silver", ("gold", 1_500)),
        (1_999, "silver", ("gold", 1)),
        (2_000, "gold", ("platinum", 3_000)),
        (4_999, "gold", ("platinum", 1)),
        (5_000, "platinum", None),
    ],
)
def test_tiers_begin_at_exactly_their_points(
    points: int, tier: str, above: tuple[str, int] | None
) -> None:
    assert (tier_for(points), next_tier(points)) == (tier, above)


@pytest.mark.parametrize(
    ("currency", "received_minor", "tier", "points"),
    [
        ("USD", 99, "bronze", 0),
        ("USD", 100, "bronze", 1),
        ("USD", 199, "bronze", 1),
        ("USD", 80, "silver", 1),
        ("USD", 79, "silver", 0),
        ("EUR", 2_500, "gold", 37),
        ("USD", 2_500, "platinum", 50),
        ("JPY", 2_500, "bronze", 25),
        ("KWD", 2_500, "bronze", 2),
        ("CLF", 25_000, "bronze", 2),
    ],
)
def test_a_point_is_a_major_unit_and_fractions_are_dropped(
    currency: str, received_minor: int, tier: str, points: int
) -> None:
    state = paid(currency=currency, received_minor=received_minor)

    assert target_points(state, RULES[f"2026-01:{tier}"]) == points


@pytest.mark.parametrize(
    ("received", "refunded", "disputed", "points"),
    [
        (2_500, 0, 0, 25),
        (2_500, 501, 0, 19),
        (2_500, 2_500, 0, 0),
        (2_500, 1_000, 1_000, 5),
        (2_500, 2_500, 2_500, 0),  # refunded and disputed: gone twice at Stripe, once in points
        (0, 0, 0, 0),
    ],
)
def test_points_follow_the_money_that_is_left(
    received: int, refunded: int, disputed: int, points: int
) -> None:
    state = paid(received_minor=received, refunded_minor=refunded, disputed_minor=disputed)

    assert target_points(state, RULES["2026-01:bronze"]) == points


def test_an_unknown_currency_is_named() -> None:
    with pytest.raises(UnknownCurrency, match="XYZ"):
        target_points(paid(currency="XYZ"), RULES["2026-01:bronze"])


def test_a_refund_a_failed_refund_and_a_won_dispute_are_the_same_two_lines() -> None:
    payment = uuid4()
    states = [
        paid(payment, 1, received_minor=0, status="processing"),
        paid(payment, 2),
        paid(payment, 3, refunded_minor=1_000),
        paid(payment, 4),
        paid(payment, 5, disputed_minor=2_500),
        paid(payment, 6),
    ]

    now, lines = account(), []
    for state in states:
        booking = book(now, state)
        if booking:
            now = booking.account
            lines.append((booking.kind, booking.points, now.balance_points, now.revision))

    assert lines == [
        ("earned", 25, 25, 1),
        ("reversed", -10, 15, 2),
        ("restored", 10, 25, 3),
        ("reversed", -25, 0, 4),
        ("restored", 25, 25, 5),
    ]


def test_a_second_capture_earns_and_does_not_restore() -> None:
    payment = uuid4()
    first = book(account(), paid(payment, 1, received_minor=1_000))
    assert first is not None
    second = book(first.account, paid(payment, 2, received_minor=2_000))
    assert second is not None
    assert (second.kind, second.points) == ("earned", 10)


def test_a_payment_first_heard_of_when_refunded_earns_when_the_refund_fails() -> None:
    payment = uuid4()
    refunded = book(account(), paid(payment, 5, refunded_minor=2_500))
    assert refunded is not None
    assert refunded.points == 0
    failed = book(refunded.account, paid(payment, 6))
    assert failed is not None
    assert (failed.kind, failed.points) == ("earned", 25)


def test_a_lot_keeps_the_rule_it_was_earned_by() -> None:
    payment = uuid4()
    as_gold = book(account(lot(2_000)), paid(payment, 1))
    assert as_gold is not None
    assert (as_gold.lot.rule, as_gold.points) == ("2026-01:gold", 37)

    poor = replace(as_gold.account, lots={payment: as_gold.lot}, tier="bronze")
    half = book(poor, paid(payment, 2, refunded_minor=1_250))

    assert half is not None
    assert (half.lot.rule, half.lot.points) == ("2026-01:gold", 18)


def test_a_connected_accounts_money_earns_nothing_here() -> None:
    fact = paid()
    assert book(account(), fact) is not None
    assert book(account(), fact.model_copy(update={"account": "acct_1"})) is None


def test_an_old_revision_and_a_duplicate_book_nothing() -> None:
    payment = uuid4()
    booked = book(account(), paid(payment, 3, refunded_minor=1_000))
    assert booked is not None

    assert book(booked.account, paid(payment, 3, refunded_minor=1_000)) is None
    assert book(booked.account, paid(payment, 2)) is None


def test_a_payment_that_earned_in_one_currency_cannot_go_on_in_another() -> None:
    payment = uuid4()
    booked = book(account(), paid(payment, 1))
    assert booked is not None

    with pytest.raises(PaymentChangedCurrency, match="in USD and is in EUR now"):
        book(booked.account, paid(payment, 2, currency="EUR"))


@pytest.mark.parametrize(
    ("earned_at", "lapses"),
    [
        (datetime(2025, 3, 1, 8, tzinfo=UTC), datetime(2026, 3, 1, 8, tzinfo=UTC)),
        (datetime(2024, 2, 29, 8, tzinfo=UTC), datetime(2025, 3, 1, 8, tzinfo=UTC)),
        (datetime(2023, 2, 28, 8, tzinfo=UTC), datetime(2024, 2, 28, 8, tzinfo=UTC)),
    ],
)
def test_points_count_for_a_tier_for_twelve_months(earned_at: datetime, lapses: datetime) -> None:
    tick = timedelta(microseconds=1)
    gold = lot(2_000, earned_at)

    assert lapses_at(earned_at) == lapses
    assert [
        standing_of([gold], at).points
        for at in (earned_at - tick, earned_at, lapses - tick, lapses)
    ] == [0, 2_000, 2_000, 0]


def test_a_standing_says_when_it_falls() -> None:
    old, older, new = (
        lot(100, JANUARY - timedelta(days=200)),
        lot(300, JANUARY - timedelta(days=300)),
        lot(450, JANUARY),
    )

    standing = standing_of([old, older, new], JANUARY)

    # 850 points: without the oldest 300 it is still silver, without the next 100 it is not.
    assert (standing.tier, standing.until) == ("silver", lapses_at(old.earned_at))
    assert standing_of([], JANUARY).until is None


def test_a_late_fact_does_not_turn_the_tier_s_clock_back() -> None:
    lapsed = lot(500, JANUARY - timedelta(days=400))
    now = replace(account(lapsed), tier_as_of=JANUARY)

    booking = book(now, paid(occurred_at=JANUARY - timedelta(days=300), received_minor=100))

    assert booking is not None
    assert booking.lot.rule == "2026-01:silver"  # as of the fact's own time
    assert (booking.account.tier, booking.account.tier_as_of) == ("bronze", JANUARY)


def test_a_tier_moves_down_when_its_points_lapse_and_says_so_once() -> None:
    now = account(lot(500, JANUARY), tier="silver")
    lapse = lapses_at(JANUARY)

    still, nothing = reconsider_tier(now, lapse - timedelta(seconds=1))
    fallen, standing = reconsider_tier(still, lapse)

    assert nothing is None
    assert (still.tier, still.tier_until) == ("silver", lapse)
    assert standing is not None
    assert (fallen.tier, fallen.revision, fallen.tier_until) == ("bronze", 1, None)
    assert reconsider_tier(fallen, lapse) == (fallen, None)


MONEY = st.integers(0, 10**9)


@given(
    st.lists(st.tuples(MONEY, MONEY, MONEY), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_whatever_is_lost_or_repeated_the_balance_is_what_the_newest_state_is_worth(
    states: list[tuple[int, int, int]], random: Random
) -> None:
    payment = uuid4()
    facts = [
        paid(payment, n, received_minor=r + 1, refunded_minor=f, disputed_minor=d)
        for n, (r, f, d) in enumerate(states, 1)
    ]
    told: list[PaymentChanged] = [facts[i % len(facts)] for i in range(len(facts) * 2)]
    random.shuffle(told)

    now, total = account(), 0
    for fact in told:
        booking = book(now, fact)
        if booking:
            now, total = booking.account, total + booking.points

    rule = RULES["2026-01:bronze"]
    assert now.balance_points == total == target_points(facts[-1], rule)
    assert now.lots[payment].points <= now.lots[payment].peak_points
