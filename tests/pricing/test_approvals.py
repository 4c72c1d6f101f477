"""What the database itself says of a price version's life, whoever writes it: not only the code holds the door."""

import asyncpg
import pytest

from services.pricing import preview, rollout
from services.pricing.drafts import ConfigDraft
from services.pricing.life import (
    approve,
    create_draft,
    latest_preview,
    revise_draft,
    start_preview,
)
from shared.db import Sessions
from tests.conftest import Database
from tests.pricing.conftest import (
    CONFIG,
    Shop,
    Ticking,
    decision,
    hear_storefront,
    publish_config,
    publish_previewed,
)

DEARER = {**CONFIG, "admin_percentage": "20"}
APPROVE = "UPDATE pricing_configs SET status = 'approved', approved_at = now(), "
REFUSED_BY_THE_DATABASE = {
    "draft": [
        ("UPDATE pricing_configs SET status = 'active'", "it cannot become active"),
        ("UPDATE pricing_configs SET authors = '{zoe}'", "who wrote it is not changed"),
        (
            "UPDATE pricing_configs SET status = 'previewed', preview_hash = 'invented'",
            "there is no such preview",
        ),
        ("UPDATE pricing_configs SET approved_by = 'zoe'", "neither preview nor approval"),
        (
            (
                "INSERT INTO pricing_configs (status, admin_percentage, delivery_cost_minor, tax_rates,"
                " created_by, authors, approved_by, approved_at, approved_hash, preview_hash)"
                " VALUES ('approved', 1, '{}', '{}', 'a', '{a}', 'b', now(), 'x', 'x')"
            ),
            "it begins as a draft",
        ),
    ],
    "previewed": [
        (f"{APPROVE} approved_by = 'ada', approved_hash = preview_hash", "configs_approved"),
        (f"{APPROVE} approved_by = ' Ada', approved_hash = preview_hash", "wrote a part of it"),
        # who edited it is an author as who wrote it first
        (f"{APPROVE} approved_by = 'eve', approved_hash = preview_hash", "configs_approved"),
        (f"{APPROVE} approved_by = 'zoe', approved_hash = 'other'", "configs_approved"),
        ("UPDATE previews SET counted = 7", "what it showed stands"),
        ("UPDATE preview_items SET new_total_minor = 7", "permission denied"),
        ("DELETE FROM preview_items", "keeps what it says"),
        ("DELETE FROM previews", "permission denied"),
    ],
    "approved": [
        ("UPDATE pricing_configs SET tax_rates = '{}'", "its content stands"),
        ("UPDATE pricing_configs SET approved_by = 'zoe'", "its approval stands"),
        (
            "UPDATE pricing_configs SET approved_hash = 'x', preview_hash = 'x'",
            "its approval stands",
        ),
        ("UPDATE pricing_configs SET status = 'draft'", "neither preview nor approval"),
    ],
    "active": [
        ("UPDATE pricing_configs SET admin_percentage = 11", "its content stands"),
        ("UPDATE pricing_configs SET effective_from = now()", "its content stands"),
        ("UPDATE pricing_configs SET approved_by = 'zoe'", "its approval stands"),
        ("UPDATE pricing_configs SET status = 'draft'", "it cannot become draft"),
        ("UPDATE pricing_configs SET published_by = 'zoe'", "who published it"),
        ("DELETE FROM pricing_configs", "permission denied"),
        ("DELETE FROM rollout_items", "permission denied"),
        ("UPDATE decisions SET reason = 'another'", "permission denied"),
    ],
}


@pytest.mark.parametrize("status", REFUSED_BY_THE_DATABASE)
async def test_the_database_itself_refuses(
    database: Database, shop: Shop, sessions: Sessions, clock: Ticking, status: str
) -> None:
    await publish_config(sessions, clock.now)
    await shop.subscription([(await shop.variant(1_000), 1)])
    await hear_storefront(shop, sessions)
    if status == "active":
        await publish_previewed(sessions, clock.pass_(hours=1), DEARER)
    else:
        author, draft = decision("ada", clock.pass_(hours=1)), ConfigDraft.model_validate(DEARER)
        async with sessions.begin() as session:
            config = await create_draft(session, draft, author)
            await revise_draft(session, config.version, draft, decision("eve", clock.now))
            if status != "draft":
                await start_preview(session, config.version, author)
        while await preview.run_once(sessions, clock) or await rollout.run_once(sessions, clock):
            pass
        if status == "approved":
            async with sessions.begin() as session:
                digest = (await latest_preview(session, config.version)).hash or ""
                await approve(session, config.version, digest, decision("grace", clock.now))
    pricing = await asyncpg.connect(database.url_for("pricing"))
    try:
        await pricing.execute("SET search_path = pricing")
        assert (
            await pricing.fetchval("SELECT status FROM pricing_configs WHERE version = 2") == status
        )
        for statement, why in REFUSED_BY_THE_DATABASE[status]:
            only = (
                ""
                if statement.startswith("INSERT") or "_configs" not in statement
                else " WHERE version = 2"
            )
            with pytest.raises(asyncpg.PostgresError, match=why):
                await pricing.execute(statement + only)
    finally:
        await pricing.close()
