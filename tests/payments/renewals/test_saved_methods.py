"""What a customer pays with and has saved is what their renewals are charged with, in whatever order that is told."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.payments.saved_methods import Learnt, learn
from tests.payments.renewals.conftest import World
from tests.payments.renewals.test_stories import PERIOD


async def pay(world: World, user: UUID, **more: object) -> dict[str, object]:
    """A payment at the storefront's checkout, whose method is saved."""
    customer = world.sandbox.control("POST", "customers", {"outcomes": ["success"]})["customer"]
    asked = {
        "amount": 500,
        "currency": "usd",
        "customer": customer,
        "payment_method": "pm_card_visa",
        "confirm": True,
        "setup_future_usage": "off_session",
        "metadata": {"user_id": str(user)},
        **more,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    path = "/v1/payment_intents"
    await world.client.post(path, asked, f"checkout {customer}", None)
    return dict(world.intents()[0])


async def method_of(world: World, user: UUID) -> tuple[object, ...] | None:
    row = await world.owner.fetchrow(
        "SELECT stripe_customer_id, stripe_payment_method_id, revision, learnt_from, is_news"
        " FROM payments.payment_methods WHERE user_id = $1",
        user,
    )
    return tuple(row) if row else None


async def test_the_first_payment_saves_what_renewals_are_charged_with(world: World) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    paid = await pay(world, user)
    await world.hear_stripe()
    learnt = (paid["customer"], paid["payment_method"], 1, paid["id"], False)
    assert await method_of(world, user) == learnt
    await world.at(PERIOD[1])
    assert [fact["status"] for fact in await world.told(subscription)] == ["paid"]
    # Told again, it is no news.
    world.heard.clear()
    await world.hear_stripe()
    assert await method_of(world, user) == learnt


async def test_what_waited_for_a_method_is_charged_with_the_learnt_one(world: World) -> None:
    user = await world.customer()
    subscription = await world.subscribe(user)
    await world.at(PERIOD[1])
    [told] = await world.told(subscription)
    assert (told["status"], told["needs_new_method"]) == ("past_due", True)
    await pay(world, user)
    await world.hear_stripe()
    assert [fact["status"] for fact in await world.told(subscription)] == ["past_due", "recovered"]


@pytest.mark.parametrize(
    "more",
    [
        {"setup_future_usage": None},
        {"setup_future_usage": "on_session"},
        {"capture_method": "manual"},
        {"metadata": {}},
    ],
    ids=lambda each: next(iter(each)),
)
async def test_what_was_not_saved_or_not_paid_is_not_learnt(
    world: World, more: dict[str, object]
) -> None:
    user = await world.customer()
    await pay(world, user, **more)
    await world.hear_stripe()
    assert await method_of(world, user) is None


@pytest.mark.parametrize("backwards", [False, True])
async def test_the_latest_payment_counts_whatever_is_heard_first(
    world: World, backwards: bool
) -> None:
    user = await world.customer()
    paid = []
    for _ in range(2):
        world.clock.later(60)
        world.sandbox.control("POST", "clock", {"now": world.now.isoformat()})
        paid.append((await pay(world, user))["payment_method"])
    told = world.listed("events", {"limit": "30"})["data"]
    for method in reversed(paid) if backwards else paid:
        about = {e["id"] for e in told if e["data"]["object"].get("payment_method") == method}
        world.heard = {e["id"] for e in told} - about
        await world.hear_stripe()
    known = await method_of(world, user)
    assert known is not None
    assert (known[1], known[2]) == (paid[1], 1 if backwards else 2)


async def test_one_that_was_given_later_is_kept(world: World) -> None:
    user = await world.customer()
    await pay(world, user)
    world.clock.later(60)
    await world.give_card(user, "success")
    given = await method_of(world, user)
    await world.hear_stripe()
    assert await method_of(world, user) == given


@pytest.mark.parametrize("account", [None, "acct_ours"])
async def test_what_was_saved_with_another_account_is_not_charged_for_this_ones_renewals(
    world: World, account: str | None
) -> None:
    user, stranger, later = uuid4(), uuid4(), world.now + timedelta(days=1)
    await world.owner.execute(
        "INSERT INTO payments.payment_methods (user_id, stripe_customer_id,"
        " stripe_payment_method_id, account, updated_at) VALUES ($1, 'cus_1', 'pm_1', $2, $3)",
        user,
        account,
        world.now,
    )
    async with world.pool.acquire() as connection:
        # One batch of the fold: of both accounts, and of somebody nothing is known of.
        bought = [Learnt(later, "pi_1", user, "cus_2", "pm_2", account)]
        for who in (user, stranger):
            bought.append(Learnt(later, "pi_2", who, "cus_3", "pm_3", "acct_elsewhere"))
        await learn(connection, bought)
    known = await method_of(world, user)
    assert known == ("cus_2", "pm_2", 2, "pi_1", True)
    assert await method_of(world, stranger) is None
