"""When a run is due, from when on it looks, and that each account is looked at apart."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import uuid4

from services.payments.reconcile.work import EVENTS_LAST, run_once
from tests.payments.lives import SUBSCRIPTION, USER
from tests.payments.reconcile.conftest import Stripe

HOUR = timedelta(hours=1)


async def scheduled(stripe: Stripe) -> None:
    """As the worker does: steps until there is nothing to do."""
    for _ in range(1_000):
        if await run_once(stripe.walker, HOUR):
            continue
        [waiting] = await stripe.service.rows(
            "SELECT count(*) AS open FROM reconcile_runs WHERE ended_at IS NULL"
        )
        if not waiting["open"]:
            return
        await stripe.service.fold_all()
        stripe.hands.later(1)
    raise AssertionError("the schedule does not come to an end")


async def runs(stripe: Stripe, account: str | None = None) -> list[dict[str, datetime]]:
    found = await stripe.service.rows(
        "SELECT since, objects_since, until FROM reconcile_runs"
        " WHERE account IS NOT DISTINCT FROM $1 ORDER BY started_at",
        account,
    )
    return [{k: v for k, v in row.items() if isinstance(v, datetime)} for row in found]


async def test_a_run_is_due_an_hour_after_the_last_began(stripe: Stripe) -> None:
    await scheduled(stripe)
    assert len(await runs(stripe)) == 1
    stripe.hands.later(3_500)
    await scheduled(stripe)
    assert len(await runs(stripe)) == 1
    stripe.hands.later(101)
    await scheduled(stripe)
    assert len(await runs(stripe)) == 2


async def test_the_windows_overlap_and_once_a_day_all_objects_are_compared(stripe: Stripe) -> None:
    for _ in range(26):
        await scheduled(stripe)
        stripe.hands.later(3_600)
    found = await runs(stripe)
    assert found[0]["until"] - found[0]["since"] == EVENTS_LAST
    for before, after in pairwise(found):
        assert before["until"] - after["since"] == HOUR
    deep = [i for i, run in enumerate(found) if run["until"] - run["objects_since"] >= EVENTS_LAST]
    assert deep[0] == 0
    assert len(deep) == 2
    assert found[deep[1]]["until"] - found[0]["until"] >= timedelta(hours=23)


async def test_a_run_that_was_lost_for_long_is_followed_by_one_that_reaches_back(
    stripe: Stripe,
) -> None:
    await scheduled(stripe)
    stripe.hands.later(10 * 86_400)
    await scheduled(stripe)
    first, second = await runs(stripe)
    assert second["since"] == first["until"] - HOUR


async def test_another_workers_lease_is_respected(stripe: Stripe) -> None:
    assert await run_once(stripe.walker, HOUR) == 1
    other = replace(stripe.walker, holder="another")
    assert await run_once(other, HOUR) == 0


async def test_each_account_is_walked_apart(stripe: Stripe) -> None:
    account = f"acct_{uuid4().hex[:12]}"
    stripe.at(stripe.begin)
    metadata = {"user_id": str(USER), "subscription_id": str(SUBSCRIPTION)}
    order = {
        "amount": 700,
        "currency": "usd",
        "confirm": True,
        "payment_method": "pm_card_visa",
        "metadata": metadata,
    }
    client = stripe.sandbox.client()
    own = client.v1.payment_intents.create(order).id  # type: ignore[arg-type]
    theirs = client.v1.payment_intents.create(
        order,  # type: ignore[arg-type]
        {"stripe_account": account},
    ).id
    stripe.hands.later(3_600)
    # Accounts are known by their payments: of the first we heard that it was created, and nothing more.
    created = client.v1.payment_intents.retrieve(theirs, options={"stripe_account": account})
    await stripe.deliver(
        [
            {
                "id": f"evt_{theirs}",
                "object": "event",
                "type": "payment_intent.created",
                "created": int(stripe.begin.timestamp()),
                "livemode": False,
                "account": account,
                "data": {
                    "object": {
                        **created.to_dict(),
                        "status": "requires_payment_method",
                        "amount_received": 0,
                    }
                },
            }
        ]
    )
    await scheduled(stripe)
    stripe.hands.later(61)
    await scheduled(stripe)
    rows = await stripe.service.payments()
    assert (rows[own]["account"], rows[own]["status"]) == (None, "succeeded")
    assert (rows[theirs]["account"], rows[theirs]["status"]) == (account, "succeeded")
    assert len(await runs(stripe, account)) == 1
