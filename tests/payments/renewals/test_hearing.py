"""What pricing says is remembered by its highest revision, whatever order it comes in."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from services.payments.handlers import HANDLERS
from shared.consumer import deliver
from shared.events import SubscriptionChanged, SubscriptionStatus
from tests.payments.costs import cost
from tests.payments.renewals.conftest import START, World

SUBSCRIPTION = UUID(int=7)


def life(revision: int, status: SubscriptionStatus) -> SubscriptionChanged:
    return SubscriptionChanged(
        id=uuid4(),
        occurred_at=START + timedelta(hours=revision),
        customer_id=UUID(int=3),
        subscription_id=SUBSCRIPTION,
        revision=revision,
        status=status,
        currency="EUR",
        billing_interval="month",
        period_start=START,
        period_end=START + timedelta(days=revision),
        created_at=START,
        canceled_at=START if status == "canceled" else None,
    )


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
async def test_the_highest_revision_says_how_a_subscription_lives(
    world: World, order: Sequence[int], batched: bool
) -> None:
    statuses: dict[int, SubscriptionStatus] = {1: "active", 2: "paused", 3: "active"}
    facts = [life(revision, statuses[revision]) for revision in order]
    for batch in [facts] if batched else [[fact] for fact in facts]:
        await deliver(world.payments, "payments", HANDLERS, batch)
    row = await world.owner.fetchrow("SELECT * FROM payments.billable_subscriptions")
    assert (row["revision"], row["status"]) == (3, "active")
    assert row["period_end"] == START + timedelta(days=3)
    if batched or order == (1, 2, 3):
        assert row["resumed_at"] == START + timedelta(hours=3)


async def test_every_cost_that_was_told_is_kept(world: World) -> None:
    facts = [cost(revision, 100 * revision) for revision in (3, 1, 2)]
    for batch in ([facts[0]], facts[1:], facts):
        await deliver(world.payments, "payments", HANDLERS, batch)
    rows = await world.owner.fetch("SELECT * FROM payments.told_costs ORDER BY revision")
    assert [row["total_minor"] for row in rows] == [100, 200, 300]
