"""Events are counted by type and fate as they are folded, and so cheaply that anybody may look."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx

from services.payments.app import create_web
from services.payments.mend import give_back
from shared.settings import Settings
from tests.conftest import Database
from tests.payments.conftest import Service
from tests.payments.lives import played

LIVE = "SELECT type, status, count(*) FROM stripe_events GROUP BY 1, 2 ORDER BY 1, 2"


async def counted(database: Database, *, since: str | None = None) -> list[tuple[object, ...]]:
    app = create_web(Settings(payments_database_url=database.url_for("payments"))).app
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as web:
            asked = {"since": since} if since else {}
            answer = await web.get("/stripe-events/counts", params=asked)
    return [(i["type"], i["status"], i["count"]) for i in answer.raise_for_status().json()["items"]]


def as_listed(rows: Iterable[asyncpg.Record]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in rows]


async def test_whatever_becomes_of_events_is_counted(service: Service, database: Database) -> None:
    events = played(3, ["card_success", "full_refund"]).events
    charge_only = {**events[-1], "id": "evt_waits"}
    charge_only["data"] = {"object": {**events[-1]["data"]["object"], "id": "re_9"}}
    charge_only["data"]["object"] |= {"object": "refund", "payment_intent": None, "charge": "ch_9"}
    odd = {**events[0], "id": "evt_odd", "data": {"object": {"object": "payout"}}}
    bad = {**events[0], "id": "evt_bad", "data": {"object": {"object": "charge"}}}
    await service.receive([*events, odd, bad])
    assert await counted(database) == as_listed(await service.pool.fetch(LIVE))
    await service.fold_all()
    await service.receive([charge_only, {**events[0], "id": "evt_late"}])
    assert {status for _, status, _ in await counted(database)} == {
        "applied",
        "ignored",
        "parked",
        "received",
    }
    assert await counted(database) == as_listed(await service.pool.fetch(LIVE))
    await service.fold_all()  # the one waits, the other is applied
    assert await counted(database) == as_listed(await service.pool.fetch(LIVE))
    async with service.pool.acquire() as connection:
        assert await give_back(connection, [1, 2], "applied") == 2
    assert await counted(database) == as_listed(await service.pool.fetch(LIVE))
    await service.pool.execute("UPDATE stripe_events SET body = body, redacted_at = now()")
    await service.fold_all()
    assert await counted(database) == as_listed(await service.pool.fetch(LIVE))


async def test_an_hour_counts_whole_and_earlier_ones_do_not(
    service: Service, database: Database
) -> None:
    events = played(3, ["card_success"]).events
    await service.receive(events)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await service.pool.execute(
        "UPDATE stripe_events SET received_at = $1 WHERE position = 1", hour - timedelta(seconds=1)
    )
    await service.fold_all()
    late = await counted(database, since=(hour + timedelta(minutes=59)).isoformat())
    assert sum(int(str(count)) for _, _, count in late) == len(events) - 1
    early = await counted(database, since=(hour - timedelta(minutes=1)).isoformat())
    assert sum(int(str(count)) for _, _, count in early) == len(events)
