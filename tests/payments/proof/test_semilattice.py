"""Hypothesis on the fold itself: facts that no legal life would tell still add up to one thing, in any order and grouping."""

from dataclasses import replace
from functools import reduce
from random import Random
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from services.payments.domain import (
    ANSWER_RANK,
    Dispute,
    Fee,
    Fold,
    Link,
    Method,
    Payout,
    Refund,
    Review,
    Snapshot,
    Told,
    decode,
    encode,
    is_undecided,
    join,
    phase_of,
    state,
    untold_refunds,
)
from services.payments.domain.fold import REFUND_RANKS
from services.payments.gateway.translate import STATUSES

# Few values, so that facts meet in one second, one refund, one fee.
SECONDS = st.integers(1, 4)
MINOR = st.integers(0, 3)
RANKS = st.sampled_from([0, 1, 3, 5, ANSWER_RANK])
NAMES = st.sampled_from(["a", "b"])
EVENT = "evt_?"
T = TypeVar("T")


def named(values: st.SearchStrategy[T]) -> st.SearchStrategy[dict[str, T]]:
    return st.dictionaries(NAMES, values, max_size=2)


@st.composite
def payment_facts(draw: st.DrawFn) -> Fold:
    """What one event says of the payment itself; `EVENT` stands for its id."""
    status = draw(st.sampled_from(sorted(set(STATUSES.values()))))
    second = draw(SECONDS)
    snapshot = Snapshot(status, "USD", draw(MINOR), draw(MINOR), draw(st.none() | NAMES))
    final = status in ("succeeded", "canceled")
    return Fold(
        phase=phase_of(status),
        second=second,
        told={EVENT: Told(draw(RANKS), draw(MINOR), snapshot)},
        received_minor=draw(MINOR),
        created=draw(SECONDS),
        ended={status: (draw(st.integers(0, 2)), second)} if final else {},
        denied=draw(st.dictionaries(st.sampled_from(["processing"]), SECONDS)),
        links=draw(named(st.builds(Link, st.booleans(), MINOR, SECONDS, st.just(EVENT), NAMES))),
        invoice=draw(st.sampled_from(["", "in_1"])),
    )


REFUNDS = st.sampled_from(sorted(REFUND_RANKS)).flatmap(
    lambda status: st.builds(
        Refund,
        st.just(REFUND_RANKS[status]),
        st.just(status),
        MINOR,
        SECONDS,
        st.booleans(),
        st.none() | SECONDS,
    )
)
OTHER_FACTS = st.builds(
    Fold,
    refunds=named(REFUNDS),
    disputes=named(
        st.builds(
            Dispute,
            st.tuples(SECONDS, st.just(EVENT), st.sampled_from(["needs_response", "won", "lost"])),
            st.dictionaries(NAMES, st.builds(Payout, SECONDS, MINOR), max_size=2),
        )
    ),
    fees=named(st.builds(Fee, st.booleans(), st.just("USD"), MINOR, MINOR)),
    unsettled=st.dictionaries(NAMES, NAMES, max_size=2),
    method=st.none() | st.builds(Method, SECONDS, MINOR, NAMES, NAMES, NAMES, NAMES),
    reviews=named(st.builds(Review, st.booleans(), SECONDS, NAMES)),
    claims=st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), MINOR, max_size=2),
    listed=st.integers(0, 4),
)


def signed(fact: Fold, name: object) -> Fold:
    """The same, told by an event of its own: one id is one body."""
    event_id = f"evt_{name}"
    return replace(
        fact,
        told=dict.fromkeys([event_id], fact.told[EVENT]) if fact.told else {},
        links={key: replace(link, event_id=event_id) for key, link in fact.links.items()},
        disputes={
            key: replace(each, told=(each.told[0], event_id, each.told[2]))
            for key, each in fact.disputes.items()
        },
    )


UNSIGNED = st.lists(payment_facts() | OTHER_FACTS, min_size=1, max_size=7)
FACTS = UNSIGNED.map(lambda facts: [signed(fact, number) for number, fact in enumerate(facts)])


def fold(facts: list[Fold]) -> Fold:
    return reduce(join, facts, Fold())


@given(UNSIGNED, UNSIGNED, UNSIGNED)
@settings(max_examples=100, deadline=None)
def test_join_is_commutative_associative_and_idempotent(
    a: list[Fold], b: list[Fold], c: list[Fold]
) -> None:
    # Ids of their own: facts of different parts are different events.
    parts = [
        [signed(f, 100 * n + i) for i, f in enumerate(each)] for n, each in enumerate((a, b, c))
    ]
    x, y, z = (fold(part) for part in parts)
    assert encode(join(x, y)) == encode(join(y, x))
    assert encode(join(x, join(y, z))) == encode(join(join(x, y), z))
    assert encode(join(x, x)) == encode(join(x, Fold())) == encode(join(Fold(), x)) == encode(x)
    # What is known stays known: joining a part again changes nothing.
    assert encode(join(join(x, y), x)) == encode(join(x, y))


@given(FACTS, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_any_delivery_of_the_facts_is_one_row(facts: list[Fold], dice: Random) -> None:
    """Shuffled, repeated, grouped into batches, and stored as bytes in between."""
    expected = fold(facts)
    delivered = [*facts, *dice.choices(facts, k=dice.randint(0, len(facts)))]
    dice.shuffle(delivered)
    stored = Fold()
    while delivered:
        size = dice.randint(1, len(delivered))
        batch, delivered = fold(delivered[:size]), delivered[size:]
        stored = decode(encode(join(stored, batch)))
    assert encode(stored) == encode(expected)
    assert stored == expected
    assert untold_refunds(stored) == untold_refunds(expected)
    if stored.is_known:
        assert state(stored) == state(expected)
        assert is_undecided(stored) == is_undecided(expected)


@given(FACTS, UNSIGNED)
@settings(max_examples=100, deadline=None)
def test_more_facts_never_take_the_money_or_the_end_back(few: list[Fold], more: list[Fold]) -> None:
    before = fold(few)
    after = join(before, fold([signed(fact, f"more{i}") for i, fact in enumerate(more)]))
    assert (after.phase, after.second) >= (before.phase, before.second)
    assert after.received_minor >= before.received_minor
    assert after.ended.keys() >= before.ended.keys()
    assert after.refunds.keys() >= before.refunds.keys()
    for name, refund in before.refunds.items():
        assert after.refunds[name].rank >= refund.rank
        assert after.refunds[name].held >= refund.held
    if before.phase == 2:
        assert state(after).status in ("succeeded", "canceled")
