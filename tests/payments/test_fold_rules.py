"""The fold: any order, any duplication, one result, and it is the truth."""

import functools
import itertools
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.stripe_sandbox import LIFECYCLES
from services.payments.domain import (
    ANSWER_RANK,
    Fold,
    Snapshot,
    Told,
    decode,
    encode,
    is_undecided,
    join,
    state,
)
from services.payments.domain.state import PaymentState
from shared.events import PaymentStatus
from tests.payments.lives import (
    every_life,
    facts_of,
    fold,
    fold_in_two,
    shuffled,
)
from tests.payments.lives import played as play_lives

PERMUTED_WHOLE = 6  # facts: 720 orders; beyond that orders are drawn


def truth_in(read: PaymentState) -> dict[str, object]:
    return {
        "status": read.status,
        "currency": read.currency,
        "amount_minor": read.amount_minor,
        "capturable_minor": read.capturable_minor,
        "received_minor": read.received_minor,
        "refunded_minor": read.refunded_minor,
        "disputed_minor": read.disputed_minor,
        "failure_code": read.failure_code,
        "user_id": str(read.user_id),
        "subscription_id": str(read.subscription_id),
    }


@given(
    seed=st.integers(0, 10_000),
    lifecycles=st.lists(st.sampled_from(sorted(LIFECYCLES)), min_size=1, max_size=6),
    ties=st.sampled_from([0.0, 0.5, 1.0]),
    dice=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_any_order_and_duplication_folds_to_the_same_bytes_and_to_the_truth(
    seed: int, lifecycles: list[str], ties: float, dice: Random
) -> None:
    lives = play_lives(seed, lifecycles, ties)
    for payment, facts in facts_of(lives).items():
        expected = fold(facts)
        assert encode(fold(shuffled(facts, dice))) == encode(expected)
        assert encode(fold_in_two(shuffled(facts, dice), dice)) == encode(expected)
        assert decode(encode(expected)) == expected
        if is_undecided(expected):
            assert payment in lives.undecidable
            continue
        truth = {k: v for k, v in lives.truth[payment].items() if k != "stripe_id"}
        assert truth_in(state(expected)) == truth
        assert state(expected).anomaly is None


@pytest.mark.parametrize("lifecycle", sorted(LIFECYCLES))
def test_every_permutation_of_a_short_life_is_one_row(lifecycle: str) -> None:
    for payment, facts in facts_of(play_lives(5, [lifecycle])).items():
        short = facts[:PERMUTED_WHOLE]
        assert len({encode(fold(order)) for order in itertools.permutations(short)}) == 1, payment


def test_joining_is_commutative_associative_and_idempotent() -> None:
    for facts in facts_of(every_life(11, ties=1.0)).values():
        folds = [fact.tells for fact in facts]
        for a, b, c in itertools.islice(itertools.permutations(folds, 3), 200):
            assert encode(join(a, b)) == encode(join(b, a))
            assert encode(join(a, join(b, c))) == encode(join(join(a, b), c))
        for a in folds:
            assert encode(join(a, a)) == encode(a) == encode(join(a, Fold()))


def test_what_the_list_of_refunds_settled_stays_settled_in_any_order() -> None:
    claims = [Fold(claims={"5": 100}), Fold(claims={"5": 300, "7": 50}), Fold(claims={"9": 1})]
    parts = [*claims, Fold(listed=7), Fold(listed=4)]
    for order in itertools.permutations(parts):
        halves = join(fold_of(order[:2]), fold_of(order[2:]))
        assert encode(fold_of(order)) == encode(halves) == encode(join(halves, order[0]))
        assert (halves.claims, halves.listed) == ({"9": 1}, 7)
    assert fold_of(claims).claims == {"5": 300, "7": 50, "9": 1}


def fold_of(parts: Sequence[Fold]) -> Fold:
    return functools.reduce(join, parts)


def test_ties_that_no_merge_decides_are_noticed() -> None:
    lives = play_lives(3, ["declined_then_challenged"] * 40, ties=1.0)
    undecided = {p for p, facts in facts_of(lives).items() if is_undecided(fold(facts))}
    assert undecided
    assert undecided <= lives.undecidable


def told(status: PaymentStatus, second: int, event_id: str, rank: int = 3) -> Fold:
    snapshot = Snapshot(status, "USD", 100, 0, None)
    phase = 2 if status in ("succeeded", "canceled") else 0
    return Fold(phase, second, {event_id: Told(rank, 0, snapshot)}, created=1)


def answer(status: PaymentStatus, second: int) -> Fold:
    return told(status, second, "farebox_1", ANSWER_RANK)


def test_an_answer_settles_the_tie_it_was_asked_about_whenever_the_rest_arrives() -> None:
    tied = [told("requires_action", 5, "evt_z"), told("requires_payment_method", 5, "evt_a")]
    assert is_undecided(join(*tied))
    for order in itertools.permutations([*tied, answer("requires_payment_method", 5)]):
        settled = join(join(order[0], order[1]), order[2])
        assert not is_undecided(settled)
        assert state(settled).status == "requires_payment_method"


def test_an_answer_yields_to_what_happened_in_a_later_second() -> None:
    later = join(answer("requires_payment_method", 5), told("requires_action", 6, "evt_b"))
    assert state(later).status == "requires_action"


def test_creation_never_ties_with_what_follows_in_its_second() -> None:
    both = join(
        told("requires_confirmation", 5, "evt_z", rank=0), told("requires_action", 5, "evt_a", 1)
    )
    assert not is_undecided(both)
    assert state(both).status == "requires_action"


def test_two_events_that_say_the_same_need_no_deciding() -> None:
    both = join(told("processing", 5, "evt_1"), told("processing", 5, "evt_2"))
    assert not is_undecided(both)
