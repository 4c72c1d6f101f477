import json
import re
from datetime import timedelta
from uuid import UUID

from services.pricing.models import Rollout
from services.pricing.operating import Progress, progress
from services.pricing.pricing_sql import LOCK, Shape
from services.pricing.rollout import run_once
from services.pricing.rollout_sql import move
from shared.db import Sessions
from shared.events import ConfigPublished, SubscriptionCostChanged
from tests.pricing.conftest import DELIVERY, START, Shop, Ticking, hear_storefront, publish_config

LONG_AGO = START - timedelta(days=3_000)
DEARER: dict[str, object] = {"admin_percentage": "20"}
CHUNK = 3


async def finish(sessions: Sessions, clock: Ticking) -> int:
    done = 0
    while await run_once(sessions, clock, CHUNK):
        done += 1
        assert done < 100, "the rollout does not end"
    return done


async def progress_of(sessions: Sessions, version: int) -> Progress:
    async with sessions() as session:
        return await progress(session, version, START)


async def customers(shop: Shop, sessions: Sessions, clock: Ticking, count: int) -> list[UUID]:
    """`count` subscriptions priced by a first version, whose own rollout is over."""
    await publish_config(sessions, LONG_AGO)
    variant = await shop.variant(1_000)
    made = [await shop.subscription([(variant, n)]) for n in range(1, count + 1)]
    await hear_storefront(shop, sessions)
    await finish(sessions, clock)
    return made


async def test_every_subscription_moves_and_says_so_once(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    made = await customers(shop, sessions, clock, 8)
    version = await publish_config(sessions, clock.now, DEARER)
    await finish(sessions, clock)

    for n, subscription in enumerate(made, 1):
        row = await shop.row(subscription)
        taxable = n * 1_200 + 500
        assert (row["price_version"], row["total_minor"]) == (
            version,
            taxable + round(taxable * 0.0725),
        )
        first, second = await shop.history(subscription)
        assert (second["kind"], second["reason"], second["changed_by"]) == (
            "config",
            "new prices",
            "ada",
        )
        assert (second["effective_at"], second["price_version"]) == (clock.now, version)
        assert second["old_breakdown"] == first["new_breakdown"]
        [_, said] = await shop.facts(SubscriptionCostChanged.type, subscription)
        assert (said["cause"], json.loads(said["body"])["cost_history_id"]) == (
            second["cause_id"],
            second["id"],
        )
    [published] = (await shop.facts(ConfigPublished.type))[1:]
    assert str(published["id"]) == said["cause"]
    done = await progress_of(sessions, version)
    assert (done.status, done.listed, done.todo, done.outcomes["moved"]) == ("done", 8, 0, 8)


async def test_whoever_was_never_said_anything_of_gets_a_first_revision(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    """As rows that were there before the trigger: the others' revisions are renewed beside theirs."""
    unsaid, said = await customers(shop, sessions, clock, 2)
    await shop.storefront.execute(
        "DELETE FROM pricing.subscription_revisions WHERE subscription_id = $1", unsaid
    )
    await publish_config(sessions, clock.now, DEARER)
    await finish(sessions, clock)

    for subscription, revision in ((unsaid, 1), (said, 3)):
        head = await shop.storefront.fetchrow(
            "SELECT revision, encode(head, 'hex') FROM pricing.subscription_revisions"
            " WHERE subscription_id = $1",
            subscription,
        )
        fact = json.loads(
            (await shop.facts(SubscriptionCostChanged.type, subscription))[-1]["body"]
        )
        said_of = (fact["revision"], fact["history_hash"])
        assert said_of == tuple(head)
        assert said_of[0] == revision


async def test_a_plan_made_while_there_are_no_items_goes_by_keys(
    shop: Shop, sessions: Sessions
) -> None:
    """It is kept for a whole rollout: whatever the tables grow to, no chunk reads all of one for each row."""
    async with sessions() as session:
        dialect = session.get_bind().dialect
    await shop.storefront.execute("SET search_path = pricing")
    await shop.storefront.execute("VACUUM rollout_items, preview_items, notices")
    async with shop.storefront.transaction():
        await shop.storefront.fetch(str(LOCK.compile(dialect=dialect)), [])
        statement = str(move(Shape()).compile(dialect=dialect))
        nothing = ", ".join("NULL" for _ in set(re.findall(r"\$\d+", statement)))
        await shop.storefront.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await shop.storefront.execute(f"PREPARE moving AS {statement}")
        plan = await shop.storefront.fetch(f"EXPLAIN EXECUTE moving ({nothing})")
    assert [line for (line,) in plan if "Seq Scan on" in line] == []


async def test_the_same_cents_are_kept_and_stamped(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    version = await publish_config(sessions, clock.now)
    await finish(sessions, clock)

    assert (await shop.row(subscription))["price_version"] == version
    assert len(await shop.history(subscription)) == 1
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1
    assert (await progress_of(sessions, version)).outcomes["kept"] == 1


async def test_other_percentages_for_the_same_cents_are_no_change_of_cost(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    before = json.loads((await shop.row(subscription))["cost_breakdown"])
    # 10.01 % of 1,000 and 7.251 % of 1,600 round to what they were
    same_cents = {"admin_percentage": "10.01", "tax_rates": {"US-CA": "0.07251"}}
    version = await publish_config(sessions, clock.now, same_cents)
    await finish(sessions, clock)

    row = await shop.row(subscription)
    assert row["price_version"] == version
    assert json.loads(row["cost_breakdown"]) == before | {"price_versions": [version]}
    assert len(await shop.history(subscription)) == 1
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 1
    assert (await progress_of(sessions, version)).outcomes["kept"] == 1


async def test_other_lines_with_the_same_total_are_a_change_of_cost(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    # a fee of 200 instead of 100, a delivery of 400 instead of 500
    version = await publish_config(
        sessions, clock.now, DEARER | {"delivery_cost_minor": {"USD": {"standard": 400}}}
    )
    await finish(sessions, clock)
    first, second = await shop.history(subscription)
    assert (first["new_total_minor"], second["price_version"]) == (
        second["new_total_minor"],
        version,
    )
    assert len(await shop.facts(SubscriptionCostChanged.type)) == 2
    assert (await progress_of(sessions, version)).outcomes["moved"] == 1


async def test_nobody_is_forgotten_and_one_bad_subscription_stops_no_other(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    made = await customers(shop, sessions, clock, 5)
    paused, canceled, broken, empty, moved = made
    run = shop.storefront.execute
    cancel = (
        "UPDATE public.subscriptions SET status = 'canceled', canceled_at = now() WHERE id = $1"
    )
    await run("UPDATE public.subscriptions SET status = 'paused' WHERE id = $1", paused)
    await run(cancel, canceled)
    await run(
        "UPDATE public.subscriptions SET variants = '[{\"quantity\": 0}]' WHERE id = $1", broken
    )
    await run("UPDATE public.subscriptions SET variants = '[]' WHERE id = $1", empty)
    yen = await shop.subscription([(await shop.variant(900, "JPY"), 1)], currency="JPY", place="JP")
    version = await publish_config(
        sessions,
        clock.now,
        DEARER | {"delivery_cost_minor": {"USD": DELIVERY["USD"]}},
    )
    await finish(sessions, clock)

    items = await shop.storefront.fetch(
        "SELECT * FROM pricing.rollout_items WHERE price_version = $1", version
    )
    outcomes = {item["subscription_id"]: (item["outcome"], item["detail"]) for item in items}
    assert outcomes == {
        paused: ("moved", None),
        broken: ("failed", "variants.0.variant_id: Field required"),
        empty: ("excluded", "it has no variants"),
        moved: ("moved", None),
        yen: (
            "failed",
            "no delivery cost is configured for JPY; publish a configuration that has it",
        ),
    }
    done = await progress_of(sessions, version)
    assert sum(done.outcomes.values()) + done.todo == done.listed == 5
    assert done.status == "done"


async def test_whom_a_rollout_had_to_leave_is_moved_as_soon_as_it_can_be(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    variants = (await shop.row(subscription))["variants"]
    write = "UPDATE public.subscriptions SET variants = $1"
    await shop.storefront.execute(write, "[]")
    version = await publish_config(sessions, clock.now, DEARER)
    await finish(sessions, clock)
    assert (await progress_of(sessions, version)).outcomes["excluded"] == 1

    await shop.storefront.execute(write, variants)
    await hear_storefront(shop, sessions)
    [_, line] = await shop.history(subscription)
    assert (line["kind"], line["price_version"], line["new_total_minor"]) == (
        "config",
        version,
        1_823,
    )


async def test_whom_a_rollout_had_to_leave_is_only_stamped_where_no_cent_differs(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    variants = (await shop.row(subscription))["variants"]
    write = "UPDATE public.subscriptions SET variants = $1"
    await shop.storefront.execute(write, "[]")
    version = await publish_config(sessions, clock.now, {"admin_percentage": "10.01"})
    await finish(sessions, clock)
    await shop.storefront.execute(write, variants)
    await hear_storefront(shop, sessions)
    assert (await shop.row(subscription))["price_version"] == version
    assert len(await shop.history(subscription)) == 1


async def test_who_was_canceled_during_a_rollout_and_is_not_any_more_is_moved(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    write = "UPDATE public.subscriptions SET status = $1, canceled_at = $2"
    await shop.storefront.execute(write, "canceled", clock.now)
    version = await publish_config(sessions, clock.now, DEARER)
    await finish(sessions, clock)
    await shop.storefront.execute(write, "active", None)
    await hear_storefront(shop, sessions)
    assert (await shop.row(subscription))["price_version"] == version


async def test_a_fact_heard_before_its_turn_leaves_the_move_to_the_rollout(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    version = await publish_config(sessions, clock.now, DEARER)
    await shop.storefront.execute("UPDATE public.subscriptions SET status = 'paused'")
    await hear_storefront(shop, sessions)
    assert len(await shop.history(subscription)) == 1
    await finish(sessions, clock)
    assert (await progress_of(sessions, version)).outcomes["moved"] == 1


async def test_a_subscription_never_priced_is_priced_by_the_rollout(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    subscription = await shop.subscription([(await shop.variant(1_000), 1)])
    await publish_config(sessions, clock.now)
    await finish(sessions, clock)
    [line] = await shop.history(subscription)
    assert (line["kind"], line["new_total_minor"]) == ("created", 1_716)
    assert json.loads((await shop.row(subscription))["variants"])[0]["unit_price_minor"] == 1_000


async def test_two_workers_do_not_do_one_rollout_twice(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    await customers(shop, sessions, clock, 4)
    version = await publish_config(sessions, clock.now, DEARER)
    async with sessions.begin() as first:
        await first.get(Rollout, version, with_for_update=True)
        assert await run_once(sessions, clock, CHUNK) == 0
    await run_once(sessions, clock, CHUNK)
    assert (await progress_of(sessions, version)).outcomes["moved"] == CHUNK


async def test_a_scheduled_version_takes_effect_when_its_time_comes(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    noon = clock.now + timedelta(hours=1)
    version = await publish_config(sessions, clock.now, DEARER, noon)
    assert await finish(sessions, clock) == 0
    clock.pass_(minutes=59)
    assert await finish(sessions, clock) == 0
    clock.pass_(minutes=2)
    assert await finish(sessions, clock) > 0

    row = await shop.row(subscription)
    assert (row["price_version"], row["total_minor"]) == (version, 1_823)
    [_, line] = await shop.history(subscription)
    assert line["effective_at"] == noon
    statuses = await shop.storefront.fetch(
        "SELECT version, status, effective_to FROM pricing.pricing_configs ORDER BY version"
    )
    assert [tuple(s) for s in statuses] == [(1, "retired", noon), (version, "active", None)]


async def test_a_version_replaced_before_its_rollout_ends_defers_the_rest_to_the_newer(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    made = await customers(shop, sessions, clock, 5)
    second = await publish_config(sessions, clock.now, DEARER)
    await run_once(sessions, clock, CHUNK)
    third = await publish_config(sessions, clock.pass_(minutes=1), {"admin_percentage": "30"})
    await finish(sessions, clock)

    outcomes = (await progress_of(sessions, second)).outcomes
    assert (outcomes["moved"], outcomes["deferred"]) == (3, 2)
    assert (await progress_of(sessions, third)).outcomes["moved"] == 5
    assert {(await shop.row(s))["price_version"] for s in made} == {third}


async def test_a_subscription_changed_before_its_turn_keeps_its_price_until_then(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    version = await publish_config(sessions, clock.now, DEARER)
    await shop.storefront.execute(
        "UPDATE public.subscriptions SET delivery_type = 'pickup' WHERE id = $1", subscription
    )
    await hear_storefront(shop, sessions)
    await finish(sessions, clock)
    kinds = [(line["kind"], line["price_version"]) for line in await shop.history(subscription)]
    assert kinds == [("created", 1), ("delivery", 1), ("config", version)]
    assert (await progress_of(sessions, version)).outcomes["moved"] == 1


async def test_a_change_not_heard_yet_is_priced_with_the_move(
    shop: Shop, sessions: Sessions, clock: Ticking
) -> None:
    [subscription] = await customers(shop, sessions, clock, 1)
    version = await publish_config(sessions, clock.now, DEARER)
    await shop.storefront.execute("UPDATE public.subscriptions SET delivery_type = 'pickup'")
    await finish(sessions, clock)
    await hear_storefront(shop, sessions)
    [_, line] = await shop.history(subscription)
    assert (line["kind"], line["price_version"]) == ("config", version)
    assert line["new_total_minor"] == 1_287
