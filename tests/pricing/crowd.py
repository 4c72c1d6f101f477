"""Many subscriptions at once, priced by CONFIG's version, and a draft's way through preview, approval and rollout."""

import json
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

from services.pricing import preview
from services.pricing.domain import Box, Terms, cost
from services.pricing.drafts import ConfigDraft
from services.pricing.life import approve, create_draft, latest_preview, start_preview
from services.pricing.rollout import run_once
from services.pricing.versions import publish_version
from shared.db import Sessions
from shared.events import VariantLine
from tests.pricing.conftest import CONFIG, DELIVERY, START, Shop, Ticking, decision

LONG_AGO = START - timedelta(days=3_000)
PLACES = {"DE": "EUR", "US-CA": "USD", "US-NY": "USD", "JP": "JPY"}
RATES = {place: Decimal(rate) for place, rate in CONFIG["tax_rates"].items()}  # type: ignore[attr-defined]
FILL_ROWS = 10_000  # of JSON in one parameter
TERMS = Terms(Decimal(10), DELIVERY, RATES)


async def crowd(shop: Shop, count: int, seed: int = 1) -> list[UUID]:
    """Subscriptions as version 1 priced them: ids count up, so that their order is known."""
    dice = Random(seed)
    rows = [_row(dice, number) for number in range(1, count + 1)]
    await shop.storefront.execute("SET session_replication_role = replica")
    for first in range(0, count, FILL_ROWS):
        part = json.dumps(rows[first : first + FILL_ROWS], default=str)
        await shop.storefront.execute(_FILL, part, LONG_AGO)
    await shop.storefront.execute("SET session_replication_role = DEFAULT")
    return [UUID(int=number) for number in range(1, count + 1)]


def _row(dice: Random, number: int) -> dict[str, object]:
    place, currency = dice.choice(list(PLACES.items()))
    kind = dice.choice(list(DELIVERY[currency]))
    lines = tuple(
        VariantLine(
            variant_id=UUID(int=dice.randrange(1, 4)),
            quantity=dice.randrange(1, 5),
            unit_price_minor=dice.randrange(5_000),
        )
        for _ in range(dice.randrange(1, 4))
    )
    old = cost(TERMS, Box(currency, lines, kind, place, dice.choice((0, 0, 250))), (1,))
    country, _, region = place.partition("-")
    return {
        "id": UUID(int=number),
        "country": country,
        "region": region or None,
        "old": old.model_dump(mode="json"),
    }


async def drafted(sessions: Sessions, clock: Ticking, changed: Mapping[str, object]) -> int:
    """A draft of CONFIG with `changed` parts, whose preview is asked for."""
    content = {} if "scope" in changed else CONFIG
    draft = ConfigDraft.model_validate({**content, **changed})
    async with sessions.begin() as session:
        config = await create_draft(session, draft, decision("ada", clock.now))
        await start_preview(session, config.version, decision("ada", clock.now))
        return config.version


async def previewed(sessions: Sessions, clock: Ticking, rows: int = 7) -> None:
    walker = preview.Walker(rows=rows, link_rows=11)
    while await preview.run_once(sessions, clock, walker):
        pass


async def published(sessions: Sessions, clock: Ticking, version: int) -> None:
    async with sessions.begin() as session:
        digest = (await latest_preview(session, version)).hash or ""
        await approve(session, version, digest, decision("grace", clock.now))
        await publish_version(session, version, digest, decision("ada", clock.now))


async def change(
    sessions: Sessions, clock: Ticking, changed: Mapping[str, object], rows: int = 7
) -> int:
    """Drafted, previewed, approved and published; not rolled out yet."""
    version = await drafted(sessions, clock, changed)
    await previewed(sessions, clock, rows)
    await published(sessions, clock, version)
    return version


async def roll_out(sessions: Sessions, clock: Ticking, rows: int = 7) -> int:
    steps = 0
    while await run_once(sessions, clock, rows):
        steps += 1
        assert steps < 500, "the rollouts do not end"
    return steps


async def outcomes(shop: Shop, version: int) -> dict[tuple[str | None, str | None], int]:
    """How many by outcome and code."""
    rows = await shop.storefront.fetch(
        "SELECT outcome, code, count(*) FROM pricing.rollout_items WHERE price_version = $1"
        " GROUP BY 1, 2",
        version,
    )
    return {(row[0], row[1]): row[2] for row in rows}


_FILL = """
WITH r AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS r (id uuid, country text, region text, old jsonb)
), users AS (
    INSERT INTO public.users (id, email) SELECT id, id::text FROM r
), addresses AS (
    INSERT INTO public.addresses (id, user_id, country, region) SELECT id, id, country, region FROM r
), lines AS (
    INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version, kind, currency,
        new_breakdown, new_total_minor, effective_at, reason, changed_by, cause_id, recorded_at)
    SELECT id, id, 1, 'created', old ->> 'currency', old, (old -> 'total_minor')::bigint, $2, 'r', 'b', 'c', $2
    FROM r ORDER BY id
), revisions AS (
    INSERT INTO pricing.subscription_revisions (subscription_id, revision) SELECT id, 2 FROM r
)
INSERT INTO public.subscriptions (id, user_id, currency, created_at, period_start, period_end, variants,
    cost_breakdown, total_minor, tax_minor, price_version, delivery_type, delivery_address_id,
    loyalty_discount_minor)
SELECT id, id, old ->> 'currency', $2, $2, $2 + interval '1 month', old -> 'variants', old,
    (old -> 'total_minor')::bigint, (old -> 'tax_minor')::bigint, 1, old ->> 'delivery_type', id,
    (old -> 'loyalty_discount_minor')::bigint
FROM r
"""
