"""The write routes as a caller has them: a key, a sandbox behind them, and a fold turned by hand."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.payments.app import create_web
from services.payments.gateway import StripeClient
from services.payments.orders import work
from shared.api_keys import create_key
from shared.db import Sessions, create_engine, create_sessions
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.sandbox.conftest import RunningSandbox

WRITER = "shop"
_numbers = itertools.count(1)


@dataclass
class Caller:
    """A shop's backend: writes with a key of its own, and a new Idempotency-Key for each request."""

    http: httpx.AsyncClient
    service: Service
    sandbox: RunningSandbox
    stripe: StripeClient
    sessions: Sessions
    hands: Hands
    token: str
    answers: list[httpx.Response] = field(default_factory=list)
    folding: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def write(self, path: str, body: object = None, key: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        headers["Idempotency-Key"] = key or f"key {next(_numbers)}"
        answer = await self.http.post(path, json=body if body is not None else {}, headers=headers)
        self.answers.append(answer)
        async with self.folding:
            await self.service.fold_all()
        return answer

    async def paid(self, amount: int = 9_000, **more: object) -> str:
        """A payment that was created and confirmed here; its id."""
        body = {
            "user_id": str(uuid4()),
            "amount_minor": amount,
            "currency": "EUR",
            "payment_method": "pm_card_visa",
            "confirm": True,
            **more,
        }
        answer = await self.write("/payments", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["payment_id"])

    async def payment(self, payment_id: object) -> dict[str, Any]:
        shown: dict[str, Any] = (await self.http.get(f"/payments/{payment_id}")).json()
        return shown

    async def order(self, order_id: object) -> dict[str, Any]:
        shown: dict[str, Any] = (await self.http.get(f"/orders/{order_id}")).json()
        return shown

    def truth(self, stripe_id: object) -> dict[str, Any]:
        """What Stripe itself has of a payment."""
        found: dict[str, Any] = self.sandbox.control("GET", "truth")[str(stripe_id)]
        return found

    def tell(self, stripe_id: object, action: str, **more: object) -> None:
        """Something happens at Stripe that nobody here asked for."""
        self.sandbox.control("POST", "advance", {"stripe_id": stripe_id, "action": action, **more})

    async def hear(self, stripe_id: object) -> None:
        """All of Stripe's events about a payment arrive."""
        page = self.sandbox.client().raw_request("get", "/v1/events", limit=100).data
        about = [
            event
            for event in page["data"]
            if stripe_id
            in (event["data"]["object"]["id"], event["data"]["object"].get("payment_intent"))
        ]
        await self.service.receive(reversed(about))
        await self.service.fold_all()

    async def work(self) -> int:
        """The worker's turns until nothing is due."""
        ended = 0
        while done := await work.run_once(self.service.pool, self.stripe, "test", self.hands):
            ended += done
        await self.service.fold_all()
        return ended


@asynccontextmanager
async def calling(
    database: Database, hands: Hands, service: Service, sandbox: RunningSandbox
) -> AsyncIterator[Caller]:
    settings = Settings(
        database_url=database.url, stripe_api_key="sk_test_orders", stripe_api_base=sandbox.url
    )
    web = create_web(settings, hands)
    engine = create_engine(database.url, "payments")
    sessions = create_sessions(engine)
    async with sessions.begin() as session:
        token = await create_key(session, "payments", WRITER, ["payments:write", "payments:read"])
    stripe = StripeClient("sk_test_orders", sandbox.url)
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as http:
            yield Caller(http, service, sandbox, stripe, sessions, hands, token)
    await stripe.close()
    await engine.dispose()


@pytest.fixture
async def shop(
    database: Database, hands: Hands, service: Service, sandbox: RunningSandbox
) -> AsyncIterator[Caller]:
    async with calling(database, hands, service, sandbox) as opened:
        yield opened


def adhoc(amount: int = 9_000, **more: object) -> dict[str, object]:
    """A payment of any amount, for a user of its own."""
    return {"user_id": str(uuid4()), "amount_minor": amount, "currency": "EUR", **more}
