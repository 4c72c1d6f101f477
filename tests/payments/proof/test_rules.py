"""The fold's rules one by one: what each says where another reading would do for most payments."""

import functools
import itertools
from dataclasses import replace

import pytest

from services.payments.domain import (
    ANSWER_RANK,
    Dispute,
    Fee,
    Fold,
    Payout,
    Refund,
    Snapshot,
    StripeFact,
    Told,
    is_foreign,
    is_undecided,
    join,
    phase_of,
    state,
    type_rank,
    untold_refunds,
)
from services.payments.domain.fold import FINAL_PHASE, METHOD_RANKS, REFUND_RANKS
from shared.events import PaymentStatus

# From stripe-lifecycle: what comes later in one second; those of one line never tell two different things.
TYPES_IN_ORDER = (
    {"created"},
    {"requires_action"},
    {"processing"},
    {"payment_failed"},
    {"partially_funded", "amount_capturable_updated"},
    {"canceled", "succeeded"},
)
REFUNDS_IN_ORDER = ({"requires_action"}, {"pending"}, {"succeeded"}, {"failed", "canceled"})
ATTEMPTS_IN_ORDER = ({"failed"}, {"pending"}, {"succeeded", "paid"})
PHASES_IN_ORDER: tuple[set[PaymentStatus], ...] = (
    {"requires_payment_method", "requires_confirmation", "requires_action", "processing"},
    {"requires_capture"},
    {"succeeded", "canceled"},
)


def test_what_comes_later_ranks_higher() -> None:
    assert ranks(TYPES_IN_ORDER, lambda name: type_rank(f"payment_intent.{name}")) == [*range(6)]
    assert ranks(REFUNDS_IN_ORDER, REFUND_RANKS.__getitem__) == [*range(4)]
    assert ranks(ATTEMPTS_IN_ORDER, METHOD_RANKS.__getitem__) == [*range(3)]
    assert [{phase_of(each) for each in line} for line in PHASES_IN_ORDER] == [{0}, {1}, {2}]
    assert phase_of("succeeded") == FINAL_PHASE
    assert type_rank("payment_intent.unheard_of") == 1
    assert max(map(type_rank, ("canceled", "succeeded", "payment_failed"))) < ANSWER_RANK


def ranks(lines: tuple[set[str], ...], rank: object) -> list[int]:
    assert callable(rank)
    found = [{rank(name) for name in line} for line in lines]
    assert all(len(line) == 1 for line in found)
    return [line.pop() for line in found]


def told(status: PaymentStatus, event_id: str, rank: int = 3) -> Fold:
    snapshot = Snapshot(status, "USD", 100, 0)
    return Fold(phase_of(status), 5, {event_id: Told(rank, 0, snapshot)}, created=1)


def test_at_the_end_nothing_is_undecided() -> None:
    """Succeeded and canceled at once is a contradiction, which is said, not a tie, which is asked about."""
    assert not is_undecided(join(told("succeeded", "evt_1"), told("canceled", "evt_2")))
    assert is_undecided(join(told("processing", "evt_1"), told("requires_action", "evt_2")))
    held = replace(told("requires_capture", "evt_2"), told={
        "evt_2": Told(3, 0, Snapshot("requires_capture", "USD", 100, 50))
    })  # fmt: skip
    assert is_undecided(join(told("requires_capture", "evt_1"), held))


def test_states_of_one_second_tie_whatever_their_ranks_but_that_of_creation() -> None:
    ranked = [told("processing", "evt_1", 1), told("requires_action", "evt_2", 3)]
    assert is_undecided(join(*ranked))
    assert not is_undecided(join(told("processing", "evt_1", 0), ranked[1]))


@pytest.mark.parametrize(
    ("a", "b", "earliest"), [(5, 3, 3), (3, 5, 3), (None, 3, 3), (3, None, 3), (None, None, None)]
)
def test_a_payment_was_created_when_the_earliest_word_says(
    a: int | None, b: int | None, earliest: int | None
) -> None:
    assert join(Fold(created=a), Fold(created=b)).created == earliest


def test_a_refund_that_was_ever_on_its_way_was_held_and_came_back_when_first_said() -> None:
    sent = Refund(1, "pending", 5, 1, held=True)
    failed = Refund(3, "failed", 5, 1, held=False, returned_at=9)
    earlier = replace(failed, returned_at=7)
    for order in itertools.permutations((sent, failed, earlier)):
        [joined] = functools.reduce(join, (Fold(refunds={"re": r}) for r in order)).refunds.values()
        assert joined == Refund(3, "failed", 5, 1, held=True, returned_at=7)


def test_a_dispute_keeps_its_last_word_and_every_movement() -> None:
    opened = Dispute((1, "evt_1", "needs_response"), {"txn_1": Payout(1, 5)})
    closed = Dispute((2, "evt_2", "won"), {"txn_1": Payout(1, 6), "txn_2": Payout(2, -6)})
    for a, b in ((opened, closed), (closed, opened)):
        assert join(Fold(disputes={"dp": a}), Fold(disputes={"dp": b})).disputes == {"dp": closed}


def test_of_two_words_on_one_fee_the_greater_counts_whichever_came_first() -> None:
    less, more = Fee(True, "USD", 30, 70), Fee(True, "USD", 31, 69)
    for a, b in ((less, more), (more, less)):
        assert join(Fold(fees={"t": a}), Fold(fees={"t": b})).fees == {"t": more}


def test_whose_and_in_which_mode_a_payment_is_is_kept_whoever_says_it() -> None:
    own, other = Fold(created=1), Fold(livemode=True, account="acct_1")
    for both in (join(own, other), join(other, own)):
        assert (both.livemode, both.account) == (True, "acct_1")


@pytest.mark.parametrize(
    ("known", "tells", "foreign"),
    [
        (Fold(), Fold(livemode=True), False),
        (Fold(created=1), Fold(created=2), False),
        (Fold(created=1), Fold(livemode=True), True),
        (Fold(created=1), Fold(account="acct_1"), True),
        (Fold(account="acct_1"), Fold(account="acct_1"), False),
        (Fold(account="acct_1"), Fold(account="acct_2"), True),
    ],
)
def test_what_is_of_another_account_or_mode_is_foreign(
    known: Fold, tells: Fold, foreign: bool
) -> None:
    fact = StripeFact("evt_1", "charge.updated", 1, "pi_1", None, (), tells)
    assert is_foreign(known, fact) is foreign


def test_a_fee_that_is_known_is_asked_for_no_more() -> None:
    fee = Fee(True, "USD", 30, 70)
    named = Fold(unsettled={"txn_1": "ch_1", "txn_2": "ch_2"})
    assert join(named, Fold(fees={"txn_1": fee})).unsettled == {"txn_2": "ch_2"}
    assert join(Fold(fees={"txn_1": fee}), named).unsettled == {"txn_2": "ch_2"}


def test_a_claim_of_the_very_second_that_was_listed_is_settled() -> None:
    assert join(Fold(claims={"5": 1, "6": 2}), Fold(listed=5)).claims == {"6": 2}


def paid(**more: object) -> Fold:
    snapshot = Snapshot("succeeded", "USD", 100, 0)
    ended = {"succeeded": (0, 5)}
    base = Fold(2, 5, {"evt_1": Told(5, 0, snapshot)}, 100, created=3, ended=ended)
    return replace(base, **more)  # type: ignore[arg-type]


def test_a_payment_is_as_old_as_stripe_says() -> None:
    assert state(paid()).created_at == 3


SENT = Refund(2, "succeeded", 40, 7, held=True)


@pytest.mark.parametrize(
    ("status", "received", "refunded"),
    [("succeeded", 100, 40), ("succeeded", 0, 40), ("canceled", 0, 0), ("canceled", 1, 40)],
)
def test_only_of_what_was_canceled_before_money_came_a_refund_is_no_refund(
    status: str, received: int, refunded: int
) -> None:
    """Letting an authorisation go is told as a refund too."""
    told_so = paid(ended={status: (0, 5)}, received_minor=received, refunds={"re_1": SENT})
    assert state(told_so).refunded_minor == refunded


@pytest.mark.parametrize(
    ("refund", "moved"),
    [
        (SENT, [(40, 7)]),
        (replace(SENT, held=False), []),
        (replace(SENT, status="failed", rank=3, returned_at=9), [(40, 7), (-40, 9)]),
        (replace(SENT, status="failed", rank=3), [(40, 7), (-40, 7)]),
    ],
)
def test_a_refund_moves_money_only_when_it_was_sent_and_back_when_it_returned(
    refund: Refund, moved: list[tuple[int, int]]
) -> None:
    movements = state(paid(refunds={"re_1": refund})).movements
    assert [(each.amount_minor, each.at) for each in movements] == moved


def test_no_fee_is_told_while_one_of_the_charges_is_not_settled() -> None:
    fee = {"txn_1": Fee(True, "USD", 30, 70)}
    assert state(paid(fees=fee)).fee_minor == 30
    assert state(paid(fees=fee, unsettled={"txn_2": "ch_2"})).fee_minor is None


def test_a_transaction_named_for_two_charges_is_the_same_ones_in_any_order() -> None:
    first, second = Fold(unsettled={"txn_1": "ch_1"}), Fold(unsettled={"txn_1": "ch_2"})
    assert join(first, second).unsettled == join(second, first).unsettled == {"txn_1": "ch_2"}


def test_of_several_claims_that_nothing_explains_the_latest_is_asked_about() -> None:
    untold = untold_refunds(paid(claims={"8": 60, "9": 70}))
    assert untold is not None
    assert (untold.second, untold.claimed_minor) == (9, 70)


def test_a_payment_whose_beginning_nobody_told_begins_with_time_itself() -> None:
    assert state(paid(created=None)).created_at == 0
