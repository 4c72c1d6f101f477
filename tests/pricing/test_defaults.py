from decimal import Decimal

from services.pricing.composition import compose
from services.pricing.defaults import create_default_config
from services.pricing.layers import layers
from shared.db import Sessions, create_engine, create_sessions
from shared.events import ConfigPublished
from tests.conftest import Database
from tests.pricing.conftest import Shop, Ticking, publish_config


async def test_a_fresh_system_gets_one_configuration_in_force(
    database: Database, shop: Shop, clock: Ticking
) -> None:
    engine = create_engine(database.url, "pricing")
    owner = create_sessions(engine)
    for expected in (1, None):
        async with owner.begin() as session:
            assert await create_default_config(session, clock.pass_(minutes=1)) == expected
    async with owner() as session:
        terms = compose((await layers(session)).in_force(clock.now))
        assert terms.admin_percentage == 10
        assert {"USD", "EUR", "JPY", "GBP"} <= set(terms.delivery_cost_minor)
        assert terms.tax_rates["US-CA"] == Decimal("0.0725")
    assert await shop.storefront.fetchval("SELECT count(*) FROM pricing.pricing_configs") == 1
    assert len(await shop.facts(ConfigPublished.type)) == 1
    await engine.dispose()


async def test_a_system_with_a_version_of_its_own_keeps_it(
    sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, clock.now)
    async with sessions.begin() as session:
        assert await create_default_config(session, clock.pass_(minutes=1)) is None
