from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from services.loyalty.app import create_web
from services.loyalty.domain import lapses_at
from services.loyalty.handlers import HANDLERS
from shared.api_keys import create_key
from shared.consumer import deliver
from shared.db import Sessions
from shared.events import NAMESPACE
from shared.settings import Settings
from tests.conftest import Database
from tests.loyalty.conftest import JANUARY, paid


@pytest.fixture
def settings(database: Database) -> Settings:
    return Settings(loyalty_database_url=database.url_for("loyalty"), farebox_require_keys=False)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_web(settings, clock=lambda: JANUARY)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://loyalty") as client:
            yield client


async def test_an_account_says_its_balance_its_tier_and_what_is_missing(
    sessions: Sessions, client: httpx.AsyncClient
) -> None:
    customer = uuid4()
    await deliver(
        sessions, "loyalty", HANDLERS, [paid(customer_id=customer, received_minor=60_000)]
    )

    answer = await client.get(f"/accounts/{customer}")

    assert answer.status_code == 200
    assert answer.json() == {
        "user_id": str(customer),
        "balance_points": 600,
        "tier": "silver",
        "tier_until": lapses_at(JANUARY).isoformat().replace("+00:00", "Z"),
        "points_12_months": 600,
        "next_tier": "gold",
        "points_to_next_tier": 1_400,
        "opened_at": JANUARY.isoformat().replace("+00:00", "Z"),
        "revision": 2,
    }


async def test_transactions_are_paged_newest_first_and_name_payment_revision_and_rule(
    sessions: Sessions, client: httpx.AsyncClient
) -> None:
    customer = uuid4()
    facts = [paid(customer_id=customer, received_minor=100 * n) for n in range(1, 6)]
    await deliver(sessions, "loyalty", HANDLERS, [*facts, paid(customer_id=uuid4())])

    seen: list[dict[str, object]] = []
    after = ""
    for _ in range(3):
        page = (await client.get(f"/accounts/{customer}/transactions?limit=2{after}")).json()
        seen += page["items"]
        after = f"&after={page['next']}"

    assert page["next"] is None
    assert [line["points"] for line in seen] == [5, 4, 3, 2, 1]
    assert (seen[0]["payment_id"], seen[0]["event_id"]) == (
        str(facts[-1].payment_id),
        str(facts[-1].id),
    )
    assert (seen[0]["payment_revision"], seen[0]["rule"]) == (1, "2026-01:bronze")


@pytest.mark.parametrize("path", ["", "/transactions"])
async def test_a_customer_who_never_paid_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/accounts/{uuid4()}{path}")

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "opens with the first payment" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/nobody",
        *(
            f"/accounts/{NAMESPACE}/transactions?{q}"
            for q in ("limit=0", "limit=501", "after=0", "after=x", f"after={2**63}")
        ),
    ],
)
async def test_input_that_breaks_a_rule_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_where_keys_are_required_only_the_right_scope_reads(
    settings: Settings, sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        key = await create_key(session, "loyalty", "reader", ["loyalty:read"])
    app = create_web(settings.model_copy(update={"farebox_require_keys": True}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://loyalty") as client:
            path = f"/accounts/{uuid4()}"
            bearer = {"Authorization": f"Bearer {key}"}
            answers = [await client.get(path), await client.get(path, headers=bearer)]

    assert [answer.status_code for answer in answers] == [401, 404]
