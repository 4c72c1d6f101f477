"""One write request from end to end: placed, asked, settled, each in its own transaction.

What dies in between leaves an open order, which the worker ends; the caller is told 202 and where to look.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.gateway import Done, Refused, StripeAway, StripeClient, answer_id
from services.payments.orders import requests, work
from services.payments.orders.place import Order, place
from services.payments.orders.requests import Answer, Keyed, Left
from services.payments.orders.shapes import OrderAnswer, OrderView
from shared import log
from shared.clock import Clock
from shared.db import Sessions
from shared.errors import FareboxError
from shared.faults import is_transient

# A caller waits no longer than this; the worker goes on.
ASK_SECONDS = 8.0
DECLINED = 402

Draft = Callable[[AsyncSession], Awaitable[Order]]

logger = log.get("orders")


class PaymentDeclined(FareboxError):
    status = 402
    title = "The payment was declined"


class StripeRefused(FareboxError):
    status = 409
    title = "Stripe refused to do this"


@dataclass(frozen=True)
class Desk:
    """What carrying out needs."""

    sessions: Sessions
    pool: asyncpg.Pool
    client: StripeClient
    clock: Clock


async def carry(desk: Desk, keyed: Keyed, draft: Draft) -> Answer:
    """The answer to a write request, final or 202.  Raises what `draft` and `requests.remember` raise."""
    now = desk.clock()
    async with desk.sessions.begin() as session:
        before = await requests.remember(session, keyed, now)
        if before is None:
            order = await draft(session)
            await place(session, order, now, now + requests.HELD)
    match before:
        case Answer():
            return before
        case Left(order_id):
            return await _look_up(desk, keyed, order_id)
        case None:
            return await _carry_out_or_leave(desk, keyed, order, now)


async def _carry_out_or_leave(desk: Desk, keyed: Keyed, order: Order, now: datetime) -> Answer:
    try:
        return await _carry_out(desk, keyed, _claimed(order, now))
    except Exception as error:
        if not is_transient(error):
            raise
        # The order is written down, and stays so: that alone may be promised.
        logger.warning("order left to the worker", order_id=str(order.id), error=repr(error))
        return _placed(order, now)


async def _carry_out(desk: Desk, keyed: Keyed, claimed: work.Claimed) -> Answer:
    try:
        outcome = await _ask(desk, claimed)
    except StripeAway as away:
        return await _leave(desk, keyed, claimed, away)
    return await _settle(desk, keyed, claimed, outcome)


async def _ask(desk: Desk, claimed: work.Claimed) -> Done | Refused:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await work.ask(desk.client, claimed, desk.clock())
    except TimeoutError as error:
        raise StripeAway(f"no answer within {ASK_SECONDS} s") from error


async def _leave(desk: Desk, keyed: Keyed, claimed: work.Claimed, away: StripeAway) -> Answer:
    """What Stripe has done is not known: the worker finds it out."""
    async with desk.pool.acquire() as connection, connection.transaction():
        await work.put_off(connection, claimed, away, desk.clock())
        await requests.let_go(connection, keyed, desk.clock())
        return await _answer(connection, claimed.id)


async def _settle(
    desk: Desk, keyed: Keyed, claimed: work.Claimed, outcome: Done | Refused
) -> Answer:
    async with desk.pool.acquire() as connection, connection.transaction():
        await work.settle(connection, claimed, outcome, desk.clock())
        answer = await _answer(connection, claimed.id)
        await requests.keep(connection, keyed, answer)
        return answer


async def _look_up(desk: Desk, keyed: Keyed, order_id: UUID) -> Answer:
    """What became of an order whose caller was not answered; kept once it has ended."""
    async with desk.pool.acquire() as connection, connection.transaction():
        answer = await _answer(connection, order_id)
        if answer.status != 202:
            await requests.keep(connection, keyed, answer)
    return replace(answer, is_replay=True)


def _claimed(order: Order, now: datetime) -> work.Claimed:
    return work.Claimed(
        id=order.id,
        kind=order.kind,
        parameters=dict(order.parameters),
        stripe_payment_id=order.stripe_payment_id,
        account=order.account,
        currency=order.currency,
        amount_minor=order.amount_minor,
        attempts=1,
        first_asked_at=now,
        asked_before=False,
        traceparent=order.traceparent,
    )


def _placed(order: Order, now: datetime) -> Answer:
    view = {**vars(order), "status": "open", "created_at": now}
    view |= dict.fromkeys(
        ("payment_id", "stripe_object_id", "failure_code", "last_error", "ended_at")
    )
    return Answer(order.id, 202, OrderAnswer.model_validate(view).model_dump(mode="json"))


READ = """
SELECT o.*, convert_from(e.body, 'UTF8') AS told
FROM stripe_orders o LEFT JOIN stripe_events e ON e.id = $2
WHERE o.id = $1
"""


async def _answer(connection: asyncpg.Connection, order_id: UUID) -> Answer:
    """As the order and Stripe's own answer to it say; the same whoever ended it."""
    row = dict(await connection.fetchrow(READ, order_id, answer_id(order_id)))
    told = row.pop("told")
    view = OrderView.model_validate(row)
    if view.status == "refused":
        return _refusal(view, row["refused_status"])
    shown = _shown(told) if view.status == "done" else {}
    answer = OrderAnswer.model_validate({**row, **shown}).model_dump(mode="json")
    match view.status, view.kind:
        case "open", _:
            return Answer(order_id, 202, answer)
        case _, "create":
            return Answer(order_id, 201, answer)
        case _:
            return Answer(order_id, 200, answer)


def _refusal(view: OrderView, stripe_status: int | None) -> Answer:
    kind = PaymentDeclined if stripe_status == DECLINED else StripeRefused
    error = kind(view.detail or "Stripe gave no reason")
    body: dict[str, object] = {
        "type": f"urn:farebox:problem:{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "order_id": str(view.id),
        "payment_id": str(view.payment_id) if view.payment_id else None,
        "failure_code": view.failure_code,
    }
    return Answer(view.id, error.status, body)


def _shown(told: str | None) -> dict[str, object]:
    """What the caller's customer needs to go on: the status, and where it is to be authenticated."""
    shown = orjson.loads(told)["data"]["object"] if told else {}
    action = shown.get("next_action") or {}
    redirect = action.get("redirect_to_url") or {}
    return {
        "stripe_status": shown.get("status"),
        "client_secret": shown.get("client_secret"),
        "next_action_url": redirect.get("url"),
    }
