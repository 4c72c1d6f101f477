"""What a test or a demo tells the sandbox: `/_sandbox/…`, JSON in and out; Stripe has none of it."""

import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embedded.stripe_sandbox.calls import STAND_IN
from embedded.stripe_sandbox.commands import (
    Advance,
    Drain,
    Endpoints,
    OutageOrder,
    PlayOrder,
    RawBody,
)
from embedded.stripe_sandbox.delivery import Endpoint, Patience
from embedded.stripe_sandbox.faults import Faults
from embedded.stripe_sandbox.ledger import IllegalTransition, JsonObject
from embedded.stripe_sandbox.play import PaymentSpec, Span, UnknownLifecycle
from embedded.stripe_sandbox.sandbox import Outage, Sandbox
from embedded.stripe_sandbox.signing import sign
from embedded.stripe_sandbox.story import ACTIONS, Step
from embedded.stripe_sandbox.truth import truth_of, truths

Command = Callable[[Sandbox, bytes], Awaitable[JsonObject]]


class NotFound(LookupError):
    """What the command names is not there."""


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
    hangs = order.status == "timeout"
    sandbox.outage = Outage(
        status=504 if isinstance(order.status, str) else order.status,
        count=order.count,
        hang_seconds=order.hang_seconds if hangs else 0.0,
        after_effect=order.after_effect,
    )
    return asdict(sandbox.outage)


async def show_truth(sandbox: Sandbox, query: bytes) -> JsonObject:
    stripe_id = query.decode()
    if not stripe_id:
        return truths(sandbox.ledger.intents.values())
    if stripe_id not in sandbox.ledger.intents:
        raise NotFound(f"no payment {stripe_id}")
    return truth_of(sandbox.ledger.intents[stripe_id])


async def show_health(sandbox: Sandbox, body: bytes) -> JsonObject:
    return {"ok": True, "what": STAND_IN, "payments": len(sandbox.ledger.intents)}


def _route(sandbox: Sandbox, method: str, path: str, command: Command) -> Route:
    async def answer(request: Request) -> Response:
        stripe_id = request.query_params.get("stripe_id", "")
        given = stripe_id.encode() if method == "GET" else await request.body()
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
    ("PUT", "/_sandbox/endpoints", set_endpoints),
    ("POST", "/_sandbox/play", play_payments),
    ("POST", "/_sandbox/advance", advance),
    ("GET", "/_sandbox/deliveries", show_deliveries),
    ("POST", "/_sandbox/drain", drain),
    ("POST", "/_sandbox/send-raw", send_raw),
    ("POST", "/_sandbox/redeliver", redeliver),
    ("POST", "/_sandbox/outage", set_outage),
    ("GET", "/_sandbox/truth", show_truth),
    ("GET", "/_sandbox/health", show_health),
]


def routes(sandbox: Sandbox) -> list[Route]:
    return [_route(sandbox, *command) for command in COMMANDS]
