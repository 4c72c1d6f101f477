"""Something that stands before Stripe says what Stripe never would: asked again later, and nobody is held up."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from services.payments.gateway import BACKOFF, StripeClient
from tests.payments.conftest import Hands, Service
from tests.payments.test_asking import assert_true, events_of, rebuilds_alike
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["rebuilds_alike", "sandbox"]


@contextmanager
def muddled(sandbox: RunningSandbox, subject: str, answer: bytes) -> Iterator[str]:
    """The sandbox behind something that gives an answer of its own, with a 200, where it is asked for `subject`."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            own = {"Authorization": self.headers["Authorization"]}
            is_muddled = subject in self.path
            body = answer if is_muddled else httpx.get(sandbox.url + self.path, headers=own).content
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Tests speak for themselves."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "answer", [b"[]", b"null", b"<html>", b"{}", b'{"object": "list"}', b"\xff"]
)
@pytest.mark.parametrize("asked_for", ["payment_intents", "refunds?payment_intent"])
async def test_an_answer_that_is_none_is_tried_again_later_and_holds_nobody_up(
    service: Service, sandbox: RunningSandbox, hands: Hands, answer: bytes, asked_for: str
) -> None:
    [first, second] = sandbox.play("full_refund", "full_refund")
    lives = [events_of(sandbox, stripe_id) for stripe_id in (first, second)]
    kind = "refund" if asked_for == "payment_intents" else "charge.refunded"
    own = ("payment_intent.", "charge.") if kind == "charge.refunded" else ("refund.",)
    for events in lives:
        await service.receive(
            [e for e in events if e["type"].startswith(own) and "refund.updated" not in e["type"]]
        )
    await service.fold_all()
    hands.later(61)
    separator = "=" if "?" in asked_for else "/"
    with muddled(sandbox, f"/v1/{asked_for}{separator}{first}", answer) as url:
        muddled_client = StripeClient("sk_test_payments", url)
        assert await service.ask_all(muddled_client) == 1
        await muddled_client.close()
    await assert_true(service, sandbox, second)
    [question] = await service.rows(
        "SELECT subject, attempts, last_error, ask_after FROM stripe_questions"
        " WHERE answered_at IS NULL"
    )
    assert first in str(question["subject"])
    assert question["attempts"] == 1
    assert "Stripe" in str(question["last_error"])
    assert question["ask_after"] == hands.now + BACKOFF[0]

    hands.later(3)
    client = StripeClient("sk_test_payments", sandbox.url)
    assert await service.ask_all(client) == 1
    await client.close()
    await assert_true(service, sandbox, first)
