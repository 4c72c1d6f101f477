"""S1 against Stripe's own list: an event that was answered 200 and has no row is found, by its id."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from services.payments.audit import delivered_are_stored, oldest_event
from services.payments.gateway import StripeClient
from services.payments.gateway import client as gateway_client
from shared.db import Sessions, create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.sandbox.conftest import START, Receiver, RunningSandbox, sandbox

__all__ = ["sandbox"]


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    engine = create_engine(database.url_for("payments"), "payments")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def client(sandbox: RunningSandbox) -> AsyncIterator[StripeClient]:
    opened = StripeClient("sk_test_payments", sandbox.url)
    yield opened
    await opened.close()


async def test_what_stripe_delivered_and_we_lack_is_named(
    service: Service,
    sandbox: RunningSandbox,
    client: StripeClient,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = Receiver()
    with receiver.also_at(("127.0.0.1", 0)) as port:
        endpoint = {"url": f"http://127.0.0.1:{port}/", "secrets": ["whsec_x"]}
        sandbox.control("PUT", "endpoints", {"endpoints": [endpoint]})
        # More than one page of a hundred.
        sandbox.play(*["full_refund"] * 15)
        assert sandbox.control("POST", "drain", {"timeout_seconds": 30})["drained"]
    lost = receiver.events[70]
    await service.receive([each for each in receiver.events if each["id"] != lost["id"]])

    async with sessions() as session:
        since = await oldest_event(session)
        assert since is not None
        assert since >= datetime.fromtimestamp(START, UTC)
        delivered = await client.delivered(since)
        found = await delivered_are_stored(session, delivered)

    assert "more" not in found.detail
    monkeypatch.setattr(gateway_client, "PAGES", 1)
    async with sessions() as session:
        cut = await delivered_are_stored(session, await client.delivered(since))
    assert "Stripe has delivered more" in cut.detail
    assert sorted(delivered) == sorted(receiver.ids)
    assert (found.id, found.ok, found.counted) == ("S1", False, len(receiver.ids))
    assert f"such as {lost['id']}" in found.detail
    await service.receive([lost])
    async with sessions() as session:
        assert (await delivered_are_stored(session, delivered)).ok
