"""HTTP in: health, metrics, OpenAPI, problem+json and one transaction per request, alike for every service."""

import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

import structlog
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import log, problem
from shared.clock import Clock, utc_now
from shared.db import create_engine, create_sessions
from shared.errors import InvalidInput
from shared.events import Event
from shared.health import BLINDING, CHECKS, HealthProbe
from shared.heap import keep_what_is_loaded
from shared.settings import Service, Settings
from shared.trace import Cause, child_of, request_cause, trace_id

GRACEFUL_SECONDS = 10  # what is under way at SIGTERM may take this long
# Larger than any request of ours: a scope of 10,000 subscriptions takes 400 kB, a price list some MB.
MAX_BODY_BYTES = 8 * 2**20
TOO_LARGE = f"at most {MAX_BODY_BYTES} bytes are taken"
DESCRIPTION = "Money is in minor units of the currency; times are RFC 3339 with an offset."

logger = log.get("http")


@dataclass(frozen=True)
class Web:
    """What one service's HTTP side is made of."""

    settings: Settings
    service: Service
    router: APIRouter
    hears: tuple[type[Event], ...] = ()
    clock: Clock = utc_now
    routes: Sequence[BaseRoute] = ()
    # Opened with the app; each may put what it makes on `app.state`.
    lifespans: Sequence[Callable[[FastAPI], AbstractAsyncContextManager[None]]] = ()


def create_app(web: Web) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            engine = create_engine(web.settings.url_of(web.service), web.service)
            stack.push_async_callback(engine.dispose)
            app.state.sessions = create_sessions(engine)
            topics = tuple(sorted({event.topic for event in web.hears}))
            app.state.probe = HealthProbe(web.settings, web.service, app.state.sessions, topics)
            stack.push_async_callback(app.state.probe.close)
            for enter in web.lifespans:
                await stack.enter_async_context(enter(app))
            yield

    # FastAPI's own page fetches its scripts from a CDN, which a closed network does not reach.
    app = FastAPIOffline(
        title=f"farebox {web.service}", description=DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    app.state.settings, app.state.clock = web.settings, web.clock
    problem.install(app)
    metrics = _Metrics(web.service)
    app.state.metrics = metrics
    app.include_router(_operations())
    app.include_router(web.router)
    app.router.routes.extend(web.routes)
    app.add_middleware(_Bounded)
    app.add_middleware(_Trace, metrics=metrics)
    return app


def serve(app: ASGIApp, settings: Settings, service: Service) -> None:
    """Run until SIGTERM; requests under way are finished first, and the process ends with 0."""
    # uvicorn raises the signal again once it has shut down: by then everything is done.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    keep_what_is_loaded()
    uvicorn.run(
        app,
        host=settings.farebox_host,
        port=settings.port_of(service),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions.begin() as session:
        yield session


def now(request: Request) -> datetime:
    return cast("Clock", request.app.state.clock)()


def configured(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


def cause() -> Cause:
    return request_cause.get()


# `function` scope: the commit comes before the answer, so that a 2xx is never a promise.
Session = Annotated[AsyncSession, Depends(transaction, scope="function")]
Now = Annotated[datetime, Depends(now)]
Configured = Annotated[Settings, Depends(configured)]
RequestCause = Annotated[Cause, Depends(cause)]


class _Metrics:
    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "farebox_http_request_seconds",
            "Time to answer",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.gauge = Gauge(
            "farebox_state", "What readiness looks at", ("service", "name"), registry=self.registry
        )
        self.service = service


def _operations() -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process runs."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz(request: Request, only: str = ",".join(CHECKS)) -> JSONResponse:
        """Whether it can do its work; `only=database,schema` asks for some of the checks."""
        wanted = only.split(",")
        if unknown := sorted(set(wanted) - set(CHECKS)):
            raise InvalidInput(f"unknown checks {unknown}; there are {', '.join(CHECKS)}")
        found = (await request.app.state.probe.check(wanted)).problems
        blind = BLINDING & set(found)
        report = {name: found.get(name, "unknown" if blind else "ok") for name in wanted}
        ready = not blind and all(state == "ok" for state in report.values())
        body = {"ready": ready, "checks": report}
        return JSONResponse(body, status_code=200 if ready else 503)

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        state: _Metrics = request.app.state.metrics
        health = await request.app.state.probe.check()
        for name, value in health.gauges.items():
            state.gauge.labels(state.service, name).set(value)
        state.gauge.labels(state.service, "ready").set(0 if health.problems else 1)
        return Response(generate_latest(state.registry), media_type="text/plain; version=0.0.4")

    return router


class _Bounded:
    """Refuses a body that no request of ours has, before it is held in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > MAX_BODY_BYTES:
            answer = problem.problem(413, "body-too-large", "The body is too large", TOO_LARGE)
            await answer(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LARGE)
            return message

        await self.app(scope, bounded, send)


class _Trace:
    """Gives each request a trace, a cause and a line in the log."""

    def __init__(self, app: ASGIApp, metrics: _Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        # Trace and our own span: two requests in one client's trace are two causes.
        traceparent = child_of(given or None)
        request_cause.set(Cause(f"request:{traceparent[3:52]}", traceparent))
        status = 500
        started = time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"traceparent", traceparent.encode()))
            await send(message)

        with structlog.contextvars.bound_contextvars(trace_id=trace_id(traceparent)):
            try:
                await self.app(scope, receive, answer)
            finally:
                took = time.perf_counter() - started
                route = getattr(scope.get("route"), "path", "unmatched")
                self.metrics.requests.labels(scope["method"], route, str(status)).observe(took)
                if route not in ("/healthz", "/readyz", "/metrics"):
                    logger.info(
                        "request",
                        method=scope["method"],
                        path=scope["path"],
                        status=status,
                        took_ms=round(took * 1000, 1),
                    )
