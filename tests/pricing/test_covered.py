"""Whom a scope covers is asked in SQL by rollouts and in Python by whatever a customer changes: the same ones."""

import json
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import pytest

from services.pricing.domain import place_of
from services.pricing.pricing_sql import covered, membership
from services.pricing.scopes import Member, Scope
from shared.db import Sessions
from shared.events import TierName
from tests.conftest import Database
from tests.pricing.conftest import START, Shop

COFFEE, TEA = UUID(int=0xC0FFEE), UUID(int=0x7EA)
TIERS: tuple[TierName | None, ...] = (None, "bronze", "silver", "gold")  # None: never heard of
ADDRESSES = (("US", "CA"), ("US", " ca "), ("US", None), ("US", ""), ("DE", None), ("DE", "BE"))
BOXES = ((COFFEE,), (TEA,), (COFFEE, TEA))
SINCE = tuple(START + timedelta(microseconds=n) for n in (-1, 0, 1))
EVERYBODY = 72
LISTED = [str(UUID(int=n)) for n in (3, 7, 71, 1_000)]
BEFORE = START.isoformat()

# and how many each covers
SCOPES: list[tuple[dict[str, object], int]] = [
    ({}, 72),
    ({"currencies": ["USD"]}, 36),
    ({"currencies": ["EUR", "USD"]}, 72),
    ({"currencies": ["JPY"]}, 0),
    ({"places": ["US"]}, 48),
    ({"places": ["US-CA"]}, 24),
    ({"places": ["US-NY"]}, 0),
    ({"places": ["CA"]}, 0),
    ({"places": ["DE", "US-CA"]}, 48),
    ({"places": ["DE-BE"]}, 12),
    ({"delivery_types": ["pickup"]}, 24),
    ({"delivery_types": ["standard", "express"]}, 48),
    ({"variants": [str(COFFEE)]}, 48),
    ({"variants": [str(COFFEE), str(TEA)]}, 72),
    ({"variants": [str(UUID(int=9))]}, 0),
    ({"tiers": ["bronze"]}, 36),
    ({"tiers": ["silver", "gold"]}, 36),
    ({"tiers": ["platinum"]}, 0),
    ({"signed_up_before": BEFORE}, 24),
    ({"subscriptions": LISTED}, 3),
    ({"places": ["US"], "tiers": ["gold"], "delivery_types": ["pickup"]}, 4),
    ({"subscriptions": LISTED, "currencies": ["USD"]}, 0),
]

INSERT = """
WITH made AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS r (id uuid, currency text, country text, region text,
        delivery text, variants jsonb, tier text, since timestamptz)
), users AS (
    INSERT INTO public.users (id, email) SELECT id, id::text FROM made RETURNING id
), addresses AS (
    INSERT INTO public.addresses (id, user_id, country, region)
    SELECT made.id, made.id, country, region FROM made JOIN users USING (id) RETURNING id
), tiers AS (
    INSERT INTO pricing.user_tiers (user_id, tier, revision) SELECT id, tier, 1 FROM made
    WHERE tier IS NOT NULL
)
INSERT INTO public.subscriptions
    (id, user_id, currency, variants, delivery_type, delivery_address_id, created_at)
SELECT made.id, made.id, currency, variants, delivery, made.id, since FROM made JOIN addresses USING (id)
"""


def someone(number: int) -> tuple[dict[str, object], Member]:
    """Every attribute goes round at a pace of its own; as the storefront writes him, and as the rule sees him."""
    currency = ("USD", "EUR")[number % 2]
    country, region = ADDRESSES[number // 4 % 6]
    delivery = ("standard", "express", "pickup")[number // 24 % 3]
    box, tier, since = BOXES[number % 3], TIERS[number % 4], SINCE[number // 2 % 3]
    # A storefront may write capitals.
    ids = [str(variant).upper() if number % 2 else str(variant) for variant in box]
    written: dict[str, object] = {
        "id": str(UUID(int=number)),
        "currency": currency,
        "country": country,
        "region": region,
        "delivery": delivery,
        "variants": [{"variant_id": each, "quantity": 1} for each in ids],
        "tier": tier,
        "since": since.isoformat(),
    }
    place = place_of(country, region)
    member = Member(
        UUID(int=number), currency, place, delivery, frozenset(box), tier or "bronze", since
    )
    return written, member


@pytest.fixture
async def members(database: Database, shop: Shop) -> Mapping[UUID, Member]:
    people = [someone(number) for number in range(EVERYBODY)]
    await shop.storefront.execute(INSERT, json.dumps([written for written, _ in people]))
    return {member.subscription_id: member for _, member in people}


async def test_sql_and_the_rule_cover_the_same(
    members: Mapping[UUID, Member], sessions: Sessions
) -> None:
    async with sessions.begin() as session:
        for definition, count in SCOPES:
            scope = Scope.model_validate(definition)
            asked = covered(scope)
            values = asked.values | {"ids": list(members)}
            rows = await session.execute(membership(asked.condition), values)
            found = {row.id for row in rows if row.covered}
            expected = {each for each, member in members.items() if scope.covers(member)}
            assert found == expected, definition
            assert len(found) == count, definition
