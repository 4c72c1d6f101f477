"""Renewals and payment methods over HTTP, and the worker's own loop."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest

from services.payments.app import create_web, loops
from shared.api_keys import create_key
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.renewals.conftest import World
from tests.payments.renewals.test_stories import PERIOD

METHOD = {"stripe_customer_id": "cus_1", "stripe_payment_method_id": "pm_1"}


@dataclass
class Api:
    client: httpx.AsyncClient
    keys: dict[str, str]

    async def put(self, path: str, body: object, scope: str = "write") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[scope]}"}
        return await self.client.put(path, json=body, headers=headers)


@pytest.fixture
async def api(world: World, database: Database) -> AsyncIterator[Api]:
    async with world.payments.begin() as session:
        keys = {
            scope: await create_key(session, "payments", scope, [f"payments:{scope}"])
            for scope in ("read", "write")
        }
    web = create_web(Settings(database_url=database.url), world.clock)
    async with (
        web.app.router.lifespan_context(web.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://payments") as client,
    ):
        yield Api(client, keys)


async def test_a_method_is_put_once_and_replaced_by_another(api: Api) -> None:
    path = f"/customers/{uuid4()}/payment-method"
    assert (await api.client.get(path)).status_code == 404
    revisions = []
    for body in (METHOD, METHOD, {**METHOD, "stripe_payment_method_id": "pm_2"}):
        answer = await api.put(path, body)
        assert answer.status_code == 200, answer.text
        revisions.append(answer.json()["revision"])
    assert revisions == [1, 1, 2]
    shown = (await api.client.get(path)).json()
    assert (shown["stripe_payment_method_id"], shown["account"]) == ("pm_2", None)


@pytest.mark.parametrize(
    ("body", "scope", "status"),
    [
        (METHOD, "read", 403),
        ({**METHOD, "stripe_customer_id": "4242424242424242"}, "write", 422),
        ({**METHOD, "card": "4242424242424242"}, "write", 422),
        ({"stripe_customer_id": "cus_1"}, "write", 422),
    ],
)
async def test_a_method_is_refused(api: Api, body: object, scope: str, status: int) -> None:
    answer = await api.put(f"/customers/{uuid4()}/payment-method", body, scope)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_renewals_are_listed_the_latest_first_and_shown(world: World, api: Api) -> None:
    good = await world.subscribe(await world.customer("success"))
    bad = await world.subscribe(await world.customer("expired_card"))
    for end in PERIOD[1:3]:
        await world.at(end)
    listed = (await api.client.get("/renewals", params={"limit": 2})).json()
    rest = (await api.client.get("/renewals", params={"after": listed["next"]})).json()
    assert (len(listed["items"]), rest["next"]) == (2, None)
    starts = [each["period_start"] for each in [*listed["items"], *rest["items"]]]
    assert starts == sorted(starts, reverse=True)
    own = (await api.client.get("/renewals", params={"subscription_id": str(good)})).json()
    assert [each["status"] for each in own["items"]] == ["paid", "paid"]
    given_up = (await api.client.get("/renewals", params={"status": "given_up"})).json()
    [shown] = given_up["items"]
    assert (shown["subscription_id"], shown["failure_code"]) == (str(bad), "expired_card")
    assert (await api.client.get(f"/renewals/{shown['id']}")).json() == shown
    payment = (await api.client.get(f"/payments/{shown['payment_id']}")).json()
    assert (payment["status"], payment["stripe_id"]) == ("canceled", shown["stripe_payment_id"])


async def test_a_renewal_nobody_knows_is_said_to_be_so(api: Api) -> None:
    assert (await api.client.get(f"/renewals/{uuid4()}")).status_code == 404
    assert (await api.client.get("/renewals", params={"after": str(uuid4())})).status_code == 422


async def test_the_worker_renews_only_when_asked_to(world: World, database: Database) -> None:
    settings = Settings(database_url=database.url, stripe_api_key="sk_test_x")
    assert len(loops(settings, world.payments)) + 1 == len(
        loops(settings.model_copy(update={"farebox_renewals": True}), world.payments)
    )


async def test_the_workers_loops_renew_what_is_due(world: World, database: Database) -> None:
    """On the wall's clock, with nothing turned by hand but the facts between the services."""
    world.sandbox.control("POST", "clock", {"now": None})
    subscription = await world.subscribe(await world.customer("success"))
    await world.settle()
    # What the test's own hands held; the workers would wait until it has run out.
    await world.owner.execute("DELETE FROM payments.leases")
    settings = Settings(
        database_url=database.url,
        stripe_api_key="sk_test_x",
        stripe_api_base=world.sandbox.url,
        farebox_renewals=True,
    )
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for loop in loops(settings, world.payments):
            group.create_task(loop(stop))  # type: ignore[arg-type]
        while not await world.told(subscription):
            await asyncio.sleep(0.1)
        stop.set()
    [told] = await world.told(subscription)
    assert told["status"] == "paid"
