"""The story: what a bad month looks like, told through the public doors."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer

from cli.demo.doors import Doors
from cli.demo.expected import Prices, total_minor
from cli.demo.world import Subscription, World, let_some_leave, open_shop
from cli.parked import given_up, listed, taken_up
from services.pricing.campaign import OUTCOMES
from shared.events import PaymentChanged
from shared.settings import Settings
from shared.topics import topic_name

Json = dict[str, Any]
Say = Callable[[str], None]

# Long enough ago that the latest dispute of the latest payment lies in the past.
STARTED_BEFORE = timedelta(days=200)
FAULTS = {"duplicates": 0.25, "reorder": "all", "tie_seconds": 0.25, "delay_ms": 5}
PATIENCE_SECONDS = 90.0
POLL_SECONDS = 0.25
DOWN_SECONDS = 1.5
# A fresh system starts at 10 %; one that has seen the story before goes to and fro.
USUAL_PERCENT, DEARER_PERCENT = Decimal(10), Decimal("12.5")
REASON = "coffee and postage rose"
# What happens to one payment, and what it does to the points it earned.
HEROINES_LIFE = (
    ("refund", "reversed"),
    ("refund_fail", "restored"),
    ("dispute", "reversed"),
    ("dispute_win", "restored"),
)
MINUTE_SECONDS = 60
POISON = b'{"id": "not a fact", "amount_minor": 12.5'


class Running(Protocol):
    """What the story needs of the running system."""

    def kill(self, name: str) -> None: ...
    def restart(self, name: str) -> None: ...


class TooSlow(Exception):
    """Something that had to come about did not in time."""


@dataclass
class Story:
    """What is under way and what it has led to so far; `say` hears each step as it begins."""

    doors: Doors
    world: World
    settings: Settings
    system: Running
    say: Say
    payments: int
    old_prices: Prices | None = None
    new_prices: Prices | None = None
    stripe_ids: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def heroine(self) -> Subscription:
        """The first who pays, is refunded in vain, and wins a dispute."""
        return self.world.paying[0]

    @property
    def victim(self) -> Subscription:
        """The second, whose facts a stranger's message gets in the way of."""
        return self.world.paying[1]

    async def play(self) -> None:
        await self._open_shop()
        await self._first_payments()
        await self._new_prices()
        await self._later_payments()
        await self._one_life()
        await self._poison()
        await self._quiet()

    async def _open_shop(self) -> None:
        self.old_prices = await self._prices_in_force()
        self.say(f"the storefront writes {len(self.world.subscriptions)} subscriptions by SQL")
        await asyncio.to_thread(open_shop, self.settings.database_url, self.world)
        await self._until("every box is priced", lambda: self._all_priced(self.old_prices))
        await asyncio.to_thread(let_some_leave, self.settings.database_url, self.world)

    async def _first_payments(self) -> None:
        count = self.payments * 3 // 5
        self.say(f"{count} payments live, told in any order, a quarter twice")
        await self._pay(count, self.old_prices, "first")
        before = await self.doors.deliveries()
        await self._until(
            "a part is delivered",
            lambda: self._delivered(before["delivered"] + before["pending"] // 4),
        )
        self.say("kill -9 of the payments worker while webhooks come in")
        await asyncio.to_thread(self.system.kill, "payments-worker")
        await asyncio.sleep(DOWN_SECONDS)

    async def _new_prices(self) -> None:
        assert self.old_prices is not None
        self.say(f"an administrator drafts new prices and has their effect computed: {REASON}")
        version = await self.doors.preview_prices(_changed(self.old_prices))
        seen = f"/drafts/{version}/preview"

        async def previewed() -> bool:
            return bool((await self.doors.ask("GET", "pricing", seen))["status"] == "done")

        await self._until("the preview is done", previewed)
        preview = await self.doors.ask("GET", "pricing", seen)
        self.say("another one approves what the preview shows, and it is published")
        await self.doors.publish_prices(version, preview["hash"], REASON)
        self.new_prices = Prices.of(await self.doors.ask("GET", "pricing", f"/configs/{version}"))
        await asyncio.to_thread(self.system.restart, "payments-worker")
        self.say("the payments worker is back; the rollout reprices every subscription")
        path = f"/configs/{version}/rollout"

        async def done() -> bool:
            return bool((await self.doors.ask("GET", "pricing", path))["status"] == "done")

        await self._until("the rollout is done", done)
        rollout = await self.doors.ask("GET", "pricing", path)
        for what, outcomes in (
            ("preview", preview["totals"]["outcomes"]),
            ("rollout", rollout["outcomes"]),
        ):
            counts = ", ".join(f"{outcomes[each]} {each}" for each in OUTCOMES)
            self.notes.append(f"{what} of version {version}: {counts}")

    async def _later_payments(self) -> None:
        count = self.payments - self.payments * 3 // 5
        self.say(f"{count} payments more at the new prices, with refunds and disputes")
        await self._pay(count, self.new_prices, "later")

    async def _one_life(self) -> None:
        """One payment is refunded, the refund fails, it is disputed, the dispute is won."""
        self.say("one payment: refunded, the refund fails; disputed, the dispute is won")
        assert self.new_prices is not None
        order = _order(self.heroine, self.new_prices, "card_success")
        [stripe_id] = await self._play([order], "heroine")
        booked = ["earned"]
        await self._until("points are earned", partial(self._booked, booked))
        for action, kind in HEROINES_LIFE:
            booked = [*booked, kind]
            await self.doors.advance(stripe_id, action, MINUTE_SECONDS)
            await self._until(f"points are {kind}", partial(self._booked, booked))

    async def _poison(self) -> None:
        key = str(self.victim.customer.id)
        self.say("a message that is no fact arrives on payments' topic")
        await self._send_poison(key)
        await self._until("it is parked", lambda: self._parked(key, 1))
        assert self.new_prices is not None
        await self._play([_order(self.victim, self.new_prices, "card_success")], "victim")
        await self._until("the customer's next fact waits behind it", lambda: self._parked(key, 2))
        for service in ("loyalty", "analytics"):
            rows = await listed(self.settings, [service], all_states=False)
            first = next(row for row in rows if row["key"] == key)
            parked_id = int(str(first["id"]))
            [again] = await taken_up(self.settings, service, parked_id)
            if again.stuck != parked_id:
                raise TooSlow(f"{service} took in what is no fact: {again}")
            after = await given_up(self.settings, service, parked_id, "written by hand, no fact")
            self.notes.append(
                f"{service} parked a message ({first['error']}); a retry failed, it was dropped,"
                f" and {after.applied} facts that waited behind it were applied"
            )

    async def _quiet(self) -> None:
        self.say("the last webhooks arrive")
        counts = await self.doors.drain()
        if not counts["drained"] or counts["failed"]:
            raise TooSlow(f"webhooks were not all delivered: {counts}")
        self.notes.append(f"{counts['delivered']} webhooks delivered, duplicates included")

    async def _pay(self, count: int, prices: Prices | None, name: str) -> None:
        assert prices is not None
        rng = Random(f"{self.world.variants[0].id}:{name}")
        payers = [rng.choice(self.world.paying[2:]) for _ in range(count)]
        await self._play([_order(payer, prices, None) for payer in payers], name)

    async def _play(self, orders: Sequence[Json], name: str) -> list[str]:
        start = datetime.now(UTC) - STARTED_BEFORE
        seed = f"{self.world.variants[0].id}:{name}"
        played = await self.doors.play(seed, start, orders, FAULTS)
        ids = [str(each["stripe_id"]) for each in played]
        self.stripe_ids += ids
        return ids

    async def _send_poison(self, key: str) -> None:
        """With the headers of a fact, so that only the body can be what is wrong."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap_servers)
        await producer.start()
        headers = {
            "ce_id": secrets.token_hex(16),
            "ce_type": PaymentChanged.type,
            "ce_dataschema": PaymentChanged.dataschema(),
        }
        topic = topic_name(self.settings.farebox_topic_prefix, PaymentChanged.topic)
        try:
            await producer.send_and_wait(
                topic,
                POISON,
                key=key.encode(),
                headers=[(name, value.encode()) for name, value in headers.items()],
            )
        finally:
            await producer.stop()

    async def _prices_in_force(self) -> Prices:
        configs = await self.doors.pages("pricing", "/configs")
        return Prices.of(next(each for each in configs if each["status"] == "active"))

    async def _all_priced(self, prices: Prices | None) -> bool:
        assert prices is not None
        priced = {
            row["id"]: row["total_minor"]
            for row in await self.doors.pages("pricing", "/subscriptions")
        }
        return all(
            priced.get(str(each.id)) == total_minor(prices, each)
            for each in self.world.subscriptions
        )

    async def _booked(self, kinds: Sequence[str]) -> bool:
        """Whether the heroine's ledger shows exactly these kinds of lines."""
        path = f"/accounts/{self.heroine.customer.id}/transactions"
        [lines] = await self.doors.of_each("loyalty", [path])
        return sorted(line["kind"] for line in lines) == sorted(kinds)

    async def _delivered(self, count: int) -> bool:
        counts = await self.doors.deliveries()
        return bool(counts["delivered"] >= count or counts["pending"] == 0)

    async def _parked(self, key: str, count: int) -> bool:
        for service in ("loyalty", "analytics"):
            rows = await listed(self.settings, [service], all_states=False)
            if sum(row["key"] == key for row in rows) < count:
                return False
        return True

    async def _until(self, what: str, reached: Callable[[], Awaitable[bool]]) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while not await reached():
            if asyncio.get_running_loop().time() > deadline:
                raise TooSlow(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")
            await asyncio.sleep(POLL_SECONDS)


def _order(subscription: Subscription, prices: Prices, life: str | None) -> Json:
    return {
        "user_id": str(subscription.customer.id),
        "subscription_id": str(subscription.id),
        "amount_minor": total_minor(prices, subscription),
        "currency": subscription.currency,
        "lifecycle": life,
    }


def _changed(prices: Prices) -> Json:
    """Another fee, and dearer express delivery."""
    dear = prices.admin_percentage == DEARER_PERCENT
    delivery = {
        currency: {kind: cost + 150 if kind == "express" else cost for kind, cost in costs.items()}
        for currency, costs in prices.delivery_cost_minor.items()
    }
    return {
        "admin_percentage": str(USUAL_PERCENT if dear else DEARER_PERCENT),
        "delivery_cost_minor": delivery,
        "tax_rates": {place: str(rate) for place, rate in prices.tax_rates.items()},
    }
