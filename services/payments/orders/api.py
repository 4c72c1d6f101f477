"""Asking for something to be done with a payment.  Each write needs a key of `payments:write` and an Idempotency-Key."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.gateway import StripeClient
from services.payments.orders import carry, drafts, requests
from services.payments.orders.carry import Desk
from services.payments.orders.drafts import Wish
from services.payments.orders.models import StripeOrder
from services.payments.orders.place import Order
from services.payments.orders.requests import Answer
from services.payments.orders.shapes import (
    OrderAnswer,
    OrderPage,
    OrderView,
    PaymentToCancel,
    PaymentToCapture,
    PaymentToConfirm,
    PaymentToCreate,
    PaymentToRefund,
    Status,
)
from shared.api_keys import Caller
from shared.auth import require
from shared.db import raw_pool
from shared.errors import InvalidInput, NotFound, Unavailable
from shared.problem import MEDIA_TYPE, PROPERTIES, SCHEMA
from shared.settings import Settings
from shared.trace import Cause
from shared.web import Now, RequestCause, Session

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry
# Requests that settle at one moment; each takes a few milliseconds.
POOL_CONNECTIONS = 4
# When an open order is worth another look.
LOOK_AGAIN_SECONDS = "2"

IDEMPOTENCY_KEY = "Idempotency-Key"
# Asked for by hand, so that its absence is 400 and said in words; on the page it is required.
KEYED: dict[str, object] = {
    "parameters": [
        {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "required": True,
            "description": "Yours, new for each request; the same sends the same again",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": requests.MAX_KEY_LENGTH,
                "pattern": "^[ -~]+$",
            },
        }
    ]
}
ORDERED = {
    "order_id": {"type": "string", "format": "uuid"},
    "payment_id": {"type": ["string", "null"], "format": "uuid"},
    "failure_code": {"type": ["string", "null"]},
}
PROBLEM = {MEDIA_TYPE: {"schema": SCHEMA}}
REFUSAL = {MEDIA_TYPE: {"schema": SCHEMA | {"properties": {**PROPERTIES, **ORDERED}}}}
TEXT = {"schema": {"type": "string"}}
HEADERS = {
    "Location": {"description": "The order", **TEXT},
    "Idempotency-Replayed": {"description": "true: this was answered before", **TEXT},
}
LATER = {"Retry-After": {"description": "Seconds until another look is worth it", **TEXT}}
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"description": title, "content": REFUSAL if status in (402, 409) else PROBLEM}
    for status, title in (
        (400, "An Idempotency-Key is needed"),
        (401, "An API key is needed"),
        (402, "The payment was declined"),
        (403, "The API key's scopes do not cover this"),
        (404, "There is no such payment"),
        (409, "Not possible in the present state, or refused by Stripe"),
        (422, "The input breaks a rule, or the key belongs to another request"),
        (503, "Try again later"),
    )
}
ANSWERS: dict[int | str, dict[str, object]] = {
    200: {"description": "Done", "headers": HEADERS},
    202: {
        "model": OrderAnswer,
        "description": "Stripe has not answered yet: see the order",
        "headers": HEADERS | LATER,
    },
    **PROBLEMS,
}
writing = APIRouter(tags=["orders"], responses=ANSWERS)
reading = APIRouter(
    tags=["orders"],
    dependencies=[Depends(require("payments:read", always=False))],
    responses=PROBLEMS,
)
ALL_OF_IT, NO_REASON = PaymentToCapture(), PaymentToCancel()
ALL_THAT_IS_LEFT = PaymentToRefund()


class StripeKeyMissing(Unavailable):
    title = "Stripe cannot be asked"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Puts the desk on `app.state` while the application runs; none without STRIPE_API_KEY."""
    settings: Settings = app.state.settings
    app.state.desk = None
    if not settings.stripe_api_key:
        yield
        return
    client = StripeClient(settings.stripe_api_key, settings.stripe_api_base)
    url = settings.url_of("payments")
    try:
        async with raw_pool(url, "payments", size=POOL_CONNECTIONS, ready=0) as pool:
            app.state.desk = Desk(app.state.sessions, pool, client, app.state.clock)
            yield
    finally:
        await client.close()


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Writer:
    """Who writes, under which key, to which address."""

    desk: Desk
    caller: str
    key: str
    path: str
    cause: Cause
    now: datetime

    async def write(
        self, asked: T, draft: Callable[[AsyncSession, Wish, T], Awaitable[Order]]
    ) -> JSONResponse:
        """Carry out what `draft` makes of `asked`."""
        keyed = requests.keyed(self.caller, self.key, self.path, asked)
        wish = Wish(keyed.order_id, self.caller, self.cause, self.now)

        async def drafted(session: AsyncSession) -> Order:
            return await draft(session, wish, asked)

        return _response(await carry.carry(self.desk, keyed, drafted))


async def writer(
    request: Request,
    caller: Annotated[Caller, Depends(require("payments:write"))],
    now: Now,
    cause: RequestCause,
) -> Writer:
    idempotency_key = request.headers.get(IDEMPOTENCY_KEY)
    if not idempotency_key:
        raise requests.IdempotencyKeyMissing(
            "send an Idempotency-Key: the same request with the same key is carried out once"
        )
    desk: Desk | None = request.app.state.desk
    if desk is None:
        raise StripeKeyMissing("STRIPE_API_KEY is not set: Stripe cannot be asked for anything")
    return Writer(desk, caller.name, idempotency_key, request.url.path, cause, now)


Writes = Annotated[Writer, Depends(writer)]


@writing.post(
    "/payments",
    status_code=201,
    response_model=OrderAnswer,
    responses={201: {"headers": HEADERS}},
    openapi_extra=KEYED,
)
async def create_payment(writer: Writes, asked: PaymentToCreate) -> JSONResponse:
    """Create a payment, of a subscription's period or of any amount; `confirm` charges it at once."""
    return await writer.write(asked, drafts.create)


@writing.post("/payments/{payment_id}/confirm", response_model=OrderAnswer, openapi_extra=KEYED)
async def confirm_payment(
    writer: Writes, payment_id: UUID, asked: PaymentToConfirm
) -> JSONResponse:
    """Charge it, at the amount the customer was shown and at no other."""
    return await writer.write(asked, partial(drafts.confirm, payment_id=payment_id))


@writing.post("/payments/{payment_id}/capture", response_model=OrderAnswer, openapi_extra=KEYED)
async def capture_payment(
    writer: Writes, payment_id: UUID, asked: PaymentToCapture = ALL_OF_IT
) -> JSONResponse:
    """Take what was authorised, or a part of it."""
    return await writer.write(asked, partial(drafts.capture, payment_id=payment_id))


@writing.post("/payments/{payment_id}/cancel", response_model=OrderAnswer, openapi_extra=KEYED)
async def cancel_payment(
    writer: Writes, payment_id: UUID, asked: PaymentToCancel = NO_REASON
) -> JSONResponse:
    """End a payment that was not paid."""
    return await writer.write(asked, partial(drafts.cancel, payment_id=payment_id))


@writing.post("/payments/{payment_id}/refund", response_model=OrderAnswer, openapi_extra=KEYED)
async def refund_payment(
    writer: Writes, payment_id: UUID, asked: PaymentToRefund = ALL_THAT_IS_LEFT
) -> JSONResponse:
    """Give back all that is left of it, or a part."""
    return await writer.write(asked, partial(drafts.refund, payment_id=payment_id))


@reading.get("/orders")
async def list_orders(
    session: Session,
    payment_id: UUID | None = None,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    after: Annotated[UUID | None, Query(description="`next` of a page")] = None,
) -> OrderPage:
    """What Stripe was asked to do, newest first; `status=open` is what it has not answered yet."""
    statement = select(StripeOrder).order_by(StripeOrder.created_at.desc(), StripeOrder.id.desc())
    if payment_id is not None:
        statement = statement.where(StripeOrder.payment_id == payment_id)
    if status is not None:
        statement = statement.where(StripeOrder.status == status)
    if after is not None:
        statement = statement.where(await _below(session, after))
    found = list(await session.scalars(statement.limit(limit + 1)))
    items = [OrderView.model_validate(order) for order in found[:limit]]
    return OrderPage(items=items, next=items[-1].id if len(found) > limit else None)


@reading.get("/orders/{order_id}")
async def show_order(order_id: UUID, session: Session) -> OrderView:
    """What became of an order."""
    order = await session.get(StripeOrder, order_id)
    if order is None:
        raise NotFound(f"there is no order {order_id}", order_id=str(order_id))
    return OrderView.model_validate(order)


async def _below(session: AsyncSession, after: UUID) -> ColumnElement[bool]:
    created_at = await session.scalar(select(StripeOrder.created_at).where(StripeOrder.id == after))
    if created_at is None:
        raise InvalidInput(f"`after` names no order: {after}", after=str(after))
    return tuple_(StripeOrder.created_at, StripeOrder.id) < (created_at, after)


def _response(answer: Answer) -> JSONResponse:
    is_problem = answer.status >= 400
    headers = {"Location": f"/orders/{answer.order_id}"}
    if answer.is_replay:
        headers["Idempotency-Replayed"] = "true"
    if answer.status == 202:
        headers["Retry-After"] = LOOK_AGAIN_SECONDS
    media_type = MEDIA_TYPE if is_problem else None
    return JSONResponse(answer.body, answer.status, headers, media_type)


router = APIRouter()
router.include_router(reading)
router.include_router(writing)
