"""Pricing, payments and Stripe's stand-in side by side on one database and one clock that a test turns.

Facts travel from one outbox to the other service's handlers, through its inbox, as relay and consumer carry them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import orjson
import pytest

from services.payments import fold
from services.payments.gateway import StripeClient, open_envelope
from services.payments.handlers import HANDLERS as PAYMENTS
from services.payments.orders import work as orders
from services.payments.renewals import work
from services.payments.renewals.methods import Method, put_method
from services.payments.renewals.outcomes import Rules
from services.payments.store import Arrival, insert
from services.pricing.costs import Why
from services.pricing.domain import Action
from services.pricing.handlers import HANDLERS as PRICING
from services.pricing.rollout import run_once as roll_out
from services.pricing.subscriptions import Delivery, Order, change_status, create_subscription
from shared.consumer import Handlers, deliver
from shared.db import Sessions, create_engine, create_sessions, raw_pool
from shared.events import EVENTS, BillingInterval, BoxLine, Event
from shared.trace import Cause
from tests.conftest import Database
from tests.payments.conftest import Hands
from tests.pricing.conftest import Shop, publish_config
from tests.sandbox.conftest import PLAIN, RunningSandbox, sandbox

__all__ = ["sandbox"]

START = datetime(2026, 1, 31, 9, tzinfo=UTC)
# More turns than any story here takes: one that never comes to rest is a fault.
MOST_TURNS = 200
RULES = Rules(ZoneInfo("UTC"), (1, 3, 5, 7), pause_when_given_up=False)


@dataclass
class World:
    """Everything between a price and a charge; `settle` lets it come to rest at the clock's present."""

    owner: asyncpg.Connection
    shop: Shop
    pool: asyncpg.Pool
    payments: Sessions
    pricing: Sessions
    sandbox: RunningSandbox
    client: StripeClient
    clock: Hands
    rules: Rules = RULES
    carried: dict[str, int] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)

    @property
    def now(self) -> datetime:
        return self.clock.now

    async def pass_(self, **time: float) -> None:
        """Let the time go by, then let the world come to rest."""
        await self.at(self.clock.now + timedelta(**time))

    async def at(self, moment: datetime) -> None:
        self.clock.now = moment
        self.sandbox.control("POST", "clock", {"now": moment.isoformat()})
        await self.settle()

    def steps(self) -> Sequence[Callable[[], Awaitable[int]]]:
        turn = work.Renewals(self.pool, self.payments, self.rules, "test")
        return (
            lambda: roll_out(self.pricing, self.clock),
            lambda: self.carry("pricing", "payments", self.payments, PAYMENTS),
            lambda: self.carry("pricing", "pricing", self.pricing, PRICING),
            lambda: work.run_once(turn, self.clock),
            lambda: orders.run_once(self.pool, self.client, "test", self.clock),
            lambda: fold.run_once(self.pool, "test", self.clock),
            lambda: self.carry("payments", "pricing", self.pricing, PRICING),
        )

    async def settle(self) -> None:
        for _ in range(MOST_TURNS):
            done = [await step() for step in self.steps()]
            if not any(done):
                return
        raise AssertionError(f"the world does not come to rest: {done}")

    async def carry(self, source: str, consumer: str, sessions: Sessions, to: Handlers) -> int:
        """Facts said since the last time, in order."""
        lane = f"{source}>{consumer}"
        rows = await self.owner.fetch(
            f"SELECT position, type, payload::text FROM {source}.outbox"
            " WHERE position > $1 ORDER BY position LIMIT 500",
            self.carried.get(lane, 0),
        )
        facts: list[Event] = [
            EVENTS[row["type"]].model_validate_json(row["payload"])
            for row in rows
            if EVENTS[row["type"]] in to
        ]
        if facts:
            await deliver(sessions, consumer, to, facts)
        if rows:
            self.carried[lane] = rows[-1]["position"]
        return len(rows)

    async def hear_stripe(self) -> None:
        """Every event that Stripe has made since, as its webhooks would bring them."""
        listed = self.listed("events", {"limit": "100"})["data"]
        events = [event for event in listed if event["id"] not in self.heard]
        self.heard |= {event["id"] for event in events}
        bodies = [orjson.dumps(event) for event in reversed(events)]
        async with self.pool.acquire() as connection:
            await insert(connection, [Arrival(open_envelope(b), b, None) for b in bodies])
        await self.settle()

    async def customer(self, *outcomes: str) -> UUID:
        """A user of the shop; with outcomes, one whose card answers with these in turn."""
        user = await self.shop.user()
        if outcomes:
            await self.give_card(user, *outcomes)
        return user

    async def give_card(self, user: UUID, *outcomes: str) -> None:
        made = self.sandbox.control("POST", "customers", {"outcomes": list(outcomes)})
        async with self.payments.begin() as session:
            method = Method(made["customer"], made["payment_method"])
            await put_method(session, user, method, self.now)

    async def subscribe(
        self, user: UUID, *, price_minor: int = 1_000, interval: BillingInterval = "month"
    ) -> UUID:
        variant = await self.shop.variant(price_minor)
        address = await self.shop.address(user)
        order = Order(
            user_id=user,
            currency="USD",
            billing_interval=interval,
            lines=(BoxLine(variant_id=variant, quantity=1),),
            delivery=Delivery("standard", address),
        )
        async with self.pricing.begin() as session:
            return await create_subscription(session, order, self.why())

    async def act(self, subscription: UUID, action: Action) -> None:
        async with self.pricing.begin() as session:
            await change_status(session, subscription, action, self.why())

    async def by_storefront(self, subscription: UUID, change: str) -> None:
        """As the storefront's SQL writes it, at the clock's time."""
        async with self.owner.transaction():
            await self.owner.execute(
                "SELECT set_config('farebox.now', $1, true)", self.now.isoformat()
            )
            await self.owner.execute(
                f"UPDATE public.subscriptions SET {change} WHERE id = $1", subscription
            )

    async def publish(self, percentage: str, effective_from: datetime | None = None) -> int:
        """New prices, in force at once unless a later moment is given."""
        changed = {"admin_percentage": percentage}
        return await publish_config(self.pricing, self.now, changed, effective_from)

    def why(self) -> Why:
        return Why("test", Cause(f"request:{uuid4()}"), self.now)

    async def subscription(self, subscription: UUID) -> asyncpg.Record:
        return await self.shop.row(subscription)

    async def renewals(self, subscription: UUID | None = None) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.owner.fetch(
            "SELECT * FROM payments.renewals WHERE $1::uuid IS NULL OR subscription_id = $1"
            " ORDER BY subscription_id, period_start",
            subscription,
        )
        return rows

    async def told(self, subscription: UUID) -> list[dict[str, Any]]:
        """What was said of its renewals, in order."""
        rows = await self.owner.fetch(
            "SELECT payload::text AS body FROM payments.outbox"
            " WHERE type = 'payments.renewal_changed' AND payload ->> 'subscription_id' = $1"
            " ORDER BY position",
            str(subscription),
        )
        return [orjson.loads(row["body"]) for row in rows]

    def charges(self) -> dict[str, list[int]]:
        """What Stripe took, by renewal."""
        taken: dict[str, list[int]] = {}
        for payment in self.intents():
            if payment["status"] == "succeeded":
                taken.setdefault(payment["metadata"]["farebox_renewal"], []).append(
                    payment["amount_received"]
                )
        return taken

    async def intents_of(self, user: UUID) -> list[dict[str, Any]]:
        customer = await self.owner.fetchval(
            "SELECT stripe_customer_id FROM payments.payment_methods WHERE user_id = $1", user
        )
        found: list[dict[str, Any]] = self.listed("payment_intents", {"customer": customer})["data"]
        return found

    def intents(self) -> list[dict[str, Any]]:
        """Every payment that the stand-in has, but for those of the tests before."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True, "data": []}
        while page["has_more"]:
            after = {"starting_after": page["data"][-1]["id"]} if page["data"] else {}
            page = self.listed("payment_intents", {"limit": "100", **after})
            found += page["data"]
        return found

    def listed(self, what: str, parameters: dict[str, str]) -> dict[str, Any]:
        key = {"Authorization": "Bearer sk_test_x"}
        answer = PLAIN.get(f"{self.sandbox.url}/v1/{what}", params=parameters, headers=key)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@pytest.fixture
async def world(database: Database, sandbox: RunningSandbox) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        sessions: list[Sessions] = []
        for service in ("payments", "pricing"):
            engine = create_engine(database.url_for(service), service)
            stack.push_async_callback(engine.dispose)
            sessions.append(create_sessions(engine))
        owner = await asyncpg.connect(database.url)
        stack.push_async_callback(owner.close)
        pool = await stack.enter_async_context(
            raw_pool(database.url_for("payments"), "payments", size=6)
        )
        client = StripeClient("sk_test_renewals", sandbox.url)
        stack.push_async_callback(client.close)
        world = World(
            owner, Shop(owner), pool, sessions[0], sessions[1], sandbox, client, Hands(START)
        )
        sandbox.control("POST", "clock", {"now": START.isoformat()})
        await world.publish("10")
        yield world
        sandbox.control("POST", "clock", {"now": None})


def pausing(world: World) -> None:
    world.rules = replace(world.rules, pause_when_given_up=True)
