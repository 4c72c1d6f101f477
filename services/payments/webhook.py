"""`POST /webhooks/stripe`: verified, stored, answered.  200 says that the event is durable, and nothing else.

Plain ASGI in front of the application: the path is measured in tens of microseconds, a framework's request takes more.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from starlette.types import Receive, Scope, Send

from services.payments.gateway import NotAnEvent, SignatureRefused, open_envelope, verify
from services.payments.intake import Intake
from services.payments.store import Arrival
from shared import log
from shared.clock import Clock
from shared.errors import FareboxError, Unavailable
from shared.problem import problem
from shared.settings import Settings
from shared.trace import child_of

PATH = "/webhooks/stripe"
# Typed into Stripe's dashboard with a slash behind it, it is meant all the same.
PATHS = frozenset((PATH, f"{PATH}/"))
# Stripe's largest events are some 100 kB; whatever is larger than this is none.
MAX_BODY_BYTES = 1_048_576

logger = log.get("webhook")


class BodyTooLarge(FareboxError):
    status = 413
    title = "The body is larger than any Stripe event"


class MethodNotAllowed(FareboxError):
    status = 405
    title = "Stripe posts its webhooks"


class Webhook:
    """The endpoint itself; everything it needs is made when the application starts."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._secrets = settings.webhook_secrets
        self._clock = clock
        self._intake = Intake(settings.url_of("payments"), "payments")
        self._answers = Counter(
            "farebox_webhooks", "Webhooks answered", ("status",), registry=CollectorRegistry()
        )
        self._stored = self._answers.labels("200")

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        app.state.metrics.registry.register(self._answers)
        if not self._secrets:
            logger.warning("no STRIPE_WEBHOOK_SECRETS: every webhook will be refused")
        async with self._intake:
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._take(scope, receive)
        except FareboxError as error:
            self._answers.labels(str(error.status)).inc()
            logger.info("webhook refused", status=error.status, reason=error.detail)
            response = problem(error.status, error.slug, error.title, error.detail)
            if isinstance(error, Unavailable):
                response.headers["Retry-After"] = "1"
            if isinstance(error, MethodNotAllowed):
                response.headers["Allow"] = "POST"
            await response(scope, receive, send)
        else:
            self._stored.inc()
            await send(OK_START)
            await send(OK_BODY)

    async def _take(self, scope: Scope, receive: Receive) -> None:
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['method']} is not possible here")
        signature, traceparent = _headers_of(scope)
        if signature is None:
            raise SignatureRefused("there is no Stripe-Signature header")
        body = await _body_of(scope, receive)
        verify(body, signature, self._secrets, self._clock())
        arrival = Arrival(open_envelope(body), body, child_of(traceparent))
        await self._intake.store(arrival)


class StripeDoor:
    """Hands webhooks to `webhook`, and everything else on to the application.

    It stands outside the application: its own layers take as long as everything that a webhook needs.
    """

    def __init__(self, app: FastAPI, webhook: Webhook) -> None:
        self.app = app
        self._webhook = webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in PATHS:
            await self._webhook(scope, receive, send)
        else:
            await self.app(scope, receive, send)


# Stripe looks at the status alone, and a body would go out as a packet of its own.
OK_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"0")],
}
OK_BODY = {"type": "http.response.body"}


def _headers_of(scope: Scope) -> tuple[str | None, str | None]:
    """The signature and the trace that it came with."""
    signature = traceparent = None
    for name, value in scope["headers"]:
        if name == b"stripe-signature":
            signature = value.decode("latin-1")
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
        elif name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise BodyTooLarge(f"{int(value)} bytes; at most {MAX_BODY_BYTES} are taken")
    return signature, traceparent


async def _body_of(scope: Scope, receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise NotAnEvent("the sender left before the body was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(f"more than {MAX_BODY_BYTES} bytes")
    return b"".join(parts)
