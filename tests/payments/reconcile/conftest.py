"""A Stripe whose past is one's own: each test lives in months of its own, in which nothing else ever happened."""

import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.payments.gateway import StripeClient
from services.payments.reconcile.report import Report
from services.payments.reconcile.walker import Walker
from services.payments.reconcile.work import reconcile
from tests.payments.conftest import Hands, Service
from tests.payments.lives import SUBSCRIPTION, USER
from tests.sandbox.conftest import PLAIN, RunningSandbox, sandbox

__all__ = ["sandbox"]

Event = dict[str, Any]
MONTHS = itertools.count(1)
FIRST = datetime(2027, 1, 1, tzinfo=UTC)
# Longer than any life that is played.
APART = timedelta(days=200)
MONEY = (
    "status",
    "amount_minor",
    "capturable_minor",
    "received_minor",
    "refunded_minor",
    "disputed_minor",
    "failure_code",
)


@dataclass
class Stripe:
    """What happened at the stand-in since `begin`; nothing of it was delivered."""

    sandbox: RunningSandbox
    service: Service
    hands: Hands
    begin: datetime
    walker: Walker

    def play(
        self, *lifecycles: str, seed: int = 1, settles_in: str | None = None, **faults: object
    ) -> list[str]:
        """Lives that begin within an hour; afterwards it is half a year later."""
        payments = [
            {
                "user_id": str(USER),
                "subscription_id": str(SUBSCRIPTION),
                "amount_minor": 9_000,
                "currency": "USD",
                "lifecycle": each,
                "settles_in": settles_in,
            }
            for each in lifecycles
        ]
        played = self.sandbox.control(
            "POST",
            "play",
            {
                "seed": f"{self.begin}:{seed}",
                "start_at": int(self.begin.timestamp()),
                "spread_seconds": 3_600,
                "payments": payments,
                "faults": faults,
            },
        )
        self.hands.now = self.begin + APART - timedelta(days=20)
        return [each["stripe_id"] for each in played["payments"]]

    def at(self, moment: datetime) -> None:
        """The time, here and there."""
        self.hands.now = moment
        self.sandbox.control("POST", "clock", {"now": int(moment.timestamp())})

    def get(self, path: str, **params: object) -> dict[str, Any]:
        answer = PLAIN.get(
            f"{self.sandbox.url}{path}",
            params={k: str(v) for k, v in params.items()},
            headers={"Authorization": "Bearer sk_test_x"},
        )
        listed: dict[str, Any] = answer.raise_for_status().json()
        return listed

    def events(self) -> list[Event]:
        """All since `begin`, the oldest first."""
        found: list[Event] = []
        only: dict[str, object] = {"created[gte]": int(self.begin.timestamp()), "limit": 100}
        has_more = True
        while has_more:
            page = self.get("/v1/events", **only)
            found += page["data"]
            has_more = page["has_more"]
            only["starting_after"] = found[-1]["id"] if found else ""
        return found[::-1]

    async def deliver(self, events: Iterable[Event]) -> None:
        await self.service.receive(list(events))
        await self.service.fold_all()

    async def walk(self, **changed: Any) -> Report:
        """To the end, all since `begin`, and all that was found is folded."""
        report = await reconcile(replace(self.walker, **changed), self.begin)
        await self.service.fold_all()
        return report

    async def assert_true(self, stripe_ids: Iterable[str]) -> None:
        truth = self.sandbox.control("GET", "truth")
        rows = await self.service.payments()
        for each in stripe_ids:
            row = rows[each]
            assert {n: row[n] for n in MONEY} == {n: truth[each][n] for n in MONEY}, each


@pytest.fixture
async def client(sandbox: RunningSandbox) -> AsyncIterator[StripeClient]:
    opened = StripeClient("sk_test_reconcile", sandbox.url)
    yield opened
    await opened.close()


@pytest.fixture
async def stripe(
    sandbox: RunningSandbox, service: Service, hands: Hands, client: StripeClient
) -> AsyncIterator[Stripe]:
    begin = FIRST + next(MONTHS) * APART

    async def sleep(seconds: float) -> None:
        hands.later(seconds)

    walker = Walker(service.pool, client, "test", hands, sleep=sleep)
    sandbox.control("POST", "silence", {"fate": "never_made", "count": 0})
    yield Stripe(sandbox, service, hands, begin, walker)
    sandbox.control("POST", "clock", {"now": None})
