"""What Stripe kept becomes known by itself, a few questions at a time, once the money is told."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.payments import fees
from services.payments.domain import decode
from services.payments.fees import FeeSearch
from services.payments.gateway import StripeClient
from services.payments.rebuild import rebuild
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.payments.conftest import Hands, Service
from tests.payments.test_asking import client, events_of
from tests.sandbox.conftest import START, RunningSandbox, sandbox

__all__ = ["client", "sandbox"]

DAY = 86_400


@pytest.fixture
def hands() -> Hands:
    """Two weeks after the first of the lives: they last some days each."""
    return Hands(datetime.fromtimestamp(START, UTC) + timedelta(days=14))


@pytest.fixture(autouse=True)
async def rebuilds_alike(service: Service, database: Database) -> AsyncIterator[None]:
    yield
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine)() as session:
        assert (await rebuild(session)).differed == []
    await engine.dispose()


async def heard(service: Service, sandbox: RunningSandbox, *lifecycles: str) -> list[str]:
    ids = sandbox.play(*lifecycles, seed=len(lifecycles), spread_seconds=DAY)
    for stripe_id in ids:
        await service.receive(events_of(sandbox, stripe_id))
    await service.fold_all()
    return ids


async def search_all(service: Service, search: FeeSearch, client: StripeClient) -> int:
    asked = 0
    while put := await search.run_once():
        asked += put
        await service.ask_all(client)
    return asked


LIVES = ("card_success", "multi_capture", "full_refund", "dispute_lost", "dispute_won")


async def test_fee_and_net_of_every_payment_become_stripes_own(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    ids = await heard(service, sandbox, *LIVES)
    rows = await service.payments()
    assert {rows[each]["fee_minor"] for each in ids} == {None}
    search = FeeSearch(service.pool, hands)
    assert await search_all(service, search, client) >= len(ids)
    truth = sandbox.control("GET", "truth?details=true")
    rows = await service.payments()
    for each in ids:
        known = {name: truth[each][name] for name in ("fee_minor", "net_minor")}
        assert {name: rows[each][name] for name in known} == known
        assert rows[each]["net_minor"] is not None
    # Nothing is left to ask, now and after the next whole sweep.
    hands.later(7_200)
    assert await search_all(service, search, client) == 0
    assert await service.rows("SELECT FROM stripe_questions WHERE answered_at IS NULL") == []


async def test_the_change_is_announced(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    [stripe_id] = await heard(service, sandbox, "card_success")
    await search_all(service, FeeSearch(service.pool, hands), client)
    said = await service.rows(
        "SELECT payload->>'fee_minor' AS fee, payload->>'net_minor' AS net,"
        " payload->>'payment_method_type' AS method FROM outbox ORDER BY position"
    )
    row = (await service.payments())[stripe_id]
    assert said[-1] == {
        "fee": str(row["fee_minor"]),
        "net": str(row["net_minor"]),
        "method": "card",
    }
    assert [each["fee"] for each in said[:-1]] == [None] * (len(said) - 1)


async def test_where_no_transaction_was_ever_named_the_payment_itself_is_asked_about(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    [stripe_id] = sandbox.play("card_success", seed=77, spread_seconds=DAY)
    told = [e for e in events_of(sandbox, stripe_id) if e["type"] == "payment_intent.succeeded"]
    await service.receive(told)
    await service.fold_all()
    assert await search_all(service, FeeSearch(service.pool, hands), client) == 1
    truth = sandbox.control("GET", "truth?details=true")[stripe_id]
    row = (await service.payments())[stripe_id]
    assert (row["fee_minor"], row["net_minor"]) == (truth["fee_minor"], truth["net_minor"])
    assert row["payment_method_type"] == "card"


async def test_a_disputes_fee_is_not_taken_for_the_charges(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    [stripe_id] = sandbox.play("inquiry_escalated", seed=1, spread_seconds=DAY)
    # As of an event that named the charge's own balance transaction, and was never made.
    told = events_of(sandbox, stripe_id)
    for event in told:
        if event["data"]["object"]["object"] == "charge":
            event["data"]["object"]["balance_transaction"] = None
    await service.receive(told)
    await service.fold_all()
    hands.later(DAY * 40)
    await search_all(service, FeeSearch(service.pool, hands), client)
    row = (await service.payments())[stripe_id]
    truth = sandbox.control("GET", "truth?details=true")[stripe_id]
    assert (row["fee_minor"], row["net_minor"]) == (truth["fee_minor"], truth["net_minor"])


async def test_only_a_few_are_open_at_once_and_money_is_asked_about_first(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    count = fees.MOST_OPEN + 3
    await heard(service, sandbox, *["card_success"] * count)
    search = FeeSearch(service.pool, hands)
    assert await search.run_once() == fees.MOST_OPEN
    assert await search.run_once() == 0
    await service.ask_all(client)
    assert await search.run_once() == 3


async def test_what_has_just_succeeded_is_left_time_to_settle(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    [stripe_id] = await heard(service, sandbox, "card_success")
    succeeded_at = (await service.payments())[stripe_id]["succeeded_at"]
    assert isinstance(succeeded_at, datetime)
    hands.now = succeeded_at + timedelta(minutes=9)
    search = FeeSearch(service.pool, hands)
    assert await search.run_once() == 0
    hands.later(120)
    assert await search.run_once() == 1


async def test_what_stripe_does_not_know_waits_for_the_next_sweep(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    await heard(service, sandbox, "card_success")
    await service.pool.execute(
        """UPDATE payment_intents SET fold = jsonb_set(fold, '{unsettled}', '{"txn_no": "ch_1"}')"""
    )
    search = FeeSearch(service.pool, hands)
    assert await search_all(service, search, client) == 1
    assert await search_all(service, search, client) == 0
    # As it was: the rebuild would notice.
    await service.pool.execute("UPDATE stripe_events SET status = 'received'")
    await service.pool.execute("DELETE FROM payment_intents")
    await service.pool.execute("DELETE FROM outbox")
    await service.fold_all()


async def test_what_was_answered_and_did_not_tell_the_fee_is_not_asked_again(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    await heard(service, sandbox, "card_success", "full_refund")
    rows = list((await service.payments()).values())
    told = [
        {
            "id": fees.questions(str(row["stripe_id"]), decode(str(row["fold"])))[0].event_id,
            "object": "event",
            "type": "farebox.balance_transaction_retrieved",
            "created": START,
            "data": {"object": {"object": "balance_transaction", "id": "txn_odd"}},
        }
        for row in rows[:1]
    ]
    await service.receive(told)
    await service.pool.execute("UPDATE stripe_events SET status = 'ignored' WHERE id LIKE 'far%'")
    assert await FeeSearch(service.pool, hands).run_once() == 1
