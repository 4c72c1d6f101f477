"""What else is known of a payment beside its money is the truth, in any order and however often it is told."""

import itertools
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.stripe_sandbox import LIFECYCLES
from services.payments.domain import (
    Fee,
    Fold,
    Method,
    Review,
    Snapshot,
    StripeFact,
    Told,
    encode,
    is_foreign,
    is_undecided,
    join,
    state,
)
from tests.payments.lives import facts_of, fold, fold_in_two, shuffled
from tests.payments.lives import played as play_lives

DETAILS = (
    "decline_code",
    "payment_method_type",
    "three_d_secure",
    "mandate_id",
    "review",
    "invoice_id",
)


@given(
    seed=st.integers(0, 10_000),
    lifecycles=st.lists(st.sampled_from(sorted(LIFECYCLES)), min_size=1, max_size=6),
    dice=st.randoms(use_true_random=False),
)
@settings(max_examples=120, deadline=None)
def test_whatever_order_the_details_are_the_truth(
    seed: int, lifecycles: list[str], dice: Random
) -> None:
    lives = play_lives(seed, lifecycles, ties=0.3)
    for payment, facts in facts_of(lives).items():
        folded = fold(shuffled(facts, dice))
        if is_undecided(folded):
            continue
        read, truth = state(folded), lives.details[payment]
        # The sandbox forgets what a failed attempt was made with when the next one begins.
        told = [name for name in DETAILS if name != "payment_method_type" or truth[name]]
        assert {name: getattr(read, name) for name in told} == {n: truth[n] for n in told}


def kept(lives_fold: Fold, fee_minor: int = 30) -> list[Fold]:
    """Stripe's answers to what its charges only named: all that was received, in parts."""
    paid, names = state(lives_fold), sorted(lives_fold.unsettled)
    part_minor = paid.received_minor // len(names)
    rest_minor = paid.received_minor - part_minor * len(names)
    amounts = [part_minor + rest_minor, *[part_minor] * (len(names) - 1)]
    return [
        Fold(fees={name: Fee(True, paid.currency, fee_minor, amount_minor - fee_minor)})
        for name, amount_minor in zip(names, amounts, strict=True)
    ]


def settled(seed: int = 7) -> dict[str, list[StripeFact]]:
    return facts_of(play_lives(seed, ["multi_capture", "full_refund", "several_disputes"]))


def test_a_fee_is_asked_for_once_and_the_net_is_what_it_leaves() -> None:
    for facts in settled().values():
        before = fold(facts)
        assert before.unsettled
        assert (state(before).fee_minor, state(before).net_minor) == (None, None)
        answered = before
        for each in kept(before):
            answered = join(answered, each)
        assert not answered.unsettled
        read = state(answered)
        assert read.fee_minor == sum(fee.fee_minor for fee in answered.fees.values())
        assert read.net_minor == (
            read.received_minor - read.refunded_minor - read.disputed_minor - read.fee_minor
        )
        if read.refunded_minor == read.received_minor:
            assert read.net_minor == -read.fee_minor


def test_every_part_joins_alike_in_any_order_and_grouping() -> None:
    parts = [
        *kept(fold(next(iter(settled().values())))),
        Fold(unsettled={"txn_1": "ch_1", "txn_2": "ch_1"}),
        Fold(fees={"txn_1": Fee(True, "USD", 5, 95)}, unsettled={}),
        Fold(method=Method(5, 0, "ch_1", "card", "failed")),
        Fold(method=Method(5, 2, "ch_0", "sepa_debit", "", "mandate_1")),
        Fold(reviews={"prv_1": Review(False, 3, "rule")}),
        Fold(reviews={"prv_1": Review(True, 3, "approved"), "prv_2": Review(False, 4, "manual")}),
        Fold(invoice="in_1"),
        Fold(saved=("cus_1", "pm_1")),
    ]
    for a, b, c in itertools.permutations(parts, 3):
        assert encode(join(a, b)) == encode(join(b, a))
        assert encode(join(a, join(b, c))) == encode(join(join(a, b), c))
    for a in parts:
        assert encode(join(a, a)) == encode(a) == encode(join(a, Fold()))


@given(dice=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_answers_about_fees_join_like_any_other_fact(dice: Random) -> None:
    for facts in settled().values():
        whole = fold(facts)
        for each in kept(whole):
            whole = join(whole, each)
        answers = [
            StripeFact(f"farebox_{i}", "farebox.x", 1, None, None, (), tells)
            for i, tells in enumerate(kept(fold(facts)))
        ]
        mixed = shuffled([*facts, *answers], dice)
        assert encode(fold(mixed)) == encode(whole) == encode(fold_in_two(mixed, dice))


@pytest.mark.parametrize(
    ("reviews", "read"),
    [
        ({}, None),
        ({"prv_1": Review(False, 3, "rule")}, "open"),
        ({"prv_1": Review(True, 3, "approved")}, "approved"),
        ({"prv_1": Review(True, 3, "approved"), "prv_2": Review(False, 1, "rule")}, "open"),
        ({"prv_1": Review(True, 3, "approved"), "prv_2": Review(True, 9, "refunded")}, "refunded"),
    ],
)
def test_a_review_is_open_while_one_is(reviews: dict[str, Review], read: str | None) -> None:
    told = {"evt_1": Told(3, 0, Snapshot("processing", "USD", 100, 0))}
    assert state(Fold(phase=0, second=5, told=told, reviews=reviews)).review == read


def test_a_review_that_was_closed_stays_closed() -> None:
    opened, closed = Review(False, 3, "rule"), Review(True, 3, "approved")
    both = join(Fold(reviews={"prv_1": closed}), Fold(reviews={"prv_1": opened}))
    assert both.reviews == {"prv_1": closed}


def test_a_known_fee_is_no_longer_asked_for_whichever_came_first() -> None:
    named, known = Fold(unsettled={"txn_1": "ch_1"}), Fold(fees={"txn_1": Fee(True, "USD", 5, 95)})
    assert join(named, known).unsettled == join(known, named).unsettled == {}


def test_another_account_or_mode_is_another_payment() -> None:
    ours = Fold(livemode=True, account="acct_1", created=1)
    for livemode, account, foreign in [
        (True, "acct_1", False),
        (False, "acct_1", True),
        (True, "acct_2", True),
        (True, "", True),
    ]:
        tells = Fold(livemode=livemode, account=account, created=2)
        fact = StripeFact("evt_1", "t", 2, "pi_1", None, (), tells)
        assert is_foreign(ours, fact) is foreign
        assert not is_foreign(Fold(), fact)


def test_one_set_of_facts_has_one_encoding_with_its_details() -> None:
    for facts in settled(9).values():
        assert len({encode(fold(order)) for order in itertools.permutations(facts[:5])}) == 1
        assert orjson.loads(encode(fold(facts)))["method"]["type"]
