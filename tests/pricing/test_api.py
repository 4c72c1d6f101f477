from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from services.pricing.rollout import run_once
from shared.db import Sessions
from shared.events import ConfigPublished
from tests.pricing.conftest import CONFIG, Api, Customer, Shop, Ticking, publish_config


@pytest.mark.parametrize("authorization", [None, "Bearer fbx_wrong", "Basic eDp5"])
async def test_a_wrong_or_missing_key_is_refused(api: Api, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = await api.client.post("/drafts", json=CONFIG, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_scope_too_small_is_refused(api: Api, shop: Shop) -> None:
    answer = await api.ask("POST", "/drafts", CONFIG, scope="pricing:read")
    assert (answer.status_code, answer.json()["scope"]) == (403, "pricing:write")
    assert await shop.storefront.fetchval("SELECT count(*) FROM pricing.pricing_configs") == 0


async def test_a_draft_is_published_once_and_rolled_out(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    version, digest = await api.approved(CONFIG)
    assert (await api.ask("GET", f"/configs/{version}/rollout")).status_code == 404

    order = {"hash": digest, "reason": "spring"}
    published = await api.done("POST", f"/drafts/{version}/publish", order)
    assert (published["status"], published["published_by"]) == ("active", "pricing:write")
    again = await api.ask("POST", f"/drafts/{version}/publish", order)
    assert (again.status_code, again.json()["type"]) == (
        409,
        "urn:farebox:problem:already-published",
    )

    [fact] = await shop.facts(ConfigPublished.type)
    assert fact["aggregatetype"] == "pricing.configs"
    assert fact["cause"].startswith("request:")
    while await run_once(sessions, clock):
        pass
    done = await api.done("GET", f"/configs/{version}/rollout")
    assert (done["status"], done["listed"], done["todo"]) == ("done", 0, 0)
    page = await api.done("GET", "/configs?limit=1")
    assert page["next"] == str(version)
    assert (await api.done("GET", f"/configs?after={page['next']}"))["items"] == []


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"admin_percentage": "0.09"}, "/body/admin_percentage"),
        ({"admin_percentage": "50.1"}, "/body/admin_percentage"),
        ({"admin_percentage": 12.5}, "/body/admin_percentage"),
        ({"delivery_cost_minor": {"XXQ": {"standard": 1}}}, "/body/delivery_cost_minor"),
        ({"tax_rates": {"DE": "1.5"}}, "/body/tax_rates"),
        ({"surprise": 1}, "/body/surprise"),
        ({"admin_percentage": None}, "/body"),
        ({"scope": {"places": ["Germany"]}}, "/body/scope/places"),
        ({"timing": {"when": "soon"}}, "/body/timing/when"),
        ({"drift_limit_percent": "100.01"}, "/body/drift_limit_percent"),
        ({"variant_prices_minor": {"USD": {str(uuid4()): -1}}}, "/body/variant_prices_minor"),
    ],
)
async def test_a_draft_out_of_bounds_is_refused_and_says_where(
    api: Api, changed: dict[str, object], where: str
) -> None:
    answer = await api.ask("POST", "/drafts", CONFIG | changed)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(where)


async def test_versions_follow_each_other_without_gap_or_overlap(
    api: Api, shop: Shop, clock: Ticking
) -> None:
    async def publish(days: int | None) -> httpx.Response:
        at = {} if days is None else {"effective_from": str(clock.now + timedelta(days=days))}
        version, digest = await api.approved({**CONFIG, **at})
        order = {"hash": digest, "reason": "x"}
        return await api.ask("POST", f"/drafts/{version}/publish", order)

    assert [(await publish(days)).status_code for days in (None, 10, 5, 5)] == [200, 200, 200, 409]
    rows = await shop.storefront.fetch(
        "SELECT version, effective_from - $1 AS since, effective_to - $1 AS until"
        " FROM pricing.pricing_configs WHERE published_at IS NOT NULL ORDER BY effective_from",
        clock.now,
    )
    assert [(r["version"], r["since"].days, r["until"] and r["until"].days) for r in rows] == [
        (1, 0, 5),
        (3, 5, 10),
        (2, 10, None),
    ]


@pytest.mark.parametrize(
    "at", ["2026-02-28T12:00:00Z", "2037-01-01T00:00:00Z", "9999-12-31T00:00:00Z"]
)
async def test_a_draft_takes_effect_neither_in_the_past_nor_in_a_far_future(
    api: Api, at: str
) -> None:
    answer = await api.ask("POST", "/drafts", {**CONFIG, "effective_from": at})
    assert answer.status_code == 422, answer.text


async def test_a_draft_names_nobody_and_nothing_that_is_not_there(api: Api, shop: Shop) -> None:
    coffee = await shop.variant(1_000)
    there, gone = str(await shop.subscription([(coffee, 1)])), str(uuid4())
    made = await api.done("POST", "/drafts", {"scope": {"subscriptions": [there]}})
    for scope, type_ in (
        ({"subscriptions": [there, gone]}, "unknown-subscription"),
        ({"variants": [gone, str(coffee)]}, "unknown-variant"),
    ):
        for method, path in (("POST", "/drafts"), ("PUT", f"/drafts/{made['version']}")):
            refused = await api.ask(method, path, {"scope": scope})
            assert refused.status_code == 422
            assert refused.json()["type"] == f"urn:farebox:problem:{type_}"
            assert gone in refused.json()["detail"]


async def test_a_quote_is_what_the_subscription_will_cost(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    later = clock.now + timedelta(days=7)
    await publish_config(sessions, clock.now, {"admin_percentage": "20"}, later)
    order = customer.order()
    basket = {key: order[key] for key in ("currency", "variants", "delivery_type")}
    quotes = [
        await api.done("POST", "/quotes", basket | where)
        for where in (
            {"delivery_address_id": str(customer.address)},
            {"place": "US-CA"},
            {"place": "US-CA", "at": later.isoformat()},
            {"place": "US-CA", "loyalty_discount_minor": 9_999},
        )
    ]
    made = await api.done("POST", "/subscriptions", order)
    assert quotes[0]["breakdown"] == quotes[1]["breakdown"] == made["cost_breakdown"]
    totals = [q["breakdown"]["total_minor"] for q in quotes]  # type: ignore[index]
    assert totals == [5_253, 5_253, 5_682, 0]
    assert [q["price_version"] for q in quotes] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"place": "FR"}, 422),
        ({"delivery_address_id": str(uuid4()), "place": None}, 422),
        ({"delivery_address_id": str(uuid4())}, 422),
        ({"place": None}, 422),
        ({"loyalty_discount_minor": -1}, 422),
        ({"at": "2020-01-01T00:00:00Z"}, 409),
        ({"at": "2020-01-01T00:00:00"}, 422),
        ({"at": "9999-12-31T23:59:59-23:00"}, 422),
    ],
)
async def test_a_quote_that_has_no_answer_says_why(
    api: Api,
    sessions: Sessions,
    clock: Ticking,
    customer: Customer,
    changed: dict[str, object],
    status: int,
) -> None:
    await publish_config(sessions, clock.now)
    basket = {key: customer.order()[key] for key in ("currency", "variants", "delivery_type")}
    body = basket | {"place": "US-CA"} | changed
    answer = await api.ask("POST", "/quotes", body)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)
