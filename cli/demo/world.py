"""A thousand customers with their boxes, from a seed, written into the storefront by the storefront's own SQL."""

import json
from dataclasses import dataclass
from random import Random
from uuid import UUID

import psycopg

from shared.events import derived_id

PLACES = {
    "USD": (("US", "CA"), ("US", "NY"), ("US", "TX")),
    "EUR": (("DE", None), ("FR", None), ("NL", None)),
    "JPY": (("JP", None),),
}
CURRENCIES = (*["USD"] * 5, *["EUR"] * 4, *["JPY"] * 2)
DELIVERY_TYPES = ("standard", "express", "pickup")
INTERVALS = (*["month"] * 7, "week", "quarter", "year")
PRODUCTS = ("Coffee", "Tea", "Olives", "Cheese", "Honey", "Pasta", "Chocolate", "Spices")
# What a box's variant costs, in minor units, before the seed moves it: JPY has none.
PRICE_LEVEL = {"USD": 1_200, "EUR": 1_100, "JPY": 1_500}
PAUSED_SHARE, CANCELED_SHARE = 0.06, 0.05


@dataclass(frozen=True)
class Variant:
    id: UUID
    product_id: UUID
    name: str
    price_minor: int
    currency: str


@dataclass(frozen=True)
class Customer:
    id: UUID
    email: str
    address_id: UUID
    country: str
    region: str | None

    @property
    def place(self) -> str:
        return f"{self.country}-{self.region}" if self.region else self.country


@dataclass(frozen=True)
class Subscription:
    """`lines`: variant and quantity; `fate`: what the storefront does to it before the prices change."""

    id: UUID
    customer: Customer
    currency: str
    interval: str
    lines: tuple[tuple[Variant, int], ...]
    delivery_type: str
    fate: str


@dataclass(frozen=True)
class World:
    variants: tuple[Variant, ...]
    subscriptions: tuple[Subscription, ...]

    @property
    def paying(self) -> list[Subscription]:
        return [each for each in self.subscriptions if each.fate == "active"]


def make_world(seed: str, customers: int) -> World:
    """The same seed makes the same world; another seed shares no id with it."""
    rng = Random(seed)
    variants = tuple(
        Variant(
            derived_id(seed, "variant", product, currency),
            derived_id(seed, "product", product),
            f"{product} box",
            level + rng.randrange(-400, 2_400),
            currency,
        )
        for product in PRODUCTS
        for currency, level in PRICE_LEVEL.items()
    )
    return World(variants, tuple(_subscription(seed, n, rng, variants) for n in range(customers)))


def _subscription(
    seed: str, number: int, rng: Random, variants: tuple[Variant, ...]
) -> Subscription:
    currency = rng.choice(CURRENCIES)
    country, region = rng.choice(PLACES[currency])
    customer = Customer(
        derived_id(seed, "customer", number),
        f"customer-{number}@{seed}.example",
        derived_id(seed, "address", number),
        country,
        region,
    )
    on_offer = [variant for variant in variants if variant.currency == currency]
    chosen = rng.sample(on_offer, rng.randint(1, 4))
    dice = rng.random()
    canceled = dice < CANCELED_SHARE
    paused = not canceled and dice < CANCELED_SHARE + PAUSED_SHARE
    return Subscription(
        derived_id(seed, "subscription", number),
        customer,
        currency,
        rng.choice(INTERVALS),
        tuple((variant, rng.randint(1, 3)) for variant in chosen),
        rng.choice(DELIVERY_TYPES),
        "canceled" if canceled else "paused" if paused else "active",
    )


def open_shop(url: str, world: World) -> None:
    """Products, customers and their subscriptions, as the storefront inserts them."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO public.products (id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            sorted({(v.product_id, v.name) for v in world.variants}, key=str),
        )
        cursor.executemany(
            "INSERT INTO public.product_variants (id, product_id, name, price_minor, currency)"
            " VALUES (%s, %s, %s, %s, %s)",
            [(v.id, v.product_id, v.name, v.price_minor, v.currency) for v in world.variants],
        )
        customers = [subscription.customer for subscription in world.subscriptions]
        cursor.executemany(
            "INSERT INTO public.users (id, email) VALUES (%s, %s)",
            [(each.id, each.email) for each in customers],
        )
        cursor.executemany(
            "INSERT INTO public.addresses (id, user_id, country, region) VALUES (%s, %s, %s, %s)",
            [(each.address_id, each.id, each.country, each.region) for each in customers],
        )
        cursor.executemany(
            "INSERT INTO public.subscriptions (id, user_id, currency, billing_interval, variants,"
            " delivery_type, delivery_address_id, period_end)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, now() + interval '1 month')",
            [_row(subscription) for subscription in world.subscriptions],
        )


def let_some_leave(url: str, world: World) -> None:
    """The storefront pauses and cancels, each in a statement of its own."""
    with psycopg.connect(url) as connection:
        for fate, change in (
            ("paused", "status = 'paused'"),
            ("canceled", "status = 'canceled', canceled_at = now()"),
        ):
            ids = [each.id for each in world.subscriptions if each.fate == fate]
            connection.execute(
                f"UPDATE public.subscriptions SET {change} WHERE id = ANY(%s)".encode(), (ids,)
            )


def _row(subscription: Subscription) -> tuple[object, ...]:
    box = [
        {"variant_id": str(variant.id), "quantity": quantity}
        for variant, quantity in subscription.lines
    ]
    return (
        subscription.id,
        subscription.customer.id,
        subscription.currency,
        subscription.interval,
        json.dumps(box),
        subscription.delivery_type,
        subscription.customer.address_id,
    )
