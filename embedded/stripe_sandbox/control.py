"""What a test or a demo tells the sandbox: `/_sandbox/…`, JSON in and out; Stripe has none of it."""

import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from urllib.parse import parse_qsl

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.stripe_sandbox import payouts
from embedded.stripe_sandbox.calls import STAND_IN
from embedded.stripe_sandbox.commands import (
    Advance,
    ClockOrder,
    CustomerOrder,
    Drain,
    Endpoints,
    OutageOrder,
    OutagesOrder,
    PayoutOrder,
    PayoutStep,
    PlayOrder,
    RawBody,
    SilenceOrder,
    epoch_of,
)
from embedded.stripe_sandbox.customers import kind_of, new_customer, save_method
from embedded.stripe_sandbox.delivery import Endpoint, Patience
from embedded.stripe_sandbox.faults import Faults
from embedded.stripe_sandbox.ledger import IllegalTransition, Intent, JsonObject
from embedded.stripe_sandbox.outages import Outage
from embedded.stripe_sandbox.play import PaymentSpec, Span, UnknownLifecycle
from embedded.stripe_sandbox.sandbox import Sandbox, Silence
from embedded.stripe_sandbox.signing import sign
from embedded.stripe_sandbox.story import ACTIONS, Step
from embedded.stripe_sandbox.truth import truth_of, whole_truth

Command = Callable[[Sandbox, bytes], Awaitable[JsonObject]]


class NotFound(LookupError):
    """What the command names is not there."""


async def forget(sandbox: Sandbox, body: bytes) -> JsonObject:
    """Everything: payments and events, endpoints, bad days, the clock that was set."""
    await sandbox.deliverer.stop()
    sandbox.forget()
    sandbox.deliverer.start()
    return await show_health(sandbox, b"")


async def set_endpoints(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = Endpoints.model_validate_json(body)
    endpoints = [Endpoint(**each.model_dump()) for each in order.endpoints]
    await sandbox.deliverer.stop()
    sandbox.configure(endpoints, Patience(**order.patience.model_dump()))
    sandbox.deliverer.start()
    return {"endpoints": [each.url for each in endpoints]}


async def play_payments(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = PlayOrder.model_validate_json(body)
    specs = [PaymentSpec(**each.model_dump()) for each in order.payments]
    span = Span(order.start_epoch, order.spread_seconds, order.faults.tie_seconds)
    faults = Faults(**order.faults.model_dump())
    parts, events = await sandbox.play(order.seed, specs, span, faults)
    played = [
        {
            **asdict(spec),
            "stripe_id": part.scene.intent.id,
            "lifecycle": part.lifecycle,
        }
        for spec, part in zip(specs, parts, strict=True)
    ]
    return {"payments": played, "events": events}


async def advance(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = Advance.model_validate_json(body)
    intent = sandbox.ledger.intents.get(order.stripe_id)
    if intent is None:
        raise NotFound(f"no payment {order.stripe_id}")
    if order.action not in ACTIONS:
        raise NotFound(f"no action {order.action}; there are: {', '.join(ACTIONS)}")
    sandbox.touch(intent, order.after_seconds)
    before = len(sandbox.records.by_id)
    ACTIONS[order.action](Step(sandbox.ledger, intent, order.amount_minor, order.object_id))
    told = list(sandbox.records.by_id.values())[before:]
    return {
        "truth": truth_of(intent),
        "events": [{"id": each.id, "type": each.type} for each in told],
    }


async def show_deliveries(sandbox: Sandbox, body: bytes) -> JsonObject:
    return asdict(sandbox.deliverer.counts)


async def drain(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = Drain.model_validate_json(body or b"{}")
    drained = await sandbox.deliverer.drained(order.timeout_seconds)
    return {"drained": drained, **asdict(sandbox.deliverer.counts)}


async def send_raw(sandbox: Sandbox, body: bytes) -> JsonObject:
    """Send any bytes with any signature to an endpoint, once; says what it answered."""
    order = RawBody.model_validate_json(body)
    endpoint = next(iter(sandbox.deliverer.endpoints.values()), None)
    url = order.url or (endpoint.url if endpoint else None)
    if url is None:
        raise NotFound("no endpoint is set and no url was given")
    raw = order.body.encode() if order.body_base64 is None else base64.b64decode(order.body_base64)
    secrets = order.secrets or (list(endpoint.secrets) if endpoint else [])
    timestamp = int(time.time()) if order.timestamp is None else order.timestamp
    signature = sign(raw, secrets, timestamp) if order.signature is None else order.signature
    headers = {"Content-Type": "application/json"}
    if signature:
        headers["Stripe-Signature"] = signature
    answer = await sandbox.deliverer.post_as(url, headers, raw)
    return {"status": answer.status, "body": answer.body.decode(errors="replace")}


async def redeliver(sandbox: Sandbox, body: bytes) -> JsonObject:
    """Send events again, all that are awaited or those named: what `stripe events resend` does."""
    wanted = set(orjson.loads(body or b"{}").get("events", ()))
    again = [
        record
        for record in sandbox.records.by_id.values()
        if (record.id in wanted if wanted else record.awaiting)
    ]
    for record in again:
        sandbox.deliverer.send(record)
    return {"events": len(again)}


async def set_outage(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = OutageOrder.model_validate_json(body)
    sandbox.outages.rules = [Outage(**order.model_dump())]
    return asdict(sandbox.outages.rules[0])


async def set_outages(sandbox: Sandbox, body: bytes) -> JsonObject:
    orders = OutagesOrder.model_validate_json(body).outages
    sandbox.outages.rules = [Outage(**each.model_dump()) for each in orders]
    return await show_outages(sandbox, b"")


async def show_outages(sandbox: Sandbox, body: bytes) -> JsonObject:
    return {"outages": [asdict(rule) for rule in sandbox.outages.rules]}


async def set_silence(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = SilenceOrder.model_validate_json(body)
    sandbox.silence = Silence(order.fate, order.count, tuple(order.types))
    return asdict(sandbox.silence)


async def set_clock(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = ClockOrder.model_validate_json(body)
    sandbox.events_kept_days = order.events_kept_days
    sandbox.set_clock(None if order.now is None else epoch_of(order.now), order.ticking)
    return {"now": sandbox.clock.now()}


async def show_calls(sandbox: Sandbox, body: bytes) -> JsonObject:
    return dict(sandbox.calls)


async def set_customer(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = CustomerOrder.model_validate_json(body)
    sandbox.touch()
    ledger = sandbox.ledger
    if order.customer is None:
        customer = new_customer(ledger, dict(order.metadata))
    elif order.customer in ledger.customers:
        customer = ledger.customers[order.customer]
    else:
        raise NotFound(f"no customer {order.customer}")
    method = ledger.methods.get(customer.method_id or "")
    if method is None:
        kind = order.type or kind_of(order.outcomes[0])
        method = save_method(ledger, customer, kind, list(order.outcomes))
    method.outcomes = list(order.outcomes)
    return {"customer": customer.id, "payment_method": method.id}


async def make_payout(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = PayoutOrder.model_validate_json(body)
    sandbox.touch()
    currency = order.currency.lower()
    if order.fee_minor is not None:
        fee = payouts.charge_fee(sandbox.ledger, payouts.Wish(currency, order.fee_minor))
        fee.available_on = sandbox.ledger.now
    wish = payouts.Wish(currency, None, order.skew_minor, order.account)
    return payouts.payout_json(payouts.pay_out(sandbox.ledger, wish))


async def advance_payout(sandbox: Sandbox, body: bytes) -> JsonObject:
    order = PayoutStep.model_validate_json(body)
    payout = sandbox.ledger.payouts.get(order.payout)
    if payout is None:
        raise NotFound(f"no payout {order.payout}")
    sandbox.touch()
    if order.action == "reconciled":
        payouts.finish_reconciliation(sandbox.ledger, payout)
    else:
        payouts.move(sandbox.ledger, payout, order.action)
    return payouts.payout_json(payout)


async def show_truth(sandbox: Sandbox, query: bytes) -> JsonObject:
    """Of one payment, or of each by its id; with `details` all that the sandbox knows of it."""
    asked = dict(parse_qsl(query.decode()))
    stripe_id = asked.get("stripe_id")
    details = asked.get("details") == "true"

    def tell(intent: Intent) -> JsonObject:
        return whole_truth(sandbox.ledger, intent) if details else truth_of(intent)

    intents = sandbox.ledger.intents
    if stripe_id is None:
        return {intent.id: tell(intent) for intent in intents.values()}
    if stripe_id not in intents:
        raise NotFound(f"no payment {stripe_id}")
    return tell(intents[stripe_id])


async def show_health(sandbox: Sandbox, body: bytes) -> JsonObject:
    return {"ok": True, "what": STAND_IN, "payments": len(sandbox.ledger.intents)}


def _route(sandbox: Sandbox, method: str, path: str, command: Command) -> Route:
    async def answer(request: Request) -> Response:
        given = request.url.query.encode() if method == "GET" else await request.body()
        try:
            return Response(
                orjson.dumps(await command(sandbox, given)), media_type="application/json"
            )
        except (ValidationError, UnknownLifecycle, orjson.JSONDecodeError) as error:
            return _problem(422, str(error))
        except NotFound as error:
            return _problem(404, str(error))
        except IllegalTransition as error:
            return _problem(409, str(error))
        except OSError as error:
            return _problem(502, f"{type(error).__name__}: {error}")

    return Route(path, answer, methods=[method])


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse(
        {"status": status, "detail": detail}, status, media_type="application/problem+json"
    )


COMMANDS: list[tuple[str, str, Command]] = [
    ("POST", "/_sandbox/forget", forget),
    ("PUT", "/_sandbox/endpoints", set_endpoints),
    ("POST", "/_sandbox/play", play_payments),
    ("POST", "/_sandbox/advance", advance),
    ("GET", "/_sandbox/deliveries", show_deliveries),
    ("POST", "/_sandbox/drain", drain),
    ("POST", "/_sandbox/send-raw", send_raw),
    ("POST", "/_sandbox/redeliver", redeliver),
    ("POST", "/_sandbox/outage", set_outage),
    ("POST", "/_sandbox/outages", set_outages),
    ("GET", "/_sandbox/outages", show_outages),
    ("POST", "/_sandbox/silence", set_silence),
    ("POST", "/_sandbox/clock", set_clock),
    ("POST", "/_sandbox/customers", set_customer),
    ("POST", "/_sandbox/payouts", make_payout),
    ("POST", "/_sandbox/payouts/advance", advance_payout),
    ("GET", "/_sandbox/calls", show_calls),
    ("GET", "/_sandbox/truth", show_truth),
    ("GET", "/_sandbox/health", show_health),
]


def routes(sandbox: Sandbox) -> list[Route]:
    return [_route(sandbox, *command) for command in COMMANDS]
