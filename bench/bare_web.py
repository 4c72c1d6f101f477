"""What a webhook costs when nothing is kept: the signature is checked and 200 answered, on the same server.

`python -m bench.bare_web PORT SECRET`
"""

import sys

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from services.payments.gateway import verify
from shared.clock import utc_now

HEADERS = [(b"content-length", b"0")]  # as the product answers


def checks_only(secret: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        [signature] = [value for name, value in scope["headers"] if name == b"stripe-signature"]
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        verify(body, signature.decode(), (secret,), utc_now())
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body"})

    return app


if __name__ == "__main__":
    port, secret = sys.argv[1:]
    uvicorn.run(
        checks_only(secret),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
