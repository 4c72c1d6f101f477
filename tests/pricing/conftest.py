"""A shop on a real database: the storefront writes as the owner, pricing works as pricing_app."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import httpx
import pytest

from services.pricing import preview
from services.pricing.app import create_web
from services.pricing.decisions import Decision
from services.pricing.drafts import ConfigDraft
from services.pricing.handlers import HANDLERS
from services.pricing.life import (
    approve,
    approve_unseen,
    create_draft,
    latest_preview,
    start_preview,
)
from services.pricing.versions import get_config, publish_version
from shared.api_keys import SCOPES, create_key
from shared.consumer import deliver
from shared.db import Sessions, create_engine, create_sessions
from shared.events import Event, SubscriptionChanged
from shared.settings import Settings
from shared.trace import Cause
from tests.conftest import Database

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DELIVERY = {
    "USD": {"standard": 500, "express": 1_500, "pickup": 0},
    "EUR": {"standard": 450},
    "JPY": {"standard": 600},
}
CONFIG = {
    "admin_percentage": "10",
    "delivery_cost_minor": DELIVERY,
    "tax_rates": {"DE": "0.19", "US-CA": "0.0725", "US": "0", "JP": "0.1"},
}


@dataclass
class Ticking:
    """A clock that a test sets."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **time: float) -> datetime:
        self.now += timedelta(**time)
        return self.now


@dataclass
class Shop:
    """The storefront and its database, as the owner sees it."""

    storefront: asyncpg.Connection

    async def user(self) -> UUID:
        made: UUID = await self.storefront.fetchval(
            "INSERT INTO public.users (email) VALUES (gen_random_uuid()::text) RETURNING id"
        )
        return made

    async def address(self, user: UUID, place: str = "US-CA") -> UUID:
        country, _, region = place.partition("-")
        made: UUID = await self.storefront.fetchval(
            "INSERT INTO public.addresses (user_id, country, region) VALUES ($1, $2, $3) RETURNING id",
            *(user, country, region or None),
        )
        return made

    async def variant(self, price_minor: int, currency: str = "USD") -> UUID:
        made: UUID = await self.storefront.fetchval(
            "WITH p AS (INSERT INTO public.products (name) VALUES ('box') RETURNING id)"
            " INSERT INTO public.product_variants (product_id, name, price_minor, currency)"
            " SELECT id, 'variant', $1, $2 FROM p RETURNING id",
            *(price_minor, currency),
        )
        return made

    async def subscription(
        self,
        lines: Sequence[tuple[UUID, int]],
        *,
        currency: str = "USD",
        place: str = "US-CA",
        delivery: str | None = "standard",
        created_at: datetime = START - timedelta(days=100),
    ) -> UUID:
        """As the storefront inserts one: it names no price."""
        user = await self.user()
        variants = [{"variant_id": str(v), "quantity": q} for v, q in lines]
        made: UUID = await self.storefront.fetchval(
            "INSERT INTO public.subscriptions"
            " (user_id, currency, variants, delivery_type, delivery_address_id, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            *(user, currency, json.dumps(variants), delivery, await self.address(user, place)),
            created_at,
        )
        return made

    async def row(self, subscription: UUID) -> asyncpg.Record:
        return await self.storefront.fetchrow(
            "SELECT * FROM public.subscriptions WHERE id = $1", subscription
        )

    async def history(self, subscription: UUID) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.storefront.fetch(
            "SELECT * FROM pricing.subscription_cost_history WHERE subscription_id = $1 ORDER BY id",
            subscription,
        )
        return rows

    async def facts(self, type_: str, subscription: UUID | None = None) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.storefront.fetch(
            "SELECT *, payload::text AS body, headers ->> 'ce_causationid' AS cause FROM pricing.outbox"
            " WHERE type = $1 AND ($2::uuid IS NULL OR payload ->> 'subscription_id' = $2::text)"
            " ORDER BY position",
            *(type_, subscription),
        )
        return rows


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("pricing"), "pricing")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    connection = await asyncpg.connect(database.url)
    yield Shop(connection)
    await connection.close()


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


def scope_for(method: str, path: str) -> str:
    """Whose key a test uses where it does not say."""
    area = "subscriptions" if path.startswith("/subscriptions") else "pricing"
    match path.rpartition("/")[2]:
        case "approve" | "apply-deferred":
            return f"{area}:approve"
        case "told":
            return f"{area}:notify"
        case _:
            return f"{area}:read" if method == "GET" or path == "/quotes" else f"{area}:write"


@dataclass
class Api:
    """The web app on a real database, and a key for each scope."""

    client: httpx.AsyncClient
    keys: dict[str, str]
    sessions: Sessions

    async def ask(
        self, method: str, path: str, body: object = None, scope: str | None = None
    ) -> httpx.Response:
        key = self.keys[scope or scope_for(method, path)]
        return await self.client.request(
            method, path, json=body, headers={"Authorization": f"Bearer {key}"}
        )

    async def done(self, method: str, path: str, body: object = None) -> dict[str, object]:
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        found: dict[str, object] = answer.json()
        return found

    async def approved(self, draft: Mapping[str, object]) -> tuple[object, str]:
        """A draft with its version and hash, approved by somebody who looked at no preview."""
        made = await self.done("POST", "/drafts", dict(draft))
        async with self.sessions.begin() as session:
            config = await get_config(session, int(str(made["version"])))
            return config.version, await approve_unseen(session, config, decision("grace", START))


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
        yield Api(client, keys, sessions)


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


def decision(by: str, now: datetime, why: str | None = "new prices") -> Decision:
    return Decision(by, why, now, Cause("request:1"))


async def publish_config(
    sessions: Sessions,
    now: datetime,
    changed: Mapping[str, object] | None = None,
    effective_from: datetime | None = None,
) -> int:
    """Draft and publish CONFIG with `changed` parts, approved by somebody who looked at no preview.

    Where `changed` names a scope, it is all there is: a cohort's version.
    """
    content = {} if changed and "scope" in changed else CONFIG
    draft = {**content, **(changed or {})}
    if effective_from is not None:
        draft["effective_from"] = effective_from
    async with sessions.begin() as session:
        config = await create_draft(
            session, ConfigDraft.model_validate(draft), decision("ada", now)
        )
        digest = await approve_unseen(session, config, decision("grace", now))
        await publish_version(session, config.version, digest, decision("ada", now))
        return config.version


async def publish_previewed(
    sessions: Sessions, now: datetime, changed: Mapping[str, object] | None = None
) -> int:
    """The whole door: what the preview shows is what is approved and published."""
    content = {} if changed and "scope" in changed else CONFIG
    draft = ConfigDraft.model_validate({**content, **(changed or {})})
    async with sessions.begin() as session:
        version = (await create_draft(session, draft, decision("ada", now))).version
        await start_preview(session, version, decision("ada", now))
    while await preview.run_once(sessions, lambda: now):
        pass
    async with sessions.begin() as session:
        digest = (await latest_preview(session, version)).hash
        assert digest is not None
        await approve(session, version, digest, decision("grace", now))
        await publish_version(session, version, digest, decision("ada", now))
    return version


async def hear_storefront(shop: Shop, sessions: Sessions) -> list[Event]:
    """Deliver every subscription_changed in the outbox to pricing, as relay and consumer would."""
    facts: list[Event] = [
        SubscriptionChanged.model_validate_json(fact["body"])
        for fact in await shop.facts(SubscriptionChanged.type)
    ]
    await deliver(sessions, "pricing", HANDLERS, facts)
    return facts
