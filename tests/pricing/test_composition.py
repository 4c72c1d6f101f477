from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.composition import (
    Changes,
    Layer,
    NothingToBuildOn,
    TwoOfOneScope,
    choose,
    compose,
    in_order,
    numbers,
)
from services.pricing.domain import Box, cost, moved_lines, offered
from services.pricing.scopes import Member, Scope
from shared.events import BoxLine, VariantLine

START = datetime(2026, 3, 1, tzinfo=UTC)
COFFEE, TEA = UUID(int=1), UUID(int=2)
EVERYTHING = Scope()
GERMANS = Scope(places=frozenset({"DE"}))
GOLD = Scope(tiers=frozenset({"gold"}))
MEMBER = Member(
    UUID(int=9), "EUR", "DE", "standard", frozenset({COFFEE}), "gold", START - timedelta(days=30)
)

WHOLE = Changes(
    Decimal(10),
    {"EUR": {"standard": 450, "pickup": 0}, "USD": {"standard": 500}},
    {"DE": Decimal("0.19"), "US": Decimal(0)},
    frozenset(),
    {"EUR": {COFFEE: 1_000}},
)


def layer(
    number: int, scope: Scope, changes: Changes, *, days: int = 0, scope_id: int | None = None
) -> Layer:
    ids = {EVERYTHING: 1, GERMANS: 2, GOLD: 3}
    return Layer(number, START + timedelta(days=days), scope_id or ids[scope], scope, changes)


BASE = layer(1, EVERYTHING, WHOLE)


def test_what_a_later_version_leaves_out_is_unchanged() -> None:
    cohort = layer(
        2, GERMANS, Changes(delivery_cost_minor={"EUR": {"standard": 300}, "CHF": {"standard": 9}})
    )
    terms = compose([BASE, cohort])
    assert terms.delivery_cost_minor == {
        "EUR": {"standard": 300, "pickup": 0},
        "USD": {"standard": 500},
        "CHF": {"standard": 9},
    }
    assert (terms.admin_percentage, terms.tax_rates) == (Decimal(10), WHOLE.tax_rates)
    assert terms.variant_prices == {"EUR": {COFFEE: 1_000}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (Changes(admin_percentage=Decimal(5)), {"admin_percentage": Decimal(5)}),
        (
            Changes(tax_rates={"DE": Decimal("0.07")}),
            {"tax_rates": {"DE": Decimal("0.07"), "US": Decimal(0)}},
        ),
        (Changes(tax_inclusive=frozenset({"DE"})), {"tax_inclusive": frozenset({"DE"})}),
        (
            Changes(variant_prices={"EUR": {TEA: 700}, "USD": {COFFEE: 1_200}}),
            {"variant_prices": {"EUR": {COFFEE: 1_000, TEA: 700}, "USD": {COFFEE: 1_200}}},
        ),
        (Changes(), {}),
    ],
)
def test_each_part_of_a_version_changes_that_part_alone(
    changes: Changes, expected: dict[str, object]
) -> None:
    before, after = vars(compose([BASE])), vars(compose([BASE, layer(2, GERMANS, changes)]))
    assert after == before | expected


def test_of_two_cohorts_the_later_in_force_wins_and_neither_is_lost() -> None:
    germans = layer(5, GERMANS, Changes(Decimal(8), {"EUR": {"standard": 400}}), days=1)
    gold = layer(4, GOLD, Changes(Decimal(6), {"EUR": {"pickup": 5}}), days=2)
    terms = compose([gold, germans, BASE])
    assert terms.admin_percentage == 6
    assert terms.delivery_cost_minor["EUR"] == {"standard": 400, "pickup": 5}
    assert numbers([gold, germans, BASE]) == (1, 5, 4)


def test_at_the_same_instant_the_higher_number_wins() -> None:
    germans = layer(5, GERMANS, Changes(Decimal(8)))
    gold = layer(4, GOLD, Changes(Decimal(6)))
    assert compose([germans, gold, BASE]).admin_percentage == 8


def test_a_cohort_is_laid_over_everything_however_late_that_came() -> None:
    newer = layer(9, EVERYTHING, WHOLE, days=30)
    assert numbers([layer(2, GOLD, Changes(), days=1), newer]) == (9, 2)


@pytest.mark.parametrize(
    "layers", [[], [layer(2, GOLD, Changes(Decimal(6)))], [layer(1, EVERYTHING, Changes())]]
)
def test_a_cohort_alone_is_no_price(layers: list[Layer]) -> None:
    with pytest.raises(NothingToBuildOn):
        compose(layers)


def test_two_versions_of_one_scope_are_refused_by_number() -> None:
    with pytest.raises(TwoOfOneScope, match="2 and 3"):
        compose([BASE, layer(2, GOLD, Changes()), layer(3, GOLD, Changes(), days=1)])


# everything: 1 then 10; Germans: 2 then 20; gold: none then 30
OLD = (BASE, layer(2, GERMANS, Changes()))
NEW = (
    layer(10, EVERYTHING, WHOLE, days=10),
    layer(20, GERMANS, Changes(), days=20),
    layer(30, GOLD, Changes(), days=30),
)
FRENCH = Member(MEMBER.subscription_id, "EUR", "FR", "standard", frozenset(), "gold", START)
SILVER = Member(MEMBER.subscription_id, "EUR", "DE", "standard", frozenset(), "silver", START)


@pytest.mark.parametrize(
    ("member", "held", "chosen"),
    [
        (MEMBER, set(), (10, 20, 30)),
        (MEMBER, {10}, (1, 20, 30)),
        (MEMBER, {20}, (10, 2, 30)),
        (MEMBER, {10, 20}, (1, 2, 30)),
        # held back from a cohort's first version: it is on none of that cohort
        (MEMBER, {30}, (10, 20)),
        # moved to France, or down a tier: what covered it no more falls away, held back or not
        (FRENCH, set(), (10, 30)),
        (FRENCH, {20}, (10, 30)),
        (SILVER, set(), (10, 20)),
        (SILVER, {10, 20, 30}, (1, 2)),
    ],
)
def test_who_changes_something_stays_only_where_a_rollout_holds_him(
    member: Member, held: set[int], chosen: tuple[int, ...]
) -> None:
    assert numbers(choose(member, NEW, OLD, held)) == chosen


def test_who_is_priced_for_the_first_time_is_priced_by_what_is_in_force() -> None:
    assert numbers(choose(MEMBER, NEW, (), set())) == (10, 20, 30)
    assert numbers(choose(MEMBER, NEW, (), {10, 20, 30})) == (10,)


def test_lines_keep_their_price_but_for_those_a_version_names() -> None:
    lines = (
        BoxLine(variant_id=COFFEE, quantity=2, unit_price_minor=900),
        BoxLine(variant_id=TEA, quantity=1, unit_price_minor=500),
    )
    moved = moved_lines(lines, {COFFEE: 1_100})
    assert [line.unit_price_minor for line in moved] == [1_100, 500]
    assert [line.quantity for line in moved] == [2, 1]


def test_a_variant_sells_for_what_the_last_version_says_else_the_catalogue() -> None:
    terms = compose([BASE, layer(2, GERMANS, Changes(variant_prices={"EUR": {COFFEE: 900}}))])
    assert offered(terms, {COFFEE: 1_999, TEA: 500}, "EUR") == {COFFEE: 900, TEA: 500}
    assert offered(terms, {}, "USD") == {}


percentages = st.decimals("0.1", "50", places=4)
partial = st.builds(
    Changes,
    admin_percentage=st.none() | percentages,
    delivery_cost_minor=st.dictionaries(
        st.sampled_from(["EUR", "USD"]),
        st.dictionaries(st.sampled_from(["standard", "pickup"]), st.integers(0, 999), min_size=1),
    ),
    tax_rates=st.dictionaries(
        st.sampled_from(["DE", "DE-BE", "US"]), st.decimals(0, 1, places=6), max_size=3
    ),
    tax_inclusive=st.none() | st.frozensets(st.sampled_from(["DE", "US", "DE-BE"])),
    variant_prices=st.dictionaries(
        st.sampled_from(["EUR", "USD"]),
        st.dictionaries(st.sampled_from([COFFEE, TEA]), st.integers(0, 9_999), min_size=1),
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(partial, st.integers(0, 3)), max_size=4), st.data())
def test_what_layers_amount_to_does_not_hang_on_the_order_they_come_in(
    cohorts: list[tuple[Changes, int]], data: st.DataObject
) -> None:
    layers = [BASE] + [
        layer(number, GOLD, changes, days=days, scope_id=number)
        for number, (changes, days) in enumerate(cohorts, 2)
    ]
    shuffled = data.draw(st.permutations(layers))
    assert compose(shuffled) == compose(layers)
    assert in_order(shuffled) == in_order(layers)
    box = Box(
        "EUR", (VariantLine(variant_id=TEA, quantity=3, unit_price_minor=777),), "standard", "DE"
    )
    assert cost(compose(shuffled), box) == cost(compose(layers), box)


def test_every_order_of_four_is_the_same_price() -> None:
    layers = (
        BASE,
        layer(7, GERMANS, Changes(Decimal(7)), days=2),
        layer(8, GOLD, Changes(Decimal(8)), days=1),
        layer(9, GOLD, Changes(tax_rates={"DE": Decimal(0)}), days=1, scope_id=4),
    )
    assert {compose(order).admin_percentage for order in permutations(layers)} == {Decimal(7)}
    assert {numbers(order) for order in permutations(layers)} == {(1, 8, 9, 7)}


scopes = st.sampled_from([(1, EVERYTHING), (2, GERMANS), (3, GOLD)])
published = st.lists(
    st.builds(
        lambda scope, number, days: layer(number, scope[1], WHOLE, days=days, scope_id=scope[0]),
        scopes,
        st.integers(2, 999),
        st.integers(0, 9),
    ),
    unique_by=lambda each: each.scope_id,
)


@settings(max_examples=40, deadline=None)
@given(
    published.map(lambda layers: [*(each for each in layers if each.scope_id != 1), BASE]),
    published,
    st.sampled_from([MEMBER, FRENCH, SILVER]),
    st.sets(st.integers(1, 999)),
)
def test_whoever_changes_something_is_on_one_version_of_each_scope_that_covers_him(
    in_force: list[Layer], on: list[Layer], member: Member, held: set[int]
) -> None:
    held |= {each.number for each in in_force[::2]}
    chosen = choose(member, in_force, on, held)
    assert all(each.scope.covers(member) for each in chosen)
    assert len({each.scope_id for each in chosen}) == len(chosen)
    before = {each.scope_id: each for each in on}
    for each in in_force:
        if not each.scope.covers(member):
            continue
        mine = [c for c in chosen if c.scope_id == each.scope_id]
        if each.number not in held:
            assert mine == [each]
        elif each.scope_id in before:
            assert mine == [before[each.scope_id]]
        else:
            assert mine == ([each] if each.scope.everything else [])
    assert chosen == choose(member, in_force[::-1], on[::-1], held)
