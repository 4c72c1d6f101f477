import json
from uuid import UUID, uuid4

import pytest

from cli.crosschecks import TWICE
from shared.db import Sessions
from shared.events import SubscriptionChanged, SubscriptionCostChanged
from tests.pricing.conftest import Api, Customer, Shop, Ticking, hear_storefront, publish_config


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


async def test_what_the_storefront_garbled_can_be_read_about_and_mended(
    api: Api, shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    order = customer.order()
    path = f"/subscriptions/{(await api.done('POST', '/subscriptions', order))['id']}"
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET variants = '[{\"quantity\": 0}, 7]'"
    )
    delivery = {key: order[key] for key in ("delivery_type", "delivery_address_id")}
    refused = await api.ask("PUT", f"{path}/delivery", delivery)
    assert (refused.status_code, refused.json()["type"]) == (
        409,
        "urn:farebox:problem:unreadable-subscription",
    )
    await api.done("GET", path)
    await api.done("POST", f"{path}/pause")
    mended = await api.done("PUT", f"{path}/variants", {"variants": order["variants"]})
    assert mended["total_minor"] == 5_253


async def test_two_changes_in_one_clients_trace_have_a_cause_each(
    api: Api, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    api.client.headers["traceparent"] = f"00-{'a' * 32}-{'b' * 16}-01"
    for quantity in (3, 4):
        body = {"variants": [{"variant_id": str(customer.tea), "quantity": quantity}]}
        await api.done("PUT", f"/subscriptions/{made['id']}/variants", body)
    async with sessions() as session:
        lines, repeated = (await session.execute(TWICE["pricing"])).one()
    assert (lines, repeated) == (3, 0)
