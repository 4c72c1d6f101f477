"""The fold's rules one by one: what each says where another reading would do for most payments."""

from dataclasses import replace

import pytest

from services.payments.domain import (
    ANSWER_RANK,
    Fee,
    Fold,
    Snapshot,
    StripeFact,
    Told,
    is_foreign,
    is_undecided,
    join,
    phase_of,
    type_rank,
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
