import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from services.pricing.app import create_web
from services.pricing.rollout import run_once
from shared.auth import SCOPES, create_key
from shared.db import Sessions
from shared.events import ConfigPublished, SubscriptionChanged, SubscriptionCostChanged
from shared.settings import Settings
from tests.conftest import Database
from tests.pricing.conftest import CONFIG, Shop, Ticking, hear_storefront, publish_config

OPEN = {"/healthz", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/openapi.json"}


@dataclass
class Api:
    """The web app on a real database, and a key for each scope."""

    client: httpx.AsyncClient
    keys: dict[str, str]

    async def ask(
        self, method: str, path: str, body: object = None, scope: str | None = None
    ) -> httpx.Response:
        needed = "subscriptions" if path.startswith("/subscriptions") else "pricing"
        right = "read" if method == "GET" or path == "/quotes" else "write"
        key = self.keys[scope or f"{needed}:{right}"]
        return await self.client.request(
            method, path, json=body, headers={"Authorization": f"Bearer {key}"}
        )

    async def done(self, method: str, path: str, body: object = None) -> dict[str, object]:
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        found: dict[str, object] = answer.json()
        return found


@pytest.fixture
async def api(database: Database, sessions: Sessions, clock: Ticking) -> AsyncIterator[Api]:
    async with sessions.begin() as session:
        keys = {s: await create_key(session, "pricing", s, [s]) for s in SCOPES["pricing"]}
    settings = Settings(database_url=database.url, pricing_database_url=database.url_for("pricing"))
    app = create_web(settings, clock)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://pricing",
        ) as client,
    ):
        yield Api(client, keys)


@dataclass
class Customer:
    user: UUID
    address: UUID
    coffee: UUID
    tea: UUID

    def order(self, **changed: object) -> dict[str, object]:
        return {
            "user_id": str(self.user),
            "currency": "USD",
            "billing_interval": "month",
            "variants": [{"variant_id": str(self.coffee), "quantity": 2}],
            "delivery_type": "standard",
            "delivery_address_id": str(self.address),
            "next_delivery_on": "2026-03-05",
        } | changed


@pytest.fixture
async def customer(shop: Shop) -> Customer:
    user = await shop.user()
    return Customer(
        user, await shop.address(user), await shop.variant(1_999), await shop.variant(500)
    )


async def test_every_route_admits_the_callers_of_one_scope_and_nobody_else(
    api: Api, database: Database
) -> None:
    app = create_web(Settings(database_url=database.url))
    routes = [
        (method, route.path)
        for route in iter_route_contexts(app.routes)
        for method in sorted((route.methods or set()) - {"HEAD"})
        if route.path not in OPEN
    ]
    assert len(routes) >= 15
    for method, path in routes:
        assert path is not None
        url = path.replace("{version}", "1").replace("{subscription_id}", str(uuid4()))
        refused = await api.client.request(method, url)
        assert refused.status_code == 401, f"{method} {path} asks for no key"
        area = "subscriptions" if path.startswith("/subscriptions") else "pricing"
        right = "read" if method == "GET" or path == "/quotes" else "write"
        answers = {
            scope: (await api.ask(method, url, scope=scope)).status_code for scope in api.keys
        }
        admitted = {scope for scope, status in answers.items() if status not in (401, 403)}
        assert admitted == {f"{area}:{right}"}, f"{method} {path}"


@pytest.mark.parametrize("authorization", [None, "Bearer fbx_wrong", "Basic eDp5"])
async def test_a_wrong_or_missing_key_is_refused(api: Api, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = await api.client.post("/configs", json=CONFIG, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_scope_too_small_is_refused(api: Api, shop: Shop) -> None:
    answer = await api.ask("POST", "/configs", CONFIG, scope="pricing:read")
    assert (answer.status_code, answer.json()["scope"]) == (403, "pricing:write")
    assert await shop.storefront.fetchval("SELECT count(*) FROM pricing.pricing_configs") == 0


async def test_a_draft_is_published_once_and_rolled_out(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    draft = await api.done("POST", "/configs", CONFIG)
    assert (draft["status"], draft["admin_percentage"], draft["created_by"]) == (
        "draft",
        "10",
        "pricing:write",
    )
    path = f"/configs/{draft['version']}"
    assert (await api.ask("GET", f"{path}/rollout")).status_code == 404

    published = await api.done("POST", f"{path}/publish", {"reason": "spring"})
    assert (published["status"], published["published_by"]) == ("active", "pricing:write")
    again = await api.ask("POST", f"{path}/publish", {"reason": "spring"})
    assert (again.status_code, again.json()["type"]) == (
        409,
        "urn:farebox:problem:already-published",
    )

    [fact] = await shop.facts(ConfigPublished.type)
    assert fact["aggregatetype"] == "pricing.configs"
    assert fact["cause"].startswith("request:")
    while await run_once(sessions, clock):
        pass
    done = await api.done("GET", f"{path}/rollout")
    assert (done["status"], done["listed"], done["todo"]) == ("done", 0, 0)
    page = await api.done("GET", "/configs?limit=1")
    assert page["next"] == str(draft["version"])
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
    ],
)
async def test_a_draft_out_of_bounds_is_refused_and_says_where(
    api: Api, changed: dict[str, object], where: str
) -> None:
    answer = await api.ask("POST", "/configs", CONFIG | changed)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(where)


async def test_versions_follow_each_other_without_gap_or_overlap(
    api: Api, shop: Shop, clock: Ticking
) -> None:
    async def publish(days: int | None) -> httpx.Response:
        draft = await api.done("POST", "/configs", CONFIG)
        at = {} if days is None else {"effective_from": str(clock.now + timedelta(days=days))}
        return await api.ask("POST", f"/configs/{draft['version']}/publish", {"reason": "x"} | at)

    statuses = [(await publish(days)).status_code for days in (None, 10, 5, 5, -1, 4_000)]
    assert statuses == [200, 200, 200, 409, 422, 422]
    rows = await shop.storefront.fetch(
        "SELECT version, effective_from - $1 AS since, effective_to - $1 AS until"
        " FROM pricing.pricing_configs WHERE effective_from IS NOT NULL ORDER BY effective_from",
        clock.now,
    )
    assert [(r["version"], r["since"].days, r["until"] and r["until"].days) for r in rows] == [
        (1, 0, 5),
        (3, 5, 10),
        (2, 10, None),
    ]


async def test_a_subscription_is_created_priced_and_says_so_in_two_facts(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    version = await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    assert (made["total_minor"], made["price_version"], made["period_end"]) == (
        5_253,
        version,
        "2026-04-01T12:00:00Z",
    )
    assert made["created_at"] == "2026-03-01T12:00:00Z"
    assert (await api.done("GET", f"/subscriptions/{made['id']}")) == made

    changed, cost = await shop.facts(SubscriptionChanged.type) + await shop.facts(
        SubscriptionCostChanged.type
    )
    said = [json.loads(fact["body"]) for fact in (changed, cost)]
    assert [(body["revision"], body["customer_id"]) for body in said] == [
        (1, str(customer.user)),
        (2, str(customer.user)),
    ]
    assert (changed["cause"], said[0]["occurred_at"][:19]) == (cost["cause"], "2026-03-01T12:00:00")
    assert (said[1]["kind"], said[1]["changed_by"]) == ("created", "subscriptions:write")

    # The fact comes back to pricing, and finds nothing to do.
    await hear_storefront(shop, sessions)
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1


async def test_another_box_takes_current_prices_and_the_same_box_keeps_its_own(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    await shop.storefront.execute("UPDATE public.product_variants SET price_minor = 3000")
    path = f"/subscriptions/{made['id']}"
    same = await api.done("PUT", f"{path}/variants", {"variants": customer.order()["variants"]})
    assert same == made

    clock.pass_(days=1)
    body = {"variants": [{"variant_id": str(customer.tea), "quantity": 1}]}
    other = await api.done("PUT", f"{path}/variants", body)
    assert (other["total_minor"], other["variants_changed_at"]) == (
        4_076,
        "2026-03-02T12:00:00Z",
    )
    elsewhere = await shop.address(customer.user, "DE")
    delivery = {"delivery_type": "express", "delivery_address_id": str(elsewhere)}
    moved = await api.done("PUT", f"{path}/delivery", delivery)
    assert (moved["total_minor"], moved["next_delivery_on"]) == (5_712, "2026-03-05")

    history = await api.done("GET", f"{path}/history")
    lines = history["items"]
    assert isinstance(lines, list)
    assert [(line["kind"], line["new_total_minor"]) for line in lines] == [
        ("created", 5_253),
        ("variants", 4_076),
        ("delivery", 5_712),
    ]
    assert lines[1]["old_breakdown"] == lines[0]["new_breakdown"]
    first = await api.done("GET", f"{path}/history?limit=2")
    rest = await api.done("GET", f"{path}/history?limit=2&after={first['next']}")
    assert (rest["items"], rest["next"]) == (lines[2:], None)


async def test_pause_resume_and_cancel_each_once(
    api: Api, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    path = f"/subscriptions/{made['id']}"
    answers = [
        await api.ask("POST", f"{path}/{action}")
        for action in ("resume", "pause", "pause", "resume", "cancel", "cancel", "resume", "pause")
    ]
    assert [a.status_code for a in answers] == [409, 200, 409, 200, 200, 409, 409, 409]
    assert answers[2].json()["detail"] == "cannot pause it: the subscription is paused"
    assert answers[4].json()["canceled_at"] == "2026-03-01T12:00:00Z"
    late = await api.ask("PUT", f"{path}/variants", {"variants": customer.order()["variants"]})
    assert late.status_code == 409


@pytest.mark.parametrize(
    ("changed", "slug"),
    [
        ({"user_id": str(uuid4())}, "unknown-user"),
        ({"delivery_address_id": str(uuid4())}, "unknown-address"),
        ({"variants": [{"variant_id": str(uuid4()), "quantity": 1}]}, "unknown-variant"),
        ({"currency": "EUR"}, "unknown-variant"),
        ({"delivery_type": "drone"}, "no-delivery-cost"),
        ({"currency": "XXQ"}, "invalid-input"),
        ({"variants": []}, "invalid-input"),
        ({"variants": [{"variant_id": str(UUID(int=1)), "quantity": 1}] * 2}, "invalid-input"),
        ({"billing_interval": "decade"}, "invalid-input"),
    ],
)
async def test_an_order_that_cannot_be_priced_leaves_nothing_behind(
    api: Api,
    shop: Shop,
    sessions: Sessions,
    customer: Customer,
    changed: dict[str, object],
    slug: str,
) -> None:
    await publish_config(sessions, Ticking().now)
    answer = await api.ask("POST", "/subscriptions", customer.order(**changed))
    assert (answer.status_code, answer.json()["type"]) == (422, f"urn:farebox:problem:{slug}")
    assert await shop.storefront.fetchval("SELECT count(*) FROM public.subscriptions") == 0
    assert await shop.facts(SubscriptionChanged.type) == []


async def test_without_a_version_in_force_nothing_is_sold(api: Api, customer: Customer) -> None:
    answer = await api.ask("POST", "/subscriptions", customer.order())
    assert (answer.status_code, answer.json()["type"]) == (
        409,
        "urn:farebox:problem:no-price-in-force",
    )


async def test_another_users_address_is_refused(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    theirs = await shop.address(await shop.user())
    answer = await api.ask(
        "POST", "/subscriptions", customer.order(delivery_address_id=str(theirs))
    )
    assert answer.json()["type"] == "urn:farebox:problem:unknown-address"


async def test_a_users_subscriptions_are_paged(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = {(await api.done("POST", "/subscriptions", customer.order()))["id"] for _ in range(3)}
    await shop.subscription([(customer.coffee, 1)])
    found: list[object] = []
    after = ""
    for _ in range(2):
        page = await api.done("GET", f"/subscriptions?user_id={customer.user}&limit=2{after}")
        assert isinstance(page["items"], list)
        found += [item["id"] for item in page["items"]]
        after = f"&after={page['next']}"
    assert set(found) == made
    assert page["next"] is None


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
