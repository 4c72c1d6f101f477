"""`farebox payments renewals`, as it is typed."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.payments.gauges import count_renewals
from services.payments.orders.models import StripeOrder
from services.payments.renewals.models import BillableSubscription, PaymentMethod, Renewal
from shared.clock import utc_now
from shared.db import Base, create_engine, create_sessions
from tests.cli.conftest import Farebox
from tests.conftest import Database

SINCE = utc_now().replace(microsecond=0) - timedelta(days=2)
UNTIL = SINCE + timedelta(days=30)


@dataclass
class Kept:
    """Payments' own tables, as the worker would have left them."""

    database: Database

    def put(self, *rows: Base) -> None:
        async def write() -> None:
            engine = create_engine(self.database.url_for("payments"), "payments")
            async with create_sessions(engine).begin() as session:
                for row in rows:
                    session.add(row)
                    await session.flush()
            await engine.dispose()

        asyncio.run(write())

    def counted(self) -> dict[str, int]:
        async def count() -> dict[str, int]:
            engine = create_engine(self.database.url_for("payments"), "payments")
            found = await count_renewals(create_sessions(engine))
            await engine.dispose()
            return found

        return asyncio.run(count())


@pytest.fixture
def kept(database: Database) -> Kept:
    return Kept(database)


def renewal(status: str, **more: object) -> tuple[Renewal, BillableSubscription]:
    """One whose subscription still waits for it."""
    subscription_id, user_id = uuid4(), uuid4()
    whose = {"subscription_id": subscription_id, "user_id": user_id}
    price = {"currency": "EUR", "total_minor": 1_716, "price_version": 1, "cost_history_id": 1}
    period = {"period_start": SINCE, "period_end": UNTIL}
    subscription = BillableSubscription(
        **whose,
        revision=1,
        status="active",
        billing_interval="month",
        period_start=SINCE - timedelta(days=30),
        period_end=SINCE,
        created_at=SINCE - timedelta(days=30),
    )
    own = {"status": status, "method_revision": 1, "attempts": 1, **more}
    return Renewal(id=uuid4(), **whose, **period, **price, **own), subscription


def method_of(renewed: Renewal, revision: int = 1) -> PaymentMethod:
    return PaymentMethod(
        user_id=renewed.user_id,
        stripe_customer_id="cus_1",
        stripe_payment_method_id="pm_1",
        revision=revision,
    )


TOMORROW = utc_now() + timedelta(days=1)


def test_they_are_listed_shown_and_counted(farebox: Farebox, kept: Kept) -> None:
    waiting, its = renewal("past_due", failure_code="insufficient_funds", next_attempt_at=TOMORROW)
    paid, others = renewal("paid", ended_at=SINCE)
    order = StripeOrder(
        id=UUID(int=1),
        kind="create",
        status="refused",
        parameters={},
        ordered_by="renewals",
        renewal_id=waiting.id,
        failure_code="insufficient_funds",
        last_error="Your card has insufficient funds.",
        ask_after=SINCE,
        ended_at=SINCE,
    )
    kept.put(its, others, waiting, paid, order)
    listed = farebox("payments", "renewals", "list", "--status", "past_due")
    assert (listed.code, str(waiting.id) in listed.out) == (0, True), listed
    assert ("17.16 EUR" in listed.out, str(paid.id) in listed.out) == (True, False)
    rows = json.loads(farebox("payments", "renewals", "list", "--json").out)
    assert {row["status"] for row in rows} == {"past_due", "paid"}
    shown = json.loads(farebox("payments", "renewals", "show", str(waiting.id), "--json").out)
    assert shown["total_minor"] == 1_716
    assert [each["reason"] for each in shown["orders"]] == ["insufficient_funds"]
    assert "insufficient funds." in farebox("payments", "renewals", "show", str(waiting.id)).out
    assert kept.counted() == {"past_due": 1, "paid": 1}


@pytest.mark.parametrize(
    ("status", "more", "method", "code", "told"),
    [
        ("past_due", {"next_attempt_at": TOMORROW}, 1, 0, "it is charged now"),
        ("given_up", {"failure_code": "stolen_card", "ended_at": SINCE}, 2, 0, "charged now"),
        ("given_up", {"failure_code": "stolen_card", "ended_at": SINCE}, 1, 1, "card networks"),
        ("past_due", {}, None, 1, "no payment method"),
        ("paid", {"ended_at": SINCE}, 1, 1, "it is paid"),
    ],
)
def test_one_is_tried_again_or_it_is_said_why_not(
    farebox: Farebox,
    kept: Kept,
    status: str,
    more: dict[str, object],
    method: int | None,
    code: int,
    told: str,
) -> None:
    waiting, subscription = renewal(status, **more)
    methods = [method_of(waiting, method)] if method else []
    kept.put(subscription, waiting, *methods)
    tried = farebox("payments", "renewals", "retry", str(waiting.id))
    assert (tried.code, told in tried.out) == (code, True), tried
    shown = json.loads(farebox("payments", "renewals", "show", str(waiting.id), "--json").out)
    if code == 0:
        assert shown["status"] == "past_due"
        assert datetime.fromisoformat(shown["next_attempt_at"]) <= datetime.now(UTC)
    else:
        assert shown["status"] == status


def test_all_that_wait_are_tried_again_at_once(farebox: Farebox, kept: Kept) -> None:
    waiting, its = renewal("past_due", next_attempt_at=TOMORROW)
    asked, others = renewal("past_due", needs_new_method=True)
    kept.put(its, others, waiting, asked, method_of(waiting), method_of(asked))
    tried = json.loads(farebox("payments", "renewals", "retry", "--all", "--json").out)
    assert [row["renewal"] for row in tried] == [str(waiting.id)]


@pytest.mark.parametrize(
    "arguments",
    [("retry",), ("retry", str(UUID(int=1)), "--all"), ("list", "--status", "unpaid")],
)
def test_what_makes_no_sense_is_a_usage_fault(farebox: Farebox, arguments: tuple[str, ...]) -> None:
    assert farebox("payments", "renewals", *arguments).code == 2


def test_one_that_nobody_knows_is_said_to_be_so(farebox: Farebox) -> None:
    unknown = farebox("payments", "renewals", "show", str(UUID(int=1)))
    assert (unknown.code, "there is no renewal" in unknown.err) == (1, True)
