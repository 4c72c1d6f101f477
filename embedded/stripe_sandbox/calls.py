"""One API call in Stripe's manner: its key, its idempotency, its errors, its expansions."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from embedded.stripe_sandbox import people, shapes
from embedded.stripe_sandbox.errors import StripeError, invalid, refused
from embedded.stripe_sandbox.forms import Form
from embedded.stripe_sandbox.invoices import invoice_json, part_json
from embedded.stripe_sandbox.ledger import (
    API_VERSION,
    IllegalTransition,
    JsonObject,
    Ledger,
    Request,
)
from embedded.stripe_sandbox.payouts import payout_json
from embedded.stripe_sandbox.refunds import refundable_minor
from embedded.stripe_sandbox.reviews import review_json
from embedded.stripe_sandbox.sandbox import Kept, Sandbox

# Sources of balance transactions that are nothing to be retrieved.
NOT_OBJECTS = ("fee_",)
STAND_IN = "This is farebox's stand-in for Stripe, not Stripe."


@dataclass(frozen=True)
class Call:
    """What a handler is given; `object_id` is the id in the path, or empty."""

    sandbox: Sandbox
    form: Form
    object_id: str
    account: str | None = None

    @property
    def ledger(self) -> Ledger:
        return self.sandbox.ledger


Handler = Callable[[Call], JsonObject | bytes]


def endpoint(sandbox: Sandbox, handler: Handler) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(http: HttpRequest) -> Response:
        encoded = (await http.body()).decode() if http.method == "POST" else http.url.query
        # No await below but for an outage: a call is done in one piece.
        call = Call(
            sandbox,
            Form(encoded),
            http.path_params.get("id", ""),
            http.headers.get("stripe-account"),
        )
        sandbox.calls[http.method] += 1
        outage = sandbox.outages.failing(http.method, http.url.path)
        if outage is None:
            return _perform(call, handler, http)
        if outage.after_effect:
            _perform(call, handler, http)
        failed = await outage.answer()
        key = http.headers.get("idempotency-key")
        if outage.kept and key is not None:
            kept = Kept(_asked(call, http), failed.status_code, bytes(failed.body), call.ledger.now)
            sandbox.keep(key, kept)
        return failed

    return answer


def _perform(call: Call, handler: Handler, http: HttpRequest) -> Response:
    request_id = call.ledger.ids.new("req")
    key = http.headers.get("idempotency-key") if http.method == "POST" else None
    headers = {
        "Request-Id": request_id,
        "Stripe-Version": http.headers.get("stripe-version", API_VERSION),
        "X-Stand-In": STAND_IN,
    }
    if key is not None:
        headers["Idempotency-Key"] = key
    try:
        _require_key(http.headers.get("authorization", ""))
        asked = _asked(call, http)
        if key is not None and (kept := call.sandbox.answered(key)):
            return _replay(kept, asked, key, headers)
        status, body = _do(call, handler, Request(request_id, key))
        if key is not None:
            call.sandbox.keep(key, Kept(asked, status, body, call.ledger.now))
    except StripeError as error:
        return _json({"error": error.error}, error.status, headers)
    return Response(body, status, {**headers, "Content-Type": "application/json"})


def _asked(call: Call, http: HttpRequest) -> str:
    return f"{http.method} {http.url.path} {call.form.canonical()}"


def _do(call: Call, handler: Handler, request: Request) -> tuple[int, bytes]:
    """Perform the call.  A refusal that came of doing it is an answer to keep like any other."""
    call.sandbox.touch()
    call.ledger.request = request
    try:
        made = handler(call)
        if isinstance(made, bytes):
            return 200, made
        return 200, orjson.dumps(expanded(call, made), option=orjson.OPT_INDENT_2)
    except IllegalTransition as illegal:
        return 400, orjson.dumps({"error": refused(illegal).error})
    except StripeError as error:
        if not error.executed:
            raise
        return error.status, orjson.dumps({"error": error.error})
    finally:
        call.ledger.request = Request()


def _replay(kept: Kept, asked: str, key: str, headers: dict[str, str]) -> Response:
    if kept.asked != asked:
        raise StripeError(
            400,
            "idempotency_error",
            "Keys for idempotent requests can only be used with the parameters they were first "
            f"used with. Try another key than '{key}' for other parameters.",
        )
    headers = {**headers, "Idempotent-Replayed": "true", "Content-Type": "application/json"}
    return Response(kept.body, kept.status, headers)


def _require_key(authorization: str) -> None:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            value = ""
    if not value.startswith("sk_test_"):
        raise StripeError(
            401,
            "invalid_request_error",
            f"Invalid API key provided: any that starts with sk_test_ will do. {STAND_IN}",
        )


def _json(body: JsonObject, status: int, headers: dict[str, str] | None = None) -> Response:
    encoded = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    return Response(encoded, status, headers, media_type="application/json")


def expanded(call: Call, shape: JsonObject) -> JsonObject:
    """`shape` with the ids that `expand[]` names replaced by their objects."""
    for path in call.form.listed("expand"):
        _expand(call.ledger, shape, path.split("."), path)
    return shape


def _expand(ledger: Ledger, shape: JsonObject, steps: list[str], path: str) -> None:
    step, *rest = steps
    if shape["object"] == "list" and step == "data" and rest:
        for each in shape["data"]:
            _expand(ledger, each, rest, path)
        return
    if shape["object"] == "charge" and step == "refunds":
        shape["refunds"] = charge_refunds(ledger, shape["id"])
    if shape["object"] == "invoice" and step == "payments":
        parts = [p for p in ledger.invoice_parts.values() if p.invoice.id == shape["id"]]
        data = [part_json(each) for each in parts]
        shape["payments"] = {"object": "list", "data": data, "has_more": False}
    if step not in shape:
        raise invalid(f"This property cannot be expanded ({path}).", param="expand")
    if isinstance(shape[step], str) and not shape[step].startswith(NOT_OBJECTS):
        shape[step] = fetch(ledger, shape[step])
    if rest and isinstance(shape[step], dict):
        _expand(ledger, shape[step], rest, path)


def charge_refunds(ledger: Ledger, charge_id: str) -> JsonObject:
    intent = ledger.intents[ledger.charges[charge_id].intent_id]
    made = [shapes.refund_json(each) for each in intent.refunds if each.charge_id == charge_id]
    url = f"/v1/charges/{charge_id}/refunds"
    return {"object": "list", "data": made[::-1], "has_more": False, "url": url}


def fetch(ledger: Ledger, object_id: str) -> JsonObject:
    """Any object of the ledger by its id."""
    if intent := ledger.intents.get(object_id):
        return shapes.intent_json(intent)
    if charge := ledger.charges.get(object_id):
        return shapes.charge_json(charge, ledger.intents[charge.intent_id])
    if refund := ledger.refunds.get(object_id):
        return shapes.refund_json(refund)
    if transaction := ledger.transactions.get(object_id):
        return shapes.transaction_json(transaction, ledger.now)
    if dispute := ledger.disputes.get(object_id):
        refundable = refundable_minor(ledger.intents[dispute.intent_id]) > 0
        return shapes.dispute_json(dispute, refundable and dispute.status.startswith("warning_"))
    return _fetch_other(ledger, object_id)


def _fetch_other(ledger: Ledger, object_id: str) -> JsonObject:
    if customer := ledger.customers.get(object_id):
        return people.customer_json(customer)
    if method := ledger.methods.get(object_id):
        return people.method_json(method)
    if review := ledger.reviews.get(object_id):
        return review_json(review)
    if invoice := ledger.invoices.get(object_id):
        return invoice_json(invoice)
    if part := ledger.invoice_parts.get(object_id):
        return part_json(part)
    if payout := ledger.payouts.get(object_id):
        return payout_json(payout)
    raise invalid(f"{object_id} cannot be expanded.", param="expand")
