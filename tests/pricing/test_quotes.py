"""Quotes for somebody, and what a change within a period would give back and ask for: as it is priced later."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.pricing.api.prorations import ProrationView
from services.pricing.api.quotes import Quote
from shared.db import Sessions
from tests.pricing.conftest import START, Api, Customer, Shop, Ticking, publish_config

# Of these only the first two are about somebody who subscribes today.
COHORTS: tuple[dict[str, object], ...] = (
    {"scope": {"tiers": ["gold"]}, "admin_percentage": "5"},
    {"scope": {"places": ["US"]}, "tax_rates": {"US-CA": "0.07"}},
    {"scope": {"signed_up_before": START.isoformat()}, "admin_percentage": "40"},
)


async def make_gold(shop: Shop, user: UUID) -> None:
    await shop.storefront.execute(
        "INSERT INTO pricing.user_tiers (user_id, tier, revision) VALUES ($1, 'gold', 1)", user
    )


def basket(customer: Customer, **changed: object) -> dict[str, object]:
    order = customer.order()
    taken = {key: order[key] for key in ("currency", "variants", "delivery_type")}
    return taken | {"place": "US-CA"} | changed


async def quoted(api: Api, body: Mapping[str, object]) -> Quote:
    return Quote.model_validate(await api.done("POST", "/quotes", dict(body)))


async def test_a_quote_for_a_customer_is_what_his_tier_and_his_place_make_it(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    another = await shop.subscription([(customer.coffee, 1)])
    listed: dict[str, object] = {
        "scope": {"subscriptions": [str(another)]},
        "admin_percentage": "50",
    }
    for cohort in (*COHORTS, listed):
        await publish_config(sessions, clock.now, cohort)
    nobody = await quoted(api, basket(customer))
    bronze = await quoted(api, basket(customer, user_id=str(customer.user)))
    await make_gold(shop, customer.user)
    theirs = {"place": None, "delivery_address_id": str(customer.address)}
    gold = await quoted(api, basket(customer, user_id=str(customer.user), **theirs))
    assert [each.tier for each in (nobody, bronze, gold)] == ["bronze", "bronze", "gold"]
    assert nobody.breakdown == bronze.breakdown
    assert [nobody.price_versions, gold.price_versions] == [[1, 3], [1, 2, 3]]
    made = await api.done("POST", "/subscriptions", customer.order())
    assert made["cost_breakdown"] == gold.breakdown.model_dump(mode="json")
    assert made["price_version"] == gold.price_version == 3


async def test_a_day_that_is_over_is_quoted_at_its_own_prices(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    clock.now = datetime.now(UTC)  # the storefront's log is kept by the database's clock
    await shop.storefront.execute(
        "UPDATE public.product_variants SET price_minor = 2 WHERE id = $1", customer.coffee
    )
    noted = await shop.storefront.fetchval(
        "SELECT max(effective_at) FROM pricing.catalogue_prices WHERE variant_id = $1",
        customer.coffee,
    )
    clock.pass_(hours=1)
    before = (noted - timedelta(microseconds=1)).isoformat()
    prices = [
        (await quoted(api, basket(customer, at=at))).breakdown.variants[0].unit_price_minor
        for at in (before, noted.isoformat(), (clock.now + timedelta(days=9)).isoformat(), None)
    ]
    assert prices == [1_999, 2, 2, 2]
    early = await api.ask("POST", "/quotes", basket(customer, at=START.isoformat()))
    assert (early.status_code, early.json()["type"]) == (422, "urn:farebox:problem:unknown-variant")


async def test_a_quote_for_a_stranger_or_to_anothers_address_is_refused(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    stranger = await api.ask("POST", "/quotes", basket(customer, user_id=str(uuid4())))
    assert (stranger.status_code, stranger.json()["title"]) == (422, "There is no such user")
    elsewhere = {"place": None, "delivery_address_id": str(customer.address)}
    another = basket(customer, user_id=str(await shop.user()), **elsewhere)
    assert (await api.ask("POST", "/quotes", another)).status_code == 422


async def prorate(
    api: Api, subscription: object, change: Mapping[str, object]
) -> tuple[int, dict[str, object]]:
    path = f"/subscriptions/{subscription}/proration"
    answer = await api.ask("POST", path, dict(change), "subscriptions:read")
    return answer.status_code, answer.json()


@pytest.fixture(params=["day", "second"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FAREBOX_PRORATION", request.param)
    return str(request.param)


async def test_a_change_within_a_period_is_prorated_from_the_price_it_has_to_the_one_it_gets(
    by: str, api: Api, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    clock.now = START + timedelta(
        days=21, hours=18
    )  # 23 March, 06:00: 9 of 31 days, 9.25 by the second
    tea = {"variants": [{"variant_id": str(customer.tea), "quantity": 3}]}
    status, said = await prorate(api, made["id"], tea)
    assert status == 200, said
    found = ProrationView.model_validate(said)
    assert (found.by, found.left, found.whole) == {
        "day": ("day", 9, 31),
        "second": ("second", 9 * 86_400 + 21_600, 31 * 86_400),
    }[by]
    # 52.53 and 23.06 USD
    assert found.old_breakdown.total_minor == made["total_minor"] == 5_253
    assert (found.new_breakdown.total_minor, found.net_minor) == {
        "day": (2_306, 669 - 1_525),
        "second": (2_306, 688 - 1_567),
    }[by]
    assert found.net_minor == found.charge_minor - found.credit_minor
    assert sum(line.amount_minor for line in found.credit_lines) == found.credit_minor
    assert sum(line.amount_minor for line in found.charge_lines) == found.charge_minor
    changed = await api.done("PUT", f"/subscriptions/{made['id']}/variants", tea)
    assert changed["cost_breakdown"] == found.new_breakdown.model_dump(mode="json")


async def test_every_part_of_a_change_counts_and_the_same_again_costs_nothing(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    clock.pass_(days=5)
    # What is on the subscription counts, not what the catalogue says meanwhile.
    await shop.storefront.execute("UPDATE public.product_variants SET price_minor = 1")
    same = {"variants": customer.order()["variants"], "delivery_type": "standard"}
    for change in ({}, same):
        _, said = await prorate(api, made["id"], change)
        assert (said["net_minor"], said["credit_minor"]) == (0, said["charge_minor"])
        assert said["new_breakdown"] == said["old_breakdown"] == made["cost_breakdown"]
    _, free = await prorate(api, made["id"], {"loyalty_discount_minor": 10**6})
    assert (free["charge_minor"], free["net_minor"]) == (0, -int(str(free["credit_minor"])))
    _, picked_up = await prorate(api, made["id"], {"delivery_type": "pickup"})
    delivery = [line for line in picked_up["charge_lines"] if line["what"] == "delivery"]  # type: ignore[attr-defined]
    assert delivery == [{"what": "delivery", "amount_minor": 0}]
    there = await shop.address(customer.user, "DE")
    _, abroad = await prorate(api, made["id"], {"delivery_address_id": str(there)})
    assert abroad["new_breakdown"]["place"] == "DE"  # type: ignore[index]
    [line] = await shop.history(UUID(str(made["id"])))
    assert line["new_total_minor"] == made["total_minor"]  # nothing is stored


async def test_what_cannot_be_prorated_says_why(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    unpriced = await shop.subscription([(customer.coffee, 1)])
    endless = await api.done("POST", "/subscriptions", customer.order())
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = NULL WHERE id = $1", UUID(str(endless["id"]))
    )
    over = await api.done("POST", "/subscriptions", customer.order())
    await api.done("POST", f"/subscriptions/{over['id']}/cancel")
    refused = {
        (made["id"], "at"): (START + timedelta(days=40)).isoformat(),
        (made["id"], "delivery_address_id"): str(uuid4()),
        (made["id"], "delivery_type"): "drone",
        (made["id"], "price"): "1",
        (endless["id"], "at"): None,
        (over["id"], "at"): None,
        (unpriced, "at"): None,
        (uuid4(), "at"): None,
    }
    said = [await prorate(api, which, {key: value}) for (which, key), value in refused.items()]
    assert [(status, str(body["type"]).rpartition(":")[2]) for status, body in said] == [
        (422, "not-in-this-period"),
        (422, "unknown-address"),
        (422, "no-delivery-cost"),
        (422, "invalid-input"),
        (422, "not-in-this-period"),
        (409, "not-in-this-state"),
        (409, "not-priced-yet"),
        (404, "subscription-not-found"),
    ]


@pytest.mark.parametrize("end", ["infinity", "9999-12-31T23:59:59Z", "12000-01-01"])
async def test_a_period_that_no_calendar_holds_is_refused_and_its_cost_told(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer, end: str
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    await shop.storefront.execute(
        f"UPDATE public.subscriptions SET period_end = '{end}' WHERE id = $1",
        UUID(str(made["id"])),
    )
    status, body = await prorate(api, made["id"], {})
    assert (status, body["type"]) == (422, "urn:farebox:problem:not-in-this-period")
    told = await api.done("GET", f"/subscriptions/{made['id']}/cost")
    assert told["total_minor"] == made["total_minor"]
    file = f"/cost-history.csv?subscription_id={made['id']}"
    assert (await api.ask("GET", file, scope="subscriptions:read")).status_code == 200
