from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.pricing.scopes import EVERYTHING, SUBSCRIPTIONS_MAX, Member, Scope

COFFEE, TEA, CAKE = UUID(int=1), UUID(int=2), UUID(int=3)
ANNA, BEN = UUID(int=10), UUID(int=11)
SIGNED_UP = datetime(2026, 3, 1, 12, tzinfo=UTC)
MEMBER = Member(ANNA, "USD", "US-CA", "standard", frozenset({COFFEE, TEA}), "silver", SIGNED_UP)


@pytest.mark.parametrize(
    ("definition", "covered"),
    [
        ({}, True),
        ({"currencies": ["USD"]}, True),
        ({"currencies": ["EUR", "USD"]}, True),
        ({"currencies": ["EUR"]}, False),
        ({"places": ["US-CA"]}, True),
        ({"places": ["US"]}, True),
        ({"places": ["DE", "US"]}, True),
        ({"places": ["US-NY"]}, False),
        ({"places": ["CA"]}, False),
        ({"delivery_types": ["standard"]}, True),
        ({"delivery_types": ["pickup", "express"]}, False),
        ({"variants": [str(COFFEE)]}, True),
        ({"variants": [str(CAKE), str(TEA)]}, True),
        ({"variants": [str(CAKE)]}, False),
        ({"tiers": ["silver", "gold"]}, True),
        ({"tiers": ["bronze"]}, False),
        ({"signed_up_before": SIGNED_UP + timedelta(microseconds=1)}, True),
        ({"signed_up_before": SIGNED_UP}, False),
        ({"subscriptions": [str(ANNA), str(BEN)]}, True),
        ({"subscriptions": [str(BEN)]}, False),
        # every key that is given must hold
        ({"currencies": ["USD"], "places": ["US"], "tiers": ["silver"]}, True),
        ({"currencies": ["USD"], "places": ["US"], "tiers": ["gold"]}, False),
        ({"currencies": ["EUR"], "subscriptions": [str(ANNA)]}, False),
    ],
)
def test_a_scope_covers_whom_all_its_keys_name(
    definition: dict[str, object], covered: bool
) -> None:
    assert Scope.model_validate(definition).covers(MEMBER) is covered


def test_a_country_without_regions_is_a_place_of_its_own() -> None:
    german = Member(ANNA, "EUR", "DE", "standard", frozenset(), "bronze", SIGNED_UP)
    assert Scope(places=frozenset({"DE"})).covers(german)
    assert not Scope(places=frozenset({"DE-BE"})).covers(german)


@pytest.mark.parametrize(
    "definition",
    [
        {"currencies": []},
        {"places": []},
        {"subscriptions": []},
        {"currencies": ["usd"]},
        {"currencies": ["XXQ"]},
        {"places": ["usa"]},
        {"tiers": ["diamond"]},
        {"signed_up_before": "2026-03-01T12:00:00"},
        {"subscriptions": [str(UUID(int=n)) for n in range(SUBSCRIPTIONS_MAX + 1)]},
        {"country": ["DE"]},
    ],
)
def test_what_describes_nobody_or_cannot_be_read_is_refused(definition: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scope.model_validate(definition)


def test_equal_scopes_have_one_key_however_they_are_written() -> None:
    one = Scope.model_validate(
        {"places": ["US", "DE"], "signed_up_before": "2026-03-01T13:00:00+01:00"}
    )
    other = Scope.model_validate(
        {"signed_up_before": "2026-03-01T12:00:00Z", "places": ["DE", "US", "DE"]}
    )
    assert one.key() == other.key() != Scope(places=frozenset({"DE"})).key()
    assert one.definition() == other.definition()
    assert Scope.model_validate(one.definition()) == one


def test_a_definition_is_kept_in_one_order() -> None:
    places = frozenset({"US", "AT", "DE", "FR", "GB", "JP"})
    assert Scope(places=places).definition() == {"places": ["AT", "DE", "FR", "GB", "JP", "US"]}


def test_only_the_empty_definition_is_everything() -> None:
    assert Scope().everything
    assert Scope.model_validate({"tiers": None}).key() == EVERYTHING == Scope().key()
    assert not Scope(currencies=frozenset({"USD"})).everything


keys = st.fixed_dictionaries(
    {},
    optional={
        "currencies": st.sets(st.sampled_from(["USD", "EUR", "JPY"]), min_size=1),
        "places": st.sets(st.sampled_from(["US", "US-CA", "US-NY", "DE"]), min_size=1),
        "delivery_types": st.sets(st.sampled_from(["standard", "pickup"]), min_size=1),
        "variants": st.sets(st.sampled_from([COFFEE, TEA, CAKE]), min_size=1),
        "tiers": st.sets(st.sampled_from(["bronze", "silver"]), min_size=1),
        "signed_up_before": st.sampled_from([SIGNED_UP, SIGNED_UP + timedelta(days=1)]),
        "subscriptions": st.sets(st.sampled_from([ANNA, BEN]), min_size=1),
    },
)


@settings(max_examples=40, deadline=None)
@given(keys)
def test_a_scope_is_the_intersection_of_its_keys(definition: dict[str, object]) -> None:
    each = [Scope.model_validate({key: value}) for key, value in definition.items()]
    assert Scope.model_validate(definition).covers(MEMBER) == all(s.covers(MEMBER) for s in each)


@settings(max_examples=40, deadline=None)
@given(keys)
def test_a_stored_scope_is_the_same_scope(definition: dict[str, object]) -> None:
    scope = Scope.model_validate(definition)
    again = Scope.model_validate(scope.definition())
    assert (again, again.key()) == (scope, scope.key())
    assert len(scope.key()) < 100
