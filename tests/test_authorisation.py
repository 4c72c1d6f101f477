"""Who may do what over HTTP, route by route: a route that is not in this table fails, and so does one with no scope."""

from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from services.analytics.app import create_web as analytics
from services.loyalty.app import create_web as loyalty
from services.payments.app import create_web as payments
from services.pricing.app import create_web as pricing
from shared.api_keys import SCOPES, create_key
from shared.db import create_engine, create_sessions
from shared.settings import Settings
from tests.conftest import Database

# Whether the process lives, and what its API looks like: nothing about anybody.
OPEN = {
    *("/healthz", "/readyz", "/metrics", "/openapi.json"),
    *("/docs", "/docs/oauth2-redirect", "/static-offline-docs"),
}
SETTINGS = Settings(farebox_require_keys=True, stripe_webhook_secrets="whsec_x")
APPS: dict[str, FastAPI] = {
    "pricing": pricing(SETTINGS),
    "payments": payments(SETTINGS).app,  # its webhook, outside of it, asks for Stripe's signature
    "loyalty": loyalty(SETTINGS),
    "analytics": analytics(SETTINGS),
}
ALLOWED = {
    "pricing:read": {
        *("GET /drafts/{version}/preview", "GET /drafts/{version}/preview/subscriptions"),
        *("GET /configs", "GET /configs/{version}", "GET /configs/{version}/decisions"),
        *("GET /configs/{version}/rollout", "GET /configs/{version}/rollout/subscriptions"),
        *("GET /notices", "POST /quotes", "GET /variants/{variant_id}/lowest-price"),
    },
    "pricing:write": {
        *("POST /drafts", "PUT /drafts/{version}", "POST /drafts/{version}/preview"),
        *("POST /drafts/{version}/publish", "POST /drafts/{version}/withdraw"),
        *("POST /configs/{version}/revert", "POST /configs/{version}/rollout/pause"),
        *("POST /configs/{version}/rollout/resume", "POST /configs/{version}/rollout/cancel"),
        "POST /configs/{version}/rollout/retry-failed",
    },
    "pricing:approve": {
        *("POST /drafts/{version}/approve", "POST /configs/{version}/rollout/apply-deferred"),
    },
    "pricing:notify": {"POST /notices/{notice_id}/told"},
    "subscriptions:read": {
        *("GET /subscriptions", "GET /subscriptions/{subscription_id}"),
        "GET /subscriptions/{subscription_id}/history",
        "GET /subscriptions/{subscription_id}/cost",
        *("POST /subscriptions/{subscription_id}/proration", "GET /cost-history.csv"),
    },
    "subscriptions:write": {
        *("POST /subscriptions", "PUT /subscriptions/{subscription_id}/variants"),
        "PUT /subscriptions/{subscription_id}/delivery",
        "POST /subscriptions/{subscription_id}/pause",
        "POST /subscriptions/{subscription_id}/resume",
        "POST /subscriptions/{subscription_id}/cancel",
    },
    "payments:read": {
        *("GET /payments", "GET /payments/{payment_id}", "GET /orders", "GET /orders/{order_id}"),
        *("GET /stripe-events", "GET /stripe-events/counts", "GET /stripe-events/{event_id}"),
        *(
            "GET /renewals",
            "GET /renewals/{renewal_id}",
            "GET /payouts",
            "GET /payouts/{payout_id}",
        ),
        "GET /customers/{user_id}/payment-method",
    },
    "payments:write": {
        *("POST /payments", "POST /payments/{payment_id}/confirm"),
        *("POST /payments/{payment_id}/capture", "POST /payments/{payment_id}/cancel"),
        *("POST /payments/{payment_id}/refund", "POST /stripe-events/{event_id}/retry"),
        "PUT /customers/{user_id}/payment-method",
    },
    "loyalty:read": {"GET /accounts/{user}", "GET /accounts/{user}/transactions"},
    "analytics:read": {"GET /subscriptions/daily", "GET /payments/daily"},
}
# Reading payments asks for its scope whatever it does, and writing for its own besides.
READS_TOO = {"POST /stripe-events/{event_id}/retry"}
NUMBERS = {"{version}": "1"}


def scopes_of(dependant: Dependant | None) -> set[str]:
    """The scopes that `shared.auth.require` asks for before this route is entered."""
    if dependant is None:
        return set()
    name = getattr(dependant.call, "__name__", "")
    own = (
        {name.removeprefix("require_").replace("_", ":")} if name.startswith("require_") else set()
    )
    return own.union(*(scopes_of(each) for each in dependant.dependencies))


def routes(app: FastAPI) -> dict[str, set[str]]:
    """`GET /configs` and the scopes it asks for, of all that are not open to everybody."""
    return {
        f"{method} {route.path}": scopes_of(getattr(route, "dependant", None))
        for route in iter_route_contexts(app.routes)
        if route.path not in OPEN
        for method in sorted((route.methods or {"ANY"}) - {"HEAD"})
    }


@pytest.mark.parametrize("service", APPS)
def test_every_route_asks_for_the_scope_that_the_table_says(service: str) -> None:
    expected: dict[str, set[str]] = {}
    for scope in SCOPES[service]:
        for route in ALLOWED[scope]:
            expected.setdefault(route, set()).add(scope)
            if route in READS_TOO:
                expected[route].add(f"{service}:read")
    assert routes(APPS[service]) == expected


@pytest.mark.parametrize("service", APPS)
async def test_no_route_answers_anybody_without_a_key(service: str) -> None:
    app = APPS[service]
    engine = create_engine(SETTINGS.url_of("pricing"), service)  # nobody gets as far as that
    app.state.sessions = create_sessions(engine)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://farebox") as client:
        for route in routes(app):
            method, _, path = route.partition(" ")
            answer = await client.request(method, filled(path))
            assert answer.status_code == 401, route
            assert answer.headers["www-authenticate"] == "Bearer", route
    await engine.dispose()


async def test_every_scope_but_its_own_is_too_little_for_a_route(database: Database) -> None:
    app = APPS["pricing"]
    engine = create_engine(database.url_for("pricing"), "pricing")
    app.state.sessions = create_sessions(engine)
    every = set(SCOPES["pricing"])
    async with app.state.sessions.begin() as session:
        keys = {
            own: await create_key(session, "pricing", f"not {own}", sorted(every - {own}))
            for own in every
        }
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://farebox") as client:
        for route, [own] in routes(app).items():
            method, _, path = route.partition(" ")
            headers = {"Authorization": f"Bearer {keys[own]}"}
            answer = await client.request(method, filled(path), headers=headers)
            assert (answer.status_code, answer.json()["scope"]) == (403, own), route
    await engine.dispose()


def filled(path: str) -> str:
    parts = (
        part if part[:1] != "{" else NUMBERS.get(part, str(uuid4())) for part in path.split("/")
    )
    return "/".join(parts)
