"""`farebox audit` on a shop that renews: all holds, and each damage is found by its own line."""

from datetime import timedelta

from sqlalchemy import text

from services.payments.audit_doing import checks
from services.payments.orders.place import Order, place
from shared.audit import CheckResult
from shared.events import derived_id
from tests.payments.renewals.conftest import World
from tests.payments.renewals.test_stories import PERIOD

# One paid period again, and its payment: under another order.
AGAIN = """
INSERT INTO stripe_orders (id, kind, status, parameters, ordered_by, ask_after, ended_at,
    subscription_id, stripe_payment_id)
SELECT gen_random_uuid(), 'create', 'refused', parameters, 'x', now(), now(), subscription_id, (
    SELECT min(stripe_id) FROM payment_intents WHERE stripe_id <> stripe_payment_id
        AND received_minor > 0)
FROM stripe_orders WHERE kind = 'create' LIMIT 1
"""
ASKED = """
INSERT INTO api_requests (caller, idempotency_key, order_id, fingerprint, held_until, status, answer)
SELECT 'shop', 'key', id, '', now(), 200, '{}' FROM stripe_orders LIMIT 1
"""
UNPAID = "UPDATE payment_intents SET status = 'canceled' WHERE stripe_id IN (SELECT stripe_payment_id FROM renewals)"
PAST = "UPDATE renewals SET ended_at = now() - interval '11 minutes'"
BREAKS = [
    ("S11", "DELETE FROM stripe_events WHERE id LIKE 'farebox%'", "without Stripe's answer"),
    (
        "S11",
        f"{ASKED}; UPDATE stripe_orders SET status = 'open', ended_at = NULL",
        "requests answered before",
    ),
    ("S11", f"{ASKED}; UPDATE api_requests SET order_id = gen_random_uuid()", "requests answered"),
    ("S11", AGAIN, "periods paid more than once"),
    (
        "S11",
        "UPDATE stripe_orders SET amount_minor = 100000 WHERE kind = 'refund'",
        "more ordered back than came",
    ),
    (
        "S11",
        (
            "UPDATE stripe_orders SET status = 'open', ended_at = NULL,"
            " failure_code = 'api_key_refused', created_at = now() - interval '61 minutes'"
        ),
        "not listened to for an hour: api_key_refused",
    ),
    (
        "S12",
        "DELETE FROM outbox WHERE type = 'payments.renewal_changed' AND payload->>'status' = 'paid'",
        "renewals whose changes",
    ),
    ("S12", "UPDATE renewals SET revision = revision + 1", "renewals whose changes"),
    ("S12", "UPDATE outbox SET headers = headers - 'ce_causationid'", "renewals whose changes"),
    ("S12", "UPDATE renewals SET status = 'given_up'", "renewals whose changes"),
    (
        "S12",
        "UPDATE outbox SET payload = payload || '{\"revision\": 7}' WHERE payload ? 'renewal_id'",
        "renewals whose changes",
    ),
    ("S12", "DELETE FROM stripe_orders; DELETE FROM renewals", "renewals whose changes"),
    ("S12", UNPAID, "without the payment of their amount"),
    ("S12", "UPDATE renewals SET total_minor = 1", "without the payment of their amount"),
    ("S12", "UPDATE renewals SET currency = 'EUR'", "without the payment of their amount"),
    ("S12", "UPDATE renewals SET stripe_payment_id = NULL", "without the payment of their amount"),
    (
        "S12",
        "UPDATE renewals SET period_end = period_end + interval '40 days'",
        "paid periods that overlap",
    ),
    (
        "S12",
        f"{PAST}; UPDATE billable_subscriptions SET period_end = period_start",
        "paid periods that never began",
    ),
]

# Given back, a period may be paid again; a refund that failed may be made again.
ALLOWED = (
    f"UPDATE payment_intents SET refunded_minor = received_minor; {AGAIN}",
    (
        "UPDATE stripe_orders SET amount_minor = 100000 WHERE kind = 'refund'; UPDATE payment_intents"
        " SET fold = jsonb_build_object('refunds', (SELECT jsonb_object_agg(stripe_object_id,"
        " jsonb_build_object('status', 'failed')) FROM stripe_orders WHERE kind = 'refund'))"
    ),
)


async def audited(world: World, damage: str = "SELECT 1") -> list[CheckResult]:
    """What is broken is whole again afterwards."""
    async with world.payments() as session:
        for statement in damage.split(";"):
            await session.execute(text(statement.replace(":", r"\:")))
        found = await checks(session)
        await session.rollback()
        return found


async def test_what_was_ordered_and_charged_holds_and_each_damage_is_found(world: World) -> None:
    subscription = await world.subscribe(await world.customer("success"))
    other = await world.subscribe(await world.customer("insufficient_funds", "success"))
    await world.at(PERIOD[1])
    await world.at(PERIOD[1] + timedelta(days=1))
    await world.at(PERIOD[2])
    [first, *_] = await world.renewals(subscription)
    async with world.payments.begin() as session:
        order = Order(
            id=derived_id("given back"),
            kind="refund",
            parameters={"payment_intent": first["stripe_payment_id"], "amount": 100},
            ordered_by="test",
            stripe_payment_id=first["stripe_payment_id"],
            currency="USD",
            amount_minor=100,
        )
        await place(session, order, world.now)
    await world.settle()
    assert {len(await world.renewals(each)) for each in (subscription, other)} == {2}
    whole = await audited(world)
    assert all(check.ok for check in whole), whole
    assert sum(check.counted for check in whole if check.id == "S11") >= 8
    assert sum(check.counted for check in whole if check.id == "S12") >= 16
    for identity, damage, said in BREAKS:
        wrong = [check for check in await audited(world, damage) if not check.ok]
        assert [check.id for check in wrong if said in check.detail] == [identity], (damage, wrong)
    for damage in ALLOWED:
        found = await audited(world, damage)
        assert all(check.ok for check in found), (damage, found)
