"""What a partial capture leaves is released: until 2025-03-31 as a refund, which gives back nothing that was received."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import orjson
import pytest

from services.payments import fees
from services.payments.domain import (
    ASKED,
    BOOKED,
    TOLD,
    Fee,
    Fold,
    Refund,
    Snapshot,
    StripeFact,
    Told,
    Untold,
    join,
    merge,
    release,
    state,
    untold_refunds,
)
from services.payments.gateway import Question, Seen, answer_body, payment_subject, redact
from shared.events import PaymentStatus
from tests.payments.test_gateway import CREATED, charge, event, fact, intent, refund

CAPTURED = 8  # second
RELEASE = Refund(2, "succeeded", 400, CAPTURED, held=True)
GIVEN_BACK = Refund(2, "succeeded", 200, 20, held=True)
LATER = replace(RELEASE, created=20)


def captured(
    refunds: dict[str, Refund] | None = None,
    claims: dict[str, int] | None = None,
    ended: tuple[int, int] | None = None,
) -> Fold:
    """600 of 1,000 that were authorised."""
    return Fold(
        phase=2,
        second=CAPTURED,
        told={"evt_1": Told(5, 0, Snapshot("succeeded", "USD", 1_000, 0))},
        received_minor=600,
        created=1,
        ended={"succeeded": ended or (TOLD, CAPTURED)},
        refunds=refunds or {},
        claims=claims or {},
    )


@pytest.mark.parametrize(
    ("refunds", "released", "refunded_minor"),
    [
        ({"re_1": RELEASE}, "re_1", 0),
        ({"re_1": RELEASE, "re_2": GIVEN_BACK}, "re_1", 200),
        # Of two that are alike the first is it.
        ({"re_1": LATER, "re_2": RELEASE}, "re_2", 400),
        ({"re_2": RELEASE, "re_1": RELEASE}, "re_1", 400),
        # Today nothing is made of the rest: what is given back later is money, also where it is as much.
        ({"re_1": LATER}, None, 400),
        ({"re_1": replace(RELEASE, amount_minor=399)}, None, 399),
        ({"re_1": replace(RELEASE, created=CAPTURED + 1)}, None, 400),
        ({"re_1": replace(RELEASE, held=False)}, None, 0),
        ({"re_1": GIVEN_BACK}, None, 200),
        ({}, None, 0),
    ],
)
def test_what_a_capture_left_is_no_refund(
    refunds: dict[str, Refund], released: str | None, refunded_minor: int
) -> None:
    fold = captured(refunds)
    assert release(fold) == released
    seen = state(fold)
    assert (seen.received_minor, seen.refunded_minor, seen.anomaly) == (600, refunded_minor, None)
    assert released not in {each.id for each in seen.movements}


@pytest.mark.parametrize(
    ("who", "second", "released"),
    [(TOLD, 20, "re_1"), (BOOKED, 20, "re_1"), (BOOKED, 19, None), (ASKED, 20, None)],
)
def test_a_late_answer_does_not_say_when_it_was_captured(
    who: int, second: int, released: str | None
) -> None:
    assert release(captured({"re_1": LATER}, ended=(who, second))) == released


def test_where_more_went_than_ever_came_one_of_them_was_the_release() -> None:
    fold = captured({"re_1": LATER, "re_2": replace(LATER, created=30)}, ended=(ASKED, 99))
    assert release(fold) == "re_1"
    assert state(fold).refunded_minor == 400
    just = captured({"re_1": LATER, "re_2": GIVEN_BACK}, ended=(ASKED, 99))
    assert release(just) is None
    assert state(just).refunded_minor == 600
    failed = replace(LATER, rank=3, status="failed", returned_at=40)
    assert release(captured({"re_1": LATER, "re_2": failed}, ended=(ASKED, 99))) is None


@pytest.mark.parametrize(
    ("booked_minor", "refund", "released"),
    [
        (600, RELEASE, None),  # given back in the very second by today's rules: money
        (1_000, LATER, "re_1"),
        (999, LATER, None),
        (300, RELEASE, "re_1"),  # of one of two captures only
    ],
)
def test_what_was_booked_for_the_charge_decides(
    booked_minor: int, refund: Refund, released: str | None
) -> None:
    of_charge = Fee(True, "USD", 20, booked_minor - 20)
    fees = {"txn_1": of_charge, "txn_2": Fee(False, "USD", 5, 1), "txn_3": Fee(True, "EUR", 1, 1)}
    fold = replace(captured({"re_1": refund}), fees=fees)
    assert release(fold) == released


@pytest.mark.parametrize("status", ["requires_capture", "canceled"])
def test_before_it_succeeded_nothing_is_released(status: PaymentStatus) -> None:
    told = {"evt_1": Told(5, 0, Snapshot(status, "USD", 1_000, 400))}
    fold = replace(captured({"re_1": RELEASE}), told=told, ended={})
    assert release(fold) is None
    assert release(Fold(refunds={"re_1": RELEASE})) is None
    assert release(Fold(ended={"succeeded": (TOLD, 9)}, refunds={"re_1": RELEASE})) is None


@pytest.mark.parametrize(
    ("received_minor", "released"), [(1_000, None), (1_400, None), (999, "re_1"), (600, "re_1")]
)
def test_what_was_taken_whole_left_nothing(received_minor: int, released: str | None) -> None:
    nothing = replace(RELEASE, amount_minor=1_000 - received_minor)
    fold = replace(captured({"re_1": nothing}), received_minor=received_minor)
    assert release(fold) == released


@pytest.mark.parametrize(
    ("claims", "refunds", "untold"),
    [
        # The charge tells of the release, and nobody of the refund that it was.
        ({"8": 400}, {}, None),
        ({"8": 400, "12": 400}, {}, None),
        ({"8": 400}, {"re_1": RELEASE}, None),
        ({"8": 400, "30": 600}, {"re_1": RELEASE}, Untold(30, 600, 400)),
        ({"8": 400, "30": 600}, {}, Untold(30, 600, 400)),
        ({"8": 400, "30": 600}, {"re_2": GIVEN_BACK}, None),
        ({"8": 400, "30": 600}, {"re_1": RELEASE, "re_2": GIVEN_BACK}, None),
        # Nothing was said of it when it was captured: this is money.
        ({"9": 400}, {}, Untold(9, 400, 0)),
        ({"8": 399, "30": 400}, {}, Untold(30, 400, 0)),
    ],
)
def test_a_claim_of_what_was_released_is_not_missed(
    claims: dict[str, int], refunds: dict[str, Refund], untold: Untold | None
) -> None:
    assert untold_refunds(captured(refunds, claims)) == untold


def test_whole_captures_have_no_release_to_claim() -> None:
    fold = replace(captured({}, {"8": 1}), received_minor=1_000)
    assert untold_refunds(fold) == Untold(8, 1, 0)
    assert untold_refunds(replace(fold, received_minor=999)) is None


@pytest.mark.parametrize(
    ("kept", "fee_minor"),
    [
        ({"txn_1": Fee(True, "USD", 20, 280)}, None),  # of a second capture nothing is known
        ({"txn_1": Fee(True, "USD", 20, 280), "txn_2": Fee(True, "USD", 20, 280)}, 40),
        ({"txn_1": Fee(True, "USD", 30, 970)}, None),  # of all that was authorised
    ],
)
def test_a_fee_is_of_all_that_was_received(kept: dict[str, Fee], fee_minor: int | None) -> None:
    seen = state(replace(captured(), fees=kept))
    assert seen.fee_minor == fee_minor
    assert seen.net_minor == (None if fee_minor is None else 600 - fee_minor)


def test_what_stripe_takes_back_is_said_until_it_says_otherwise() -> None:
    fold = join(captured(), Fold(denied={"requires_payment_method": 50}))
    assert state(fold).status == "succeeded"
    assert state(fold).anomaly == "Stripe says requires_payment_method"
    again = join(fold, Fold(denied={"requires_payment_method": 60, "processing": 70}))
    assert state(again).anomaly == ("Stripe says processing; Stripe says requires_payment_method")
    for at, left in ((55, again), (60, join(captured(), Fold(denied={"processing": 70})))):
        snapshot = Snapshot("succeeded", "USD", 1_000, 0)
        answer = replace(captured(), told={"evt_2": Told(9, at, snapshot)})
        assert state(join(again, answer)).anomaly == state(left).anomaly
    assert state(join(fold, answer)).anomaly is None


def test_whose_word_on_when_it_ended_counts() -> None:
    late = captured(ended=(ASKED, 3))
    booked = captured(ended=(BOOKED, 5))
    assert state(join(late, booked)).succeeded_at == 5
    assert state(join(booked, captured())).succeeded_at == CAPTURED


def test_a_partial_capture_in_the_shapes_of_before_2025_gives_nothing_back() -> None:
    shown = {"amount": 1_000, "amount_captured": 600, "amount_refunded": 400}
    made = refund(amount=400, created=CREATED + 9, charge="ch_1", payment_intent="pi_1")
    told = [
        fact(event(intent(amount=1_000, amount_received=600))),
        fact(event(charge(**shown), "charge.captured")),
        fact(event(made, "refund.created")),
    ]
    for some in (told[:2], told):
        seen = state(joined(some))
        assert (seen.received_minor, seen.refunded_minor, seen.anomaly) == (600, 0, None)
    nested = charge(**shown, refunds={"object": "list", "data": [made]})
    older = fact(event(intent(amount=1_000, amount_received=600, charges={"data": [nested]})))
    assert state(older.tells).refunded_minor == 0


def joined(told: Iterable[StripeFact]) -> Fold:
    return reduce(merge, told, Fold())


@pytest.mark.parametrize("phase", [1, 2])
def test_an_answer_never_takes_a_payment_back(phase: int) -> None:
    status = "requires_capture" if phase == 1 else "succeeded"
    paid = fact(event(intent(status=status), f"payment_intent.{status}"))
    question = Question(payment_subject("pi_1"), phase, CREATED + 9, False, None)
    told = orjson.dumps(intent(status="requires_payment_method", amount_received=0))
    back = fact(answer_body(question, told, datetime.fromtimestamp(CREATED + 500, UTC)))
    for some in ([paid, back], [back, paid]):
        seen = state(joined(some))
        assert seen.status == status
        assert seen.anomaly == "Stripe says requires_payment_method"
    again = fact(
        answer_body(
            question,
            orjson.dumps(intent(status=status)),
            datetime.fromtimestamp(CREATED + 900, UTC),
        )
    )
    assert state(joined([paid, back, again])).anomaly is None


def test_what_is_seen_later_than_it_counts_claims_what_was_given_back_by_then() -> None:
    until = datetime.fromtimestamp(CREATED + 600, UTC)
    given_back = fact(event(refund(amount=500, created=CREATED + 700), "refund.created"))
    whole = intent(latest_charge=charge(amount_refunded=500))
    for at, anomaly in ((700, None), (650, "its charge tells of 500 refunded, 0 known")):
        seen = Seen("payments", whole, None, until, until + timedelta(seconds=at - 600))
        told = fact(seen.body(livemode=False))
        assert told.created == CREATED + 600
        assert state(joined([fact(event(intent())), given_back, told])).anomaly == anomaly


def test_all_that_was_booked_for_a_charge_is_asked_for_where_a_part_of_it_is_missing() -> None:
    made_with = {"type": "card", "card": {}}
    whole = charge(balance_transaction=booked("txn_2", 1_200), payment_method_details=made_with)
    half = joined([fact(event(intent())), fact(event(whole, "charge.captured"))])
    assert state(half).fee_minor is None
    [question] = fees.questions("pi_1", half)
    assert question.subject == "/v1/balance_transactions?source=ch_1"
    listed = [booked("txn_2", 1_200), booked("txn_1", 800), booked("txn_9", 5, type="adjustment")]
    body = orjson.dumps({"object": "list", "data": [*listed, booked("txn_8", 5, source="ch_2")]})
    answer = answer_body(question, body, datetime.fromtimestamp(CREATED + 900, UTC))
    for each in (answer, redact(answer)):
        told = fact(each)
        assert (told.payment, told.charge) == (None, "ch_1")
        seen = state(merge(half, told))
        assert (seen.fee_minor, seen.net_minor) == (20, 1_980)
    assert fees.questions("pi_1", replace(half, method=None)) == []


def booked(name: str, amount: int, **more: object) -> dict[str, object]:
    base = {"id": name, "object": "balance_transaction", "amount": amount, "created": CREATED}
    kept = {"currency": "usd", "fee": 10, "net": amount - 10, "source": "ch_1", "type": "charge"}
    return {**base, **kept, **more}
