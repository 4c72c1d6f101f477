"""What a subscription cost, at an instant, as known at another; and that the parts are the whole."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from services.pricing.api.costs import CostView
from services.pricing.composition import Changes, Layer, compose
from services.pricing.domain import Box, cost
from services.pricing.explaining import Component, components
from services.pricing.scopes import Scope
from shared.db import Sessions
from shared.events import CostBreakdown, VariantLine
from tests.pricing.conftest import START, Api, Customer, Shop, Ticking, publish_config
from tests.pricing.test_rollout import finish

COFFEE, TEA = UUID(int=1), UUID(int=2)
BASE = Layer(
    1,
    START,
    1,
    Scope(),
    Changes(
        Decimal(10),
        {"EUR": {"standard": 450}},
        {"DE": Decimal("0.19"), "US": Decimal(0), "US-CA": Decimal("0.0725")},
    ),
)
GERMANS = Layer(
    2,
    START,
    2,
    Scope(places=("DE",)),
    Changes(tax_rates={"DE": Decimal("0.07")}, variant_prices={"EUR": {COFFEE: 900}}),
)
PICKUP = Layer(
    3,
    START + timedelta(days=1),
    3,
    Scope(delivery_types=("standard",)),
    Changes(Decimal(5), {"EUR": {"standard": 0}}),
)


def priced(*on: Layer, place: str = "DE", discount: int = 0) -> CostBreakdown:
    lines = (
        VariantLine(variant_id=COFFEE, quantity=2, unit_price_minor=900),
        VariantLine(variant_id=TEA, quantity=1, unit_price_minor=333),
    )
    return cost(compose(on), Box("EUR", lines, "standard", place, discount))


def by_part(found: tuple[Component, ...]) -> dict[str, int | None]:
    return {each.part: each.price_version for each in found if each.part != "variant"}


def test_each_part_names_the_last_version_that_says_it() -> None:
    assert by_part(components(priced(BASE), (BASE,))) == {"fee": 1, "delivery": 1, "tax": 1}
    on = (BASE, GERMANS, PICKUP)
    found = components(priced(*on), on)
    assert by_part(found) == {"fee": 3, "tax": 2}  # a delivery of nothing is no line
    named = {each.variant_id: each.price_version for each in found if each.variant_id}
    assert named == {COFFEE: 2, TEA: None}


def test_a_regions_own_rate_comes_before_a_later_rate_of_its_country() -> None:
    later = Layer(4, START, 4, Scope(places=("US",)), Changes(tax_rates={"US": Decimal("0.01")}))
    on = (BASE, later)
    assert by_part(components(priced(*on, place="US-CA"), on))["tax"] == 1


@pytest.mark.parametrize("discount", [0, 100, 100_000])
@pytest.mark.parametrize("inclusive", [frozenset[str](), frozenset({"DE"})])
def test_the_parts_add_up_to_the_total(discount: int, inclusive: frozenset[str]) -> None:
    said = Changes(Decimal("7.77"), {"EUR": {"standard": 451}}, {"DE": Decimal("0.19")}, inclusive)
    base = Layer(1, START, 1, Scope(), said)
    whole = priced(base, discount=discount)
    assert sum(each.amount_minor for each in components(whole, (base,))) == whole.total_minor


async def test_a_day_that_is_over_is_told_alike_whatever_came_after(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    path = f"/subscriptions/{made['id']}/cost"
    first = CostView.model_validate(await api.done("GET", path))
    [line] = await shop.history(UUID(str(made["id"])))
    then = clock.now
    clock.pass_(days=10)
    await publish_config(sessions, clock.now, {"admin_percentage": "20"})
    await finish(sessions, clock)

    assert (first.cost_history_id, first.total_minor) == (line["id"], line["new_total_minor"])
    assert first.recomputed
    assert first.history_hash == line["line_hash"].hex()
    assert sum(part.amount_minor for part in first.components) == first.total_minor
    assert [cause.type for cause in first.causes] == [None, "pricing.config_published"]

    before = CostView.model_validate(
        await api.done("GET", f"{path}?at={(then + timedelta(days=9)).isoformat()[:19]}Z")
    )
    assert before.components == first.components
    now = CostView.model_validate(await api.done("GET", path))
    assert (now.price_versions, now.recomputed) == ([2], True)
    assert now.total_minor > first.total_minor
    # As it was known before the second line was written, the first was in effect today too.
    known = line["recorded_at"].isoformat().replace("+", "%2B")
    assert (await api.done("GET", f"{path}?as_known_at={known}"))["cost_history_id"] == line["id"]


async def test_before_its_first_cost_nothing_was_known(
    api: Api, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    early = await api.ask("GET", f"/subscriptions/{made['id']}/cost?at=2020-01-01T00:00:00Z")
    assert (early.status_code, early.json()["type"]) == (404, "urn:farebox:problem:no-cost-known")
    nobody = await api.ask("GET", f"/subscriptions/{UUID(int=9)}/cost")
    assert nobody.status_code == 404
    vague = await api.ask("GET", f"/subscriptions/{made['id']}/cost?at=2026-03-01")
    assert vague.status_code == 422
