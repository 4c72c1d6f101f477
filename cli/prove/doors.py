"""Two doors on loopback, inside this process: the stand-in's API, and the service's own for webhooks."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from embedded.ports import LOOPBACK
from embedded.stripe_sandbox import api, sign
from embedded.stripe_sandbox.sandbox import Sandbox
from embedded.stripe_sandbox.wire import Sender
from services.payments.app import create_web
from services.payments.webhook import PATH
from shared.clock import Clock
from shared.settings import Settings

SECRET = "whsec_of_the_proof"
STARTS_WITHIN_SECONDS = 10.0
# As many as Stripe has on their way to one endpoint at a time.
AT_ONCE = 32


class NotAcknowledged(Exception):
    """The door did not answer 200 to what Stripe signed."""


class Door(uvicorn.Server):
    """A server in a loop that is not its own: Ctrl-C is for whoever runs the loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Post:
    """Sends signed webhooks to the service."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url + PATH
        self._clock = clock
        self._sender = Sender()

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Raises NotAcknowledged where one was not answered 200."""
        for start in range(0, len(bodies), AT_ONCE):
            await asyncio.gather(*map(self._one, bodies[start : start + AT_ONCE]))

    async def _one(self, body: bytes) -> None:
        signature = sign(body, [SECRET], int(self._clock().timestamp()))
        answer = await self._sender.post(self._url, {"Stripe-Signature": signature}, body)
        if answer.status != 200:
            raise NotAcknowledged(f"{answer.status} for a signed webhook: {answer.body[:200]!r}")

    def close(self) -> None:
        self._sender.close()


@asynccontextmanager
async def stripe_door(sandbox: Sandbox) -> AsyncIterator[str]:
    """The stand-in's API under a URL."""
    async with _served(Starlette(routes=api.routes(sandbox)), "off") as url:
        yield url


@asynccontextmanager
async def webhook_door(settings: Settings, clock: Clock) -> AsyncIterator[Post]:
    async with _served(create_web(settings, clock), "on") as url:
        post = Post(url, clock)
        try:
            yield post
        finally:
            post.close()


@asynccontextmanager
async def _served(app: ASGIApp, lifespan: str) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan == "on" else "off",
        timeout_graceful_shutdown=2,
    )
    server = Door(config)
    listener = socket.create_server((LOOPBACK, 0), backlog=512)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(STARTS_WITHIN_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
        yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()
