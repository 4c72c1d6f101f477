"""What a subscription is priced by when something about it changed: the rule, without a database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from services.pricing.composition import Changes, Layer, compose, numbers
from services.pricing.costs import Subject
from services.pricing.domain import Box, UnknownVariant, cost
from services.pricing.layers import Layers, Version
from services.pricing.reprice import Context, Decision, decide
from services.pricing.scopes import Scope
from services.pricing.timing import Timing
from shared.events import BoxLine, TierName, VariantLine

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=90)
COFFEE, TEA, CAKE = UUID(int=1), UUID(int=2), UUID(int=3)
SUBSCRIPTION, CUSTOMER = UUID(int=8), UUID(int=9)
GERMANS, GOLD = Scope(places=frozenset({"DE"})), Scope(tiers=frozenset({"gold"}))


def whole(percentage: int) -> Changes:
    rates = {"DE": Decimal("0.19"), "FR": Decimal("0.2")}
    return Changes(Decimal(percentage), {"EUR": {"standard": 450, "pickup": 0}}, rates)


def version(layer: Layer, status: str = "active") -> Version:
    return Version(layer, status, None, Timing(), "new prices", "ada")


# everything: 1, then 3; Germans: 2, then 4; gold: 5, which begins last and overrides.
EVERYTHING_1 = Layer(1, START, 1, Scope(), whole(10))
GERMANS_2 = Layer(2, START, 2, GERMANS, Changes(Decimal(8), variant_prices={"EUR": {COFFEE: 900}}))
EVERYTHING_3 = Layer(3, START + timedelta(days=30), 1, Scope(), whole(12))
GERMANS_4 = Layer(
    4,
    START + timedelta(days=40),
    2,
    GERMANS,
    Changes(Decimal(9), variant_prices={"EUR": {COFFEE: 950}}),
)
GOLD_5 = Layer(5, START + timedelta(days=50), 3, GOLD, Changes(Decimal(5)))
LAYERS = Layers(
    {
        1: version(EVERYTHING_1, "retired"),
        2: version(GERMANS_2, "retired"),
        3: version(EVERYTHING_3),
        4: version(GERMANS_4),
        5: version(GOLD_5),
    }
)
CATALOGUE = {"EUR": {COFFEE: 1_000, TEA: 500}}


def decided(subject: Subject, *held: int, tier: TierName = "bronze") -> Decision:
    context = Context(
        LAYERS,
        {NOW: LAYERS.current(NOW)},
        {CUSTOMER: tier},
        CATALOGUE,
        {SUBSCRIPTION: frozenset(held)},
    )
    return decide(subject, context, NOW)


def subscribed(*on: Layer, place: str = "DE", coffee: int = 900, tea: int = 500) -> Subject:
    """Two coffees and a tea, as they were priced by `on`."""
    lines = (
        VariantLine(variant_id=COFFEE, quantity=2, unit_price_minor=coffee),
        VariantLine(variant_id=TEA, quantity=1, unit_price_minor=tea),
    )
    breakdown = cost(compose(on), Box("EUR", lines, "standard", place), numbers(on))
    return Subject(
        id=SUBSCRIPTION,
        user_id=CUSTOMER,
        status="active",
        currency="EUR",
        billing_interval="month",
        variants=tuple(BoxLine.model_validate(line.model_dump()) for line in lines),
        created_at=START - timedelta(days=9),
        cost_breakdown=breakdown,
        price_version=on[-1].number,
        delivery_type="standard",
        loyalty_discount_minor=0,
        country=place,
        region=None,
    )


def moved_to(subject: Subject, place: str) -> Subject:
    return subject.model_copy(update={"country": place})


def prices(decision: Decision) -> list[int]:
    return [line.unit_price_minor for line in decision.box.variants]


UP_TO_DATE = subscribed(EVERYTHING_3, GERMANS_4, coffee=950)
BEHIND = subscribed(EVERYTHING_1, GERMANS_2)
FRENCH = subscribed(EVERYTHING_3, place="FR", coffee=1_000)


def test_what_is_priced_right_is_left_alone() -> None:
    decision = decided(UP_TO_DATE)
    assert (decision.kind, numbers(decision.layers)) == (None, (3, 4))
    assert prices(decision) == [950, 500]


# kind, composition, coffee's and tea's price, what the line is named after
@pytest.mark.parametrize(
    ("subject", "held", "tier", "expected"),
    [
        # Whom no rollout holds is priced by what is in force, whatever the reason he was left out for.
        (BEHIND, (), "bronze", ("config", (3, 4), [950, 500], 4)),
        (BEHIND, (3, 4), "bronze", (None, (1, 2), [900, 500], 2)),
        (BEHIND, (3,), "bronze", ("config", (1, 4), [950, 500], 4)),
        (BEHIND, (4,), "bronze", ("config", (3, 2), [900, 500], 3)),
        # His own change while he waits: priced by what he is on.
        (BEHIND.model_copy(update={"delivery_type": "pickup"}), (3, 4), "bronze", ("delivery", (1, 2), [900, 500], 2)),
        (BEHIND.model_copy(update={"loyalty_discount_minor": 5}), (3, 4), "bronze", ("discount", (1, 2), [900, 500], 2)),
        (BEHIND.model_copy(update={"delivery_type": "pickup"}), (), "bronze", ("delivery", (3, 4), [950, 500], 4)),
        # Into a cohort: its prices come with it.  Out of it: they stay behind.
        (moved_to(FRENCH, "DE"), (), "bronze", ("delivery", (3, 4), [950, 500], 4)),
        (moved_to(UP_TO_DATE, "FR"), (), "bronze", ("delivery", (3,), [1_000, 500], 3)),
        (moved_to(BEHIND, "FR"), (3,), "bronze", ("delivery", (1,), [1_000, 500], 1)),
        # A line that kept an older price than the cohort's keeps it.
        (moved_to(subscribed(EVERYTHING_3, GERMANS_4, coffee=700), "FR"), (), "bronze", ("delivery", (3,), [700, 500], 3)),
        # Another tier: a cohort more, or less.
        (UP_TO_DATE, (), "gold", ("config", (3, 4, 5), [950, 500], 5)),
        # A line's price changes with the version that names it, not with another.
        (subscribed(EVERYTHING_3, GERMANS_4, coffee=700), (), "gold", ("config", (3, 4, 5), [700, 500], 5)),
        (UP_TO_DATE, (5,), "gold", (None, (3, 4), [950, 500], 4)),
        (subscribed(EVERYTHING_3, GERMANS_4, GOLD_5, coffee=950), (), "bronze", ("config", (3, 4), [950, 500], 4)),
        (subscribed(EVERYTHING_3, GERMANS_4, GOLD_5, coffee=950), (), "gold", (None, (3, 4, 5), [950, 500], 5)),
    ],
)  # fmt: skip
def test_a_change_is_priced_by_what_covers_the_subscription_and_may_reach_it(
    subject: Subject,
    held: tuple[int, ...],
    tier: TierName,
    expected: tuple[str | None, tuple[int, ...], list[int], int],
) -> None:
    decision = decided(subject, *held, tier=tier)
    assert expected == (
        decision.kind,
        numbers(decision.layers),
        prices(decision),
        decision.newest,
    )


def test_a_new_line_costs_what_its_versions_say_else_the_catalogue() -> None:
    lines = (BoxLine(variant_id=TEA, quantity=1), BoxLine(variant_id=COFFEE, quantity=1))
    decision = decided(FRENCH.model_copy(update={"variants": lines}))
    assert (decision.kind, prices(decision)) == ("variants", [500, 1_000])
    german = decided(UP_TO_DATE.model_copy(update={"variants": lines}))
    assert (german.kind, prices(german)) == ("variants", [500, 950])
    waiting = decided(BEHIND.model_copy(update={"variants": lines}), 3, 4)
    assert (waiting.kind, prices(waiting)) == ("variants", [500, 900])


def test_a_new_line_without_a_price_is_an_error() -> None:
    lines = (BoxLine(variant_id=CAKE, quantity=1),)
    with pytest.raises(UnknownVariant, match="EUR"):
        decided(FRENCH.model_copy(update={"variants": lines}))


def test_a_first_price_is_what_is_in_force() -> None:
    new = BEHIND.model_copy(
        update={
            "cost_breakdown": None,
            "price_version": None,
            "variants": (BoxLine(variant_id=COFFEE, quantity=1),),
        }
    )
    decision = decided(new)
    assert (decision.kind, numbers(decision.layers), prices(decision)) == ("created", (3, 4), [950])


def test_a_row_of_an_earlier_release_is_on_the_version_it_names() -> None:
    breakdown = FRENCH.cost_breakdown
    assert breakdown is not None
    earlier = FRENCH.model_copy(
        update={"cost_breakdown": breakdown.model_copy(update={"price_versions": ()})}
    )
    assert earlier.composition() == (3,)
    assert decided(earlier).kind is None
    assert decided(moved_to(earlier, "DE")).kind == "delivery"


def test_a_version_withdrawn_on_the_eve_of_its_time_falls_away() -> None:
    gone = Layer(77, START + timedelta(days=80), 1, Scope(), whole(50))
    decision = decided(subscribed(gone, place="FR", coffee=1_000))
    assert (decision.kind, numbers(decision.layers)) == ("config", (3,))
