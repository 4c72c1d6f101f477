"""Schemathesis against the real web process: whatever it sends, the answers are those the OpenAPI page promises."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.api_keys import SCOPES, create_key
from shared.db import Sessions
from tests.conftest import Database
from tests.openapi import assert_promises_kept, web
from tests.pricing.conftest import Shop, hear_storefront, publish_config


async def test_the_api_keeps_what_its_openapi_page_promises(
    database: Database, shop: Shop, sessions: Sessions, tmp_path: Path
) -> None:
    async with sessions.begin() as session:
        key = await create_key(session, "pricing", "all", list(SCOPES["pricing"]))
    await publish_config(sessions, datetime.now(UTC) - timedelta(days=1))
    await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    environment = {
        "DATABASE_URL": database.url,
        "PRICING_DATABASE_URL": database.url_for("pricing"),
    }
    with web("pricing", environment) as url:
        await assert_promises_kept(url, key, tmp_path)
