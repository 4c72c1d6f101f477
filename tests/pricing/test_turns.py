"""Turns that come later, or never: whoever is to be told is, and nobody is moved who was not."""

from datetime import timedelta
from uuid import UUID

from shared.db import Sessions
from shared.events import NoticeDue, SubscriptionCostChanged
from tests.pricing.conftest import Shop, Ticking, hear_storefront
from tests.pricing.crowd import change, outcomes, roll_out
from tests.pricing.test_held import DEARER, begun, now_of


async def test_who_was_not_told_in_time_keeps_his_price(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 10)
    notice = {"timing": {"when": "now", "notice_days": 14, "notice_lead_days": 3}}
    version = await change(sessions, clock, DEARER | notice)
    await roll_out(sessions, clock)
    waiting = await now_of(sessions, version, clock.now)
    at = clock.now + timedelta(days=17)
    assert (waiting.todo, waiting.later, waiting.next_due_at) == (10, 10, at)
    facts = [
        NoticeDue.model_validate_json(fact["body"]) for fact in await shop.facts(NoticeDue.type)
    ]
    assert {fact.notify_by for fact in facts} == {clock.now + timedelta(days=3)}
    assert len({fact.notice_id for fact in facts}) == 10
    told = "UPDATE pricing.notices SET told_at = $2, told_by = 'mail' WHERE id = $1"
    for fact, late in zip(facts, (0, 0, 0, 1), strict=False):
        await shop.storefront.execute(
            told, fact.notice_id, fact.notify_by + timedelta(seconds=late)
        )
    clock.now = at
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("moved", None): 3, ("kept", "not_told"): 7}
    assert len(await shop.facts(NoticeDue.type)) == 10
    for fact in facts[:3]:
        line = (await shop.history(fact.subscription_id))[-1]
        assert (line["effective_at"], line["new_total_minor"]) == (at, fact.new_total_minor)
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 3


async def test_a_row_whose_turn_cannot_be_told_stops_nobody_else(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 10)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET period_end = 'infinity' WHERE id = $1", UUID(int=3)
    )
    version = await change(sessions, clock, DEARER | {"timing": {"when": "next_renewal"}})
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("failed", "no_turn"): 1, (None, None): 9}
    said = await shop.storefront.fetchrow(
        "SELECT outcome, code FROM pricing.preview_items WHERE subscription_id = $1", UUID(int=3)
    )
    assert tuple(said) == ("failed", "no_turn")


async def test_who_could_not_be_priced_that_day_is_grandfathered_all_the_same(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [one, *_] = await begun(shop, sessions, clock, 3)
    run = shop.storefront.execute
    await run("UPDATE public.subscriptions SET delivery_address_id = NULL WHERE id = $1", one)
    timing: dict[str, object] = {"timing": {"when": "grandfathered"}}
    version = await change(sessions, clock, DEARER | timing)
    await roll_out(sessions, clock)
    assert (await outcomes(shop, version))["excluded", "no_delivery_address"] == 1
    before = (await shop.row(one))["total_minor"]
    await run("UPDATE public.subscriptions SET delivery_address_id = id WHERE id = $1", one)
    await hear_storefront(shop, sessions)
    assert (await shop.row(one))["total_minor"] == before
    await roll_out(sessions, clock)
    assert await outcomes(shop, version) == {("kept", "grandfathered"): 3}
    assert (await shop.row(one))["total_minor"] == before


async def test_a_fall_that_became_a_rise_is_told_from_then_on(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await begun(shop, sessions, clock, 4)
    renews = clock.now + timedelta(days=40)
    await shop.storefront.execute("UPDATE public.subscriptions SET period_end = $1", renews)
    cheaper: dict[str, object] = {
        "admin_percentage": "9",
        "timing": {"when": "next_renewal", "notice_days": 14},
        "scope": {"currencies": ["USD", "EUR", "JPY"]},
    }
    cohort = await change(sessions, clock, cheaper)
    await roll_out(sessions, clock)
    assert await shop.facts(NoticeDue.type) == []
    clock.pass_(days=1)
    await change(sessions, clock, {"admin_percentage": "1"})
    await roll_out(sessions, clock)
    clock.now = renews
    await roll_out(sessions, clock)
    told = [NoticeDue.model_validate_json(f["body"]) for f in await shop.facts(NoticeDue.type)]
    assert len(told) == 4
    assert all(notice.notify_by >= renews + timedelta(days=3) for notice in told)
    assert await outcomes(shop, cohort) == {(None, None): 4}
