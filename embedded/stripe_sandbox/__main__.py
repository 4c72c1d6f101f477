"""`python -m embedded.stripe_sandbox --port N --state-dir DIR`: serve the stand-in until stopped."""

import argparse
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from embedded.stripe_sandbox import api, control
from embedded.stripe_sandbox.calls import STAND_IN
from embedded.stripe_sandbox.sandbox import Sandbox

LOG_FILE = "stripe-sandbox.log"
# An answer that an outage holds back must not hold back the stop.
STOP_WITHIN_SECONDS = 2
EXIT_CANNOT_START = 69


def create_app() -> Starlette:
    sandbox = Sandbox()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sandbox.deliverer.start()
        yield
        await sandbox.deliverer.stop()

    async def say_what_this_is(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{STAND_IN}\nAPI: /v1/…  control: /_sandbox/…\n")

    return Starlette(
        routes=[Route("/", say_what_this_is), *api.routes(sandbox), *control.routes(sandbox)],
        lifespan=lifespan,
    )


def main() -> int:
    options = _options()
    try:
        options.state_dir.mkdir(parents=True, exist_ok=True)
        log = logging.FileHandler(options.state_dir / LOG_FILE)
        listener = _listen(options.host, options.port)
    except OSError as error:
        print(f"stripe sandbox cannot start: {error}", file=sys.stderr)
        return EXIT_CANNOT_START
    logging.basicConfig(level=logging.INFO, handlers=[log])
    print(f"{STAND_IN} On http://{options.host}:{options.port}", flush=True)
    config = uvicorn.Config(
        create_app,
        factory=True,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m embedded.stripe_sandbox", description=STAND_IN)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
