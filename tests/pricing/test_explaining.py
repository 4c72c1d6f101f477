"""What a subscription cost, at an instant, as known at another; and that the parts are the whole."""

from datetime import UTC, datetime, timedelta
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
from tests.pricing.conftest import (
    START,
    Api,
    Customer,
    Shop,
    Ticking,
    hear_storefront,
    publish_config,
)
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
    assert by_part(components(priced(BASE), (BASE,), {})) == {"fee": 1, "delivery": 1, "tax": 1}
    on = (BASE, GERMANS, PICKUP)
    found = components(priced(*on), on, {})
    assert by_part(found) == {"fee": 3, "tax": 2}  # a delivery of nothing is no line
    named = {each.variant_id: each.price_version for each in found if each.variant_id}
    assert named == {COFFEE: 2, TEA: None}


def test_a_regions_own_rate_comes_before_a_later_rate_of_its_country() -> None:
    later = Layer(4, START, 4, Scope(places=("US",)), Changes(tax_rates={"US": Decimal("0.01")}))
    on = (BASE, later)
    assert by_part(components(priced(*on, place="US-CA"), on, {}))["tax"] == 1


@pytest.mark.parametrize("discount", [0, 100, 100_000])
@pytest.mark.parametrize("inclusive", [frozenset[str](), frozenset({"DE"})])
def test_the_parts_add_up_to_the_total(discount: int, inclusive: frozenset[str]) -> None:
    said = Changes(Decimal("7.77"), {"EUR": {"standard": 451}}, {"DE": Decimal("0.19")}, inclusive)
    base = Layer(1, START, 1, Scope(), said)
    whole = priced(base, discount=discount)
    assert sum(each.amount_minor for each in components(whole, (base,), {})) == whole.total_minor


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
    for vague in ("2026-03-01", "1772366400", "now"):
        answer = await api.ask("GET", f"/subscriptions/{made['id']}/cost?at={vague}")
        assert answer.status_code == 422


async def test_a_late_rollout_says_nothing_of_a_box_that_was_not_there_yet(
    api: Api, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    path = f"/subscriptions/{(await api.done('POST', '/subscriptions', customer.order()))['id']}"
    published = clock.pass_(days=3)
    await publish_config(sessions, published, {"admin_percentage": "20"})
    changed = clock.pass_(minutes=3)
    tea = {"variants": [{"variant_id": str(customer.tea), "quantity": 1}]}
    await api.done("PUT", f"{path}/variants", tea)
    clock.pass_(minutes=3)
    await finish(sessions, clock)

    async def asked(at: datetime) -> tuple[int, list[int], str]:
        moment = at.isoformat().replace("+", "%2B")
        found = CostView.model_validate(await api.done("GET", f"{path}/cost?at={moment}"))
        return found.cost_history_id, found.price_versions, found.components[0].detail

    assert await asked(published) == (1, [1], "2 × 1999")
    assert await asked(changed - timedelta(microseconds=1)) == (1, [1], "2 × 1999")
    assert await asked(changed) == (3, [2], "1 × 500")


async def test_each_part_names_what_brought_it(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    subscription = UUID(str(made["id"]))
    clock.pass_(days=1)
    await shop.storefront.execute(
        "SELECT set_config('farebox.now', $1, false)", clock.now.isoformat()
    )
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET loyalty_discount_minor = 300 WHERE id = $1", subscription
    )
    await hear_storefront(shop, sessions)
    path = f"/subscriptions/{subscription}"
    both = [{"variant_id": str(v), "quantity": 2} for v in (customer.coffee, customer.tea)]
    await api.done("PUT", f"{path}/variants", {"variants": both})
    await publish_config(sessions, clock.pass_(days=1), {"admin_percentage": "20"})
    await finish(sessions, clock)
    found = CostView.model_validate(await api.done("GET", f"{path}/cost"))
    created, discount, tea, config = await shop.history(subscription)
    brought = {str(part.variant_id or part.part): part.cause_id for part in found.components}
    assert brought == {
        str(customer.coffee): created["cause_id"],
        str(customer.tea): tea["cause_id"],
        "discount": discount["cause_id"],
        **dict.fromkeys(("fee", "delivery", "tax"), config["cause_id"]),
    }
    types = {cause.id: cause.type for cause in found.causes}
    assert types == {
        created["cause_id"]: None,
        tea["cause_id"]: None,
        discount["cause_id"]: "pricing.subscription_changed",
        config["cause_id"]: "pricing.config_published",
    }
    assert found.canceled_at is None
    canceled = clock.pass_(days=1)
    await api.done("POST", f"{path}/cancel")
    gone = CostView.model_validate(await api.done("GET", f"{path}/cost"))
    assert (gone.cost_history_id, gone.canceled_at) == (found.cost_history_id, canceled)


# What somebody with all rights made of the only line, and what is said of it.
FORGED = {
    "new_total_minor = 1": "says 1 USD and 5253 USD",
    "new_breakdown = jsonb_set(new_breakdown, '{admin_percentage}', '11')": "recomputed it is 5",
    "new_breakdown = jsonb_set(new_breakdown, '{price_versions}', '[9]')": "price version 9, which",
    "new_breakdown = jsonb_set(new_breakdown, '{place}', '\"XX\"')": "no tax rate",
}


async def test_a_line_that_is_wrong_is_told_as_it_is_and_said_to_be_wrong(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    path = f"/subscriptions/{made['id']}/cost"
    owner = shop.storefront
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("CREATE TEMP TABLE kept AS SELECT * FROM pricing.subscription_cost_history")
    for forged, says in FORGED.items():
        await owner.execute(f"UPDATE pricing.subscription_cost_history SET {forged}")
        found = CostView.model_validate(await api.done("GET", path))
        assert (found.recomputed, says in (found.fault or "")) == (False, True), found.fault
        await owner.execute(
            "UPDATE pricing.subscription_cost_history h SET new_breakdown = k.new_breakdown,"
            " new_total_minor = k.new_total_minor FROM kept k"
        )
    assert (await api.done("GET", path))["fault"] is None
    await owner.execute("UPDATE pricing.subscription_cost_history SET new_breakdown = '{}'")
    nothing = await api.ask("GET", path)
    assert (nothing.status_code, nothing.json()["type"]) == (
        409,
        "urn:farebox:problem:unreadable-line",
    )


# In dinars, as the first releases wrote them: no composition, and to the fils, which nobody can pay.
OF_BEFORE = """
UPDATE pricing.subscription_cost_history SET line_hash = NULL, new_total_minor = 1636, new_breakdown =
    (new_breakdown - '{price_versions,tax_inclusive,rounding_minor}'::text[]) || '{"total_minor": 1636}'
"""


async def test_a_line_of_the_first_releases_gives_its_cents_again(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    dinars = {"delivery_cost_minor": {"KWD": {"standard": 455}}, "tax_rates": {"KW": "0.05"}}
    await publish_config(sessions, START - timedelta(days=300), dinars)
    variant = await shop.variant(1_003, "KWD")
    subscription = await shop.subscription([(variant, 1)], currency="KWD", place="KW")
    await hear_storefront(shop, sessions)
    clock.now = datetime.now(UTC)
    await shop.storefront.execute("SET session_replication_role = replica")
    await shop.storefront.execute(OF_BEFORE)
    found = CostView.model_validate(await api.done("GET", f"/subscriptions/{subscription}/cost"))
    assert (found.total_minor, found.fault) == (1_636, None)
