import asyncio

import pytest
from asyncpg import ExclusionViolationError, RestrictViolationError
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from services.pricing.costs import Why
from services.pricing.drafts import ConfigDraft
from services.pricing.life import approve_unseen, create_draft
from services.pricing.rollout import run_once
from services.pricing.subscriptions import Delivery, Order, create_subscription
from services.pricing.versions import AlreadyPublished, publish_version
from shared.db import Sessions
from shared.events import BoxLine, ConfigPublished
from shared.trace import Cause
from tests.pricing.conftest import CONFIG, Customer, Shop, Ticking, decision, publish_config

# Long enough for a publication that does not wait to be over.
HOLDS_SECONDS = 0.5


async def test_nobody_priced_while_a_version_is_published_is_forgotten(
    shop: Shop, sessions: Sessions, clock: Ticking, customer: Customer
) -> None:
    await publish_config(sessions, clock.now)
    order = Order(
        customer.user,
        "USD",
        "month",
        (BoxLine(variant_id=customer.coffee, quantity=1),),
        Delivery("standard", customer.address),
    )
    async with sessions.begin() as session:
        made = await create_subscription(session, order, Why("ada", Cause("request:1"), clock.now))
        publishing = asyncio.create_task(
            publish_config(sessions, clock.pass_(minutes=1), {"admin_percentage": "20"})
        )
        done, _ = await asyncio.wait({publishing}, timeout=HOLDS_SECONDS)
        assert not done, "published although a price by the old version is not committed"
    version = await publishing
    while await run_once(sessions, clock):
        pass
    assert (await shop.row(made))["price_version"] == version


async def test_a_draft_published_twice_at_once_is_published_once(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    async with sessions.begin() as session:
        author = decision("ada", clock.now)
        draft = await create_draft(session, ConfigDraft.model_validate(CONFIG), author)
        digest = await approve_unseen(session, draft, decision("grace", clock.now))

    async def publish(name: str) -> str:
        async with sessions.begin() as session:
            publisher = decision(name, clock.now)
            found = await publish_version(session, draft.version, digest, publisher)
            return found.published_by or ""

    first, second = await asyncio.gather(publish("ada"), publish("bob"), return_exceptions=True)
    outcomes = {type(first), type(second)}
    assert outcomes == {str, AlreadyPublished}
    assert len(await shop.facts(ConfigPublished.type)) == 1


@pytest.mark.parametrize("status", ["active", "scheduled", "retired"])
async def test_the_database_itself_refuses_two_versions_in_force_at_once(
    shop: Shop, sessions: Sessions, clock: Ticking, status: str
) -> None:
    await publish_config(sessions, clock.now)
    await shop.storefront.execute(
        "ALTER TABLE pricing.pricing_configs DISABLE TRIGGER farebox_guard_price_version"
    )
    with pytest.raises(ExclusionViolationError, match="ex_pricing_configs_in_force"):
        await shop.storefront.execute(
            "INSERT INTO pricing.pricing_configs (status, admin_percentage, delivery_cost_minor, tax_rates,"
            " created_by, authors, approved_by, approved_at, approved_hash, preview_hash, reason,"
            " published_by, published_at, effective_from)"
            " VALUES ($1, 10, '{}', '{}', 'x', '{x}', 'y', now(), '', '', 'x', 'x', now(), $2)",
            *(status, clock.pass_(days=1)),
        )


async def test_the_cost_history_cannot_be_rewritten_by_pricing_nor_by_its_owner(
    shop: Shop, sessions: Sessions
) -> None:
    for statement in (
        "UPDATE pricing.subscription_cost_history SET reason = 'x'",
        "DELETE FROM pricing.subscription_cost_history",
        "TRUNCATE pricing.subscription_cost_history",
    ):
        async with sessions() as session:
            with pytest.raises(ProgrammingError, match="permission denied"):
                await session.execute(text(statement))
        with pytest.raises(RestrictViolationError, match="only ever added to"):
            await shop.storefront.execute(statement)
