"""Stripe having a bad day, on request: which API calls fail, how, and whether they had their effect."""

import asyncio
import re
from dataclasses import dataclass, field

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from embedded.stripe_sandbox.ledger import JsonObject

# What came instead of Stripe's JSON: a proxy's page, half an answer, none, another one's.
GARBAGE: dict[str, bytes] = {
    "html": b"<html><head><title>Just a moment</title></head><body>Bad gateway</body></html>",
    "truncated": b'{"id": "pi_1", "object": "payment_intent", "amo',
    "empty": b"",
    "array": b"[]",
    "bytes": b"\xff\xfe\x00\x80",
}
TIMED_OUT = 504
CODES = {409: "idempotency_key_in_use", 429: "rate_limit"}
NAMED_AS_REQUEST_ERRORS = (401, 403, 409, 429)


@dataclass
class Outage:
    """Of the calls that match, `skip` pass and then `count` fail: with a status, garbage, or no answer at all.

    With `after_effect` a call does its work first and only its answer is lost; with `kept` its failure is the answer
    to its idempotency key from then on, as Stripe keeps a 500.
    """

    status: int | str = 500
    count: int = 0
    skip: int = 0
    method: str | None = None
    path: str = ""
    after_effect: bool = False
    kept: bool = False
    hang_seconds: float = 0.0
    retry_after_seconds: int | None = None
    garbage: str = "html"

    def takes(self, method: str, path: str) -> bool:
        """Whether this call fails; counts it."""
        if self.count <= 0 or self.method not in (None, method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.count -= 1
        return True

    async def answer(self) -> Response:
        """What is answered, if anything is, after what it takes."""
        if self.status == "timeout":
            await asyncio.sleep(self.hang_seconds)
        if self.status == "disconnect":
            return Disconnect()
        if self.status == "garbage":
            return Response(GARBAGE[self.garbage], 200, media_type="application/json")
        return self._refusal(TIMED_OUT if isinstance(self.status, str) else self.status)

    def _refusal(self, status: int) -> Response:
        request_error = status in NAMED_AS_REQUEST_ERRORS
        error: JsonObject = {
            "type": "invalid_request_error" if request_error else "api_error",
            "message": "An outage, as asked for.",
        }
        if status in CODES:
            error["code"] = CODES[status]
        body = orjson.dumps({"error": error}, option=orjson.OPT_INDENT_2)
        answer = Response(body, status, media_type="application/json")
        if self.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(self.retry_after_seconds)
        return answer


class Disconnect(Response):
    """The head of an answer, then nothing: the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = [(b"content-length", b"4096"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})


@dataclass
class Outages:
    """The rules in force; a call fails by the first that takes it."""

    rules: list[Outage] = field(default_factory=list)

    def failing(self, method: str, path: str) -> Outage | None:
        return next((rule for rule in self.rules if rule.takes(method, path)), None)
