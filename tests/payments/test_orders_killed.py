"""Killed with -9 at every await of a request or of the worker: nobody is charged or refunded twice, nothing is lost."""

import asyncio
import os
import sys
from collections.abc import Sequence
from uuid import uuid4

from tests.conftest import Database
from tests.payments.mortal import Deed, Errand
from tests.payments.orders_desk import Caller, shop
from tests.sandbox.conftest import sandbox

__all__ = ["sandbox", "shop"]

KILLED = -9
# More than any of them has: the last ones live to the end.
AWAITS = 60
# Each death takes half a second or so; FAREBOX_EVERY_AWAIT=1 leaves none out.
STRIDE = 1 if os.environ.get("FAREBOX_EVERY_AWAIT") else 7


async def send_out(shop: Caller, database: Database, who: str, deeds: Sequence[Deed]) -> list[int]:
    """The signals that the errand's processes ended with, 0 where one lived."""
    errand = Errand(
        who=who,
        database_url=database.url,
        stripe_base=shop.sandbox.url,
        token=shop.token,
        now=shop.hands(),
        deeds=list(deeds),
        stride=STRIDE,
    )
    command = [sys.executable, "-m", "tests.payments.mortal"]
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate(errand.model_dump_json().encode())
    # Their logs are among them.
    ends = [int(line) for line in out.decode().split() if line in ("0", str(KILLED))]
    assert ends == [*[KILLED] * (len(ends) - 2), 0, 0], "it must die at each await, then live"
    print(f"{who}: killed {len(ends) - 2} times, every {STRIDE}. await")
    assert len(ends) > (10 if STRIDE == 1 else 4)
    return ends


async def test_killed_at_every_await_of_a_creation_each_customer_is_charged_once(
    shop: Caller, database: Database
) -> None:
    deeds = [
        Deed(
            path="/payments",
            key=f"create {number}",
            body={
                "user_id": str(uuid4()),
                "amount_minor": 1_000,
                "currency": "EUR",
                "payment_method": "pm_card_visa",
                "confirm": True,
            },
        )
        for number in range(AWAITS)
    ]
    deeds = deeds[: len(await send_out(shop, database, "web", deeds))]
    await come_back(shop, deeds)
    assert charged_by_user(shop, deeds) == {str(deed.body["user_id"]): 1 for deed in deeds}


async def test_killed_at_every_await_of_a_refund_each_is_given_back_once(
    shop: Caller, database: Database
) -> None:
    payment_id = await shop.paid(amount=100_000)
    deeds = [
        Deed(
            path=f"/payments/{payment_id}/refund",
            key=f"refund {number}",
            body={"amount_minor": 10 + number},
        )
        for number in range(AWAITS)
    ]
    deeds = deeds[: len(await send_out(shop, database, "web", deeds))]
    await come_back(shop, deeds)
    payment = await shop.payment(payment_id)
    wanted = [int(str(deed.body["amount_minor"])) for deed in deeds]
    assert sorted(each["amount_minor"] for each in payment["refunds"]) == wanted
    assert shop.truth(payment["stripe_id"])["refunded_minor"] == sum(wanted)


async def test_the_worker_killed_at_every_await_charges_each_order_once(
    shop: Caller, database: Database
) -> None:
    deeds = []
    for _ in range(AWAITS):
        order_id = str(uuid4())
        metadata = {"user_id": order_id, "farebox_order": order_id}
        body = {
            "amount": 1_000,
            "currency": "eur",
            "confirm": True,
            "payment_method": "pm_card_visa",
            "metadata": metadata,
        }
        deeds.append(Deed(key=order_id, body=body))
    deeds = deeds[: len(await send_out(shop, database, "worker", deeds))]
    await outlive(shop)
    rows = await shop.service.rows("SELECT status, count(*) AS n FROM stripe_orders GROUP BY 1")
    assert rows == [{"status": "done", "n": len(deeds)}]
    assert charged_by_user(shop, deeds) == {deed.key: 1 for deed in deeds}


async def outlive(shop: Caller) -> None:
    """The dead hold orders and a lease for a while; then a living worker ends what they left."""
    shop.hands.later(120)
    await shop.service.pool.execute("DELETE FROM leases")
    await shop.work()


async def come_back(shop: Caller, deeds: Sequence[Deed]) -> None:
    """The worker ends what was left; then every caller asks again, with the same key."""
    await outlive(shop)
    assert await shop.service.rows("SELECT id FROM stripe_orders WHERE status = 'open'") == []
    for deed in deeds:
        answer = await shop.write(deed.path, deed.body, key=deed.key)
        assert answer.is_success, answer.text
        assert answer.json()["status"] == "done"


def charged_by_user(shop: Caller, deeds: Sequence[Deed]) -> dict[str, int]:
    """How often Stripe took money for each of these, by the user in its metadata."""
    charged: dict[str, int] = {}
    mine = {str(deed.body.get("user_id", deed.key)) for deed in deeds}
    for payment in shop.sandbox.client().v1.payment_intents.list({"limit": 100}).auto_paging_iter():
        user = payment.metadata.to_dict().get("user_id")
        if user in mine and payment.status == "succeeded":
            charged[user] = charged.get(user, 0) + 1
    return charged
