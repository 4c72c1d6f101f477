"""How far a preview is: about as many subscriptions as its scope covers, however young the table's statistics."""

from datetime import timedelta

import pytest

from services.pricing import counting
from services.pricing.drafts import ConfigDraft
from services.pricing.life import create_draft, start_preview
from services.pricing.scopes import Scope
from shared.db import Sessions
from tests.pricing.conftest import CONFIG, START, Shop, Ticking, decision, publish_config


async def test_a_preview_expects_whom_its_scope_covers(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await publish_config(sessions, START - timedelta(days=1))
    coffee = await shop.variant(1_000)
    for place in ("US-CA", "US-CA", "US-NY", "DE", "DE"):
        await shop.subscription([(coffee, 1)], place=place)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET status = 'canceled', canceled_at = now() WHERE id ="
        " (SELECT s.id FROM public.subscriptions s JOIN public.addresses a ON a.id = delivery_address_id"
        " WHERE country = 'DE' LIMIT 1)"
    )
    author = decision("ada", clock.pass_(hours=1))
    expected = []
    for draft in (CONFIG, {"scope": {"places": ["US"]}}, {"scope": {"tiers": ["gold"]}}):
        async with sessions.begin() as session:
            config = await create_draft(session, ConfigDraft.model_validate(draft), author)
            expected.append((await start_preview(session, config.version, author)).expected)
    assert expected == [4, 3, 0]


async def test_of_a_large_table_a_sample_is_counted(
    shop: Shop, sessions: Sessions, clock: Ticking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.storefront.execute(
        "INSERT INTO public.users (email) VALUES ('a');"
        " INSERT INTO public.subscriptions (user_id, currency, created_at)"
        " SELECT id, CASE WHEN n % 2 = 0 THEN 'EUR' ELSE 'USD' END, now() FROM public.users,"
        " generate_series(1, 8000) n"
    )
    # About every second of a hundred blocks and more, which hold 60 rows each.
    monkeypatch.setattr(counting, "SAMPLE_ROWS", 1_600)
    async with sessions.begin() as session:
        scope = Scope.model_validate({"currencies": ["EUR"]})
        counted = await counting.about_how_many(session, scope)
    assert 2_000 < counted < 6_000
