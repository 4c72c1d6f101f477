"""Random versions and subscriptions: what Hypothesis draws, and how it gets into a database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import orjson
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from services.pricing.campaign import Campaign
from services.pricing.composition import Changes, Layer, compose, numbers
from services.pricing.domain import Box, cost
from services.pricing.scopes import Scope
from services.pricing.timing import Timing
from shared.errors import FareboxError
from shared.events import VariantLine

NAMES = UUID("00000000-0000-5000-8000-00000000f00d")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
CURRENCIES = ("USD", "JPY", "KWD", "MGA")
PLACES = ("DE", "US", "US-CA", "US-NY", "FR")
DELIVERY_TYPES = ("standard", "express")
VARIANTS = tuple(uuid5(NAMES, f"variant {n}") for n in range(4))
# Not all are Scope's to cover: what a subscription is on was decided before.
SCOPES = (Scope(), Scope(currencies=frozenset({"USD"})), Scope(places=frozenset({"US"})))


@dataclass(frozen=True)
class Sub:
    """A subscription's row, as its customer and earlier versions left it."""

    currency: str
    place: str
    delivery_type: str
    lines: tuple[tuple[int, int, int | None], ...]  # variant's number, quantity, unit price
    discount_minor: int
    on: tuple[int, ...]  # versions it was priced by; none: never
    changed_to: str | None  # a delivery type that is not priced yet


@dataclass(frozen=True)
class World:
    campaign: Campaign
    subs: tuple[Sub, ...]


def worlds() -> st.SearchStrategy[World]:
    """Drawn by their size, which shrinks, and a seed: drawing each number by itself takes longer than the test."""
    sizes = st.integers(0, 3), st.integers(1, 12)
    return st.builds(make_world, st.integers(0, 2**32), *sizes)


def make_world(seed: int, versions: int, subscriptions: int) -> World:
    dice = Random(seed)
    first = Layer(1, START, 1, SCOPES[0], _changes(dice, whole=True))
    known = {1: first} | {number: _layer(dice, number) for number in range(2, 2 + versions)}
    moving = _layer(dice, 9)
    campaign = Campaign(
        moving, {**known, 9: moving}, Timing(), moving.effective_from, ZoneInfo("UTC"), (first,)
    )
    return World(campaign, tuple(_sub(dice, known) for _ in range(subscriptions)))


def _layer(dice: Random, number: int) -> Layer:
    scope = dice.randrange(len(SCOPES))
    said = _changes(dice, whole=scope == 0)
    return Layer(number, START + timedelta(days=number), scope + 1, SCOPES[scope], said)


def _changes(dice: Random, *, whole: bool) -> Changes:
    """A whole version lacks a currency, a way of delivery or a place now and then; a cohort's most of them."""
    share = 0.95 if whole else 0.3
    delivery = {
        currency: {kind: _amount(dice) for kind in DELIVERY_TYPES if dice.random() < share}
        for currency in CURRENCIES
        if dice.random() < share
    }
    prices = {
        currency: {variant: _amount(dice) for variant in VARIANTS if dice.random() < 0.5}
        for currency in CURRENCIES
        if dice.random() < 0.5
    }
    return Changes(
        Decimal(dice.randrange(1_000, 500_001)) / 10_000 if whole or dice.random() < 0.5 else None,
        delivery,
        {place: _rate(dice) for place in PLACES if dice.random() < share},
        frozenset(p for p in PLACES if dice.random() < 0.3) if dice.random() < 0.5 else None,
        prices if dice.random() < 0.4 else {},
    )


def _amount(dice: Random) -> int:
    """Round ones, so that halves are met; a few too large for SQL."""
    return dice.choice(
        (dice.randrange(20_000), 50 * dice.randrange(400), dice.randrange(10**6))
    ) + (2**41 if dice.random() < 0.02 else 0)


def _rate(dice: Random) -> Decimal:
    return dice.choice(
        (Decimal(0), Decimal("0.25"), Decimal(dice.randrange(10**6 + 1)) / 10**6, Decimal(1))
    )


def _sub(dice: Random, known: Mapping[int, Layer]) -> Sub:
    by_scope: dict[int, list[int]] = {}
    for number, layer in known.items():
        by_scope.setdefault(layer.scope_id, []).append(number)
    on = [
        known[dice.choice(each)]
        for scope, each in by_scope.items()
        if scope == 1 or dice.random() < 0.5
    ]
    lines = tuple(
        (
            dice.randrange(len(VARIANTS)),
            dice.choice((1, 2, 3, 10_000)),
            None if dice.random() < 0.03 else _amount(dice),
        )
        for _ in range(dice.choice((0, 1, 1, 2, 3)))
    )
    return Sub(
        dice.choice(CURRENCIES),
        dice.choice(PLACES),
        dice.choice(DELIVERY_TYPES),
        lines,
        dice.choice((0, 0, dice.randrange(30_000), 10**7)),
        () if dice.random() < 0.05 else numbers(on),
        "express" if dice.random() < 0.05 else None,
    )


def fill(connection: Connection, world: World) -> Sequence[UUID]:
    """The world's subscriptions as rows; returns their ids."""
    rows: list[dict[str, object]] = []
    for number, sub in enumerate(world.subs):
        country, _, region = sub.place.partition("-")
        row = _row(world, sub) | {"id": UUID(int=number + 1), "country": country}
        rows.append(row | {"region": region or None})
    connection.execute(_FILL, {"rows": orjson.dumps(rows, default=str).decode()})
    return [UUID(int=number + 1) for number in range(len(rows))]


def _row(world: World, sub: Sub) -> dict[str, object]:
    """Priced as it was before; what its versions cannot price never was."""
    lines = [
        {"variant_id": str(VARIANTS[v]), "quantity": q}
        | ({} if p is None else {"unit_price_minor": p})
        for v, q, p in sub.lines
    ]
    breakdown = None
    if sub.on and sub.lines and all(p is not None for *_, p in sub.lines):
        box = Box(
            sub.currency,
            tuple(VariantLine.model_validate(line) for line in lines),
            sub.delivery_type,
            sub.place,
            sub.discount_minor,
        )
        on = [world.campaign.layers[number] for number in sub.on]
        try:
            breakdown = cost(compose(on), box, sub.on).model_dump(mode="json")
        except FareboxError:
            breakdown = None
    return {
        "currency": sub.currency,
        "variants": lines,
        "old": breakdown,
        "total": breakdown and breakdown["total_minor"],
        "version": sub.on[-1] if breakdown else None,
        "delivery_type": sub.changed_to or sub.delivery_type,
        "discount": sub.discount_minor,
    }


# Each is its own customer and lives at an address of the same id.
_FILL = text("""
WITH r AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, country text, region text,
        currency text, variants jsonb, old jsonb, total bigint, version integer, delivery_type text,
        discount bigint)
), addresses AS (
    INSERT INTO public.addresses (id, user_id, country, region) SELECT id, id, country, region FROM r
)
INSERT INTO public.subscriptions (id, user_id, currency, variants, cost_breakdown, total_minor,
    price_version, delivery_type, delivery_address_id, loyalty_discount_minor)
SELECT id, id, currency, variants, old, total, version, delivery_type, id, discount FROM r
""")
